//! `sweep`: how few bits a family of codecs needs before its rows are as good as a baseline's, per half of the cache.
//! Only rows are compared, so this says where to look; `ppl` says what it costs.

mod plot;
mod table;
mod threshold;

use std::path::Path;
use std::time::Instant;

use serde::{Deserialize, Serialize};
use serde_json::json;

pub use threshold::{Answer, THRESHOLDS, Threshold, answers};

use crate::attention::{Coder, Distortion, Stream};
use crate::error::{Error, Result};
use crate::model::Model;
use crate::ppl::{self, Text, coder};
use crate::report::{self, Environment, html, write_files};
use crate::rows::{Capture, capture};
use crate::run::{Journal, Output};
use crate::stats::{LEVEL, mean_with_interval};

#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    #[command(flatten)]
    pub text: Text,
    /// codecs of one family, comma separated; they are ordered by their bits
    #[arg(long, default_value = "int4,e8w4,e8q38,bf16")]
    pub codec: String,
    /// what must be reached: fp8, or a codec
    #[arg(long, default_value = "fp8")]
    pub baseline: String,
    #[command(flatten)]
    pub output: Output,
}

/// One codec on one half, per passage.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Point {
    pub codec: String,
    pub stream: String,
    pub bits: f64,
    /// ||x - x^||^2 / ||x||^2 over all layers
    pub rel_mse: f64,
    pub rel_mse_halfwidth: f64,
    /// the same over ||x - mean row||^2 of each layer, as in the published tables of another model
    pub rel_mse_centred: f64,
    pub cosine: f64,
    pub by_layer: Vec<f64>,
    pub by_passage: Vec<f64>,
}

#[derive(Clone, Debug, Serialize)]
pub struct Sweep {
    pub kind: &'static str,
    pub baseline: String,
    pub definition: &'static str,
    pub points: Vec<Point>,
    pub answers: Vec<Answer>,
    pub model: report::ModelFacts,
    pub corpus: report::CorpusFacts,
    pub seed: u64,
    pub environment: Environment,
    pub command: String,
    pub date: String,
    pub seconds: f64,
}

/// Sums of one passage, layer by layer.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Sums {
    layers: Vec<Distortion>,
    /// of ||x - mean row||^2, summed over layers
    spread: f64,
}

pub fn coders(options: &Options) -> Result<(Coder, Vec<Coder>)> {
    let names = options.codec.split(',').map(str::trim).filter(|name| !name.is_empty());
    let mut family = names.map(coder).collect::<Result<Vec<Coder>>>()?;
    if family.is_empty() {
        return Err(Error::Usage("--codec is empty; name the codecs of a family, comma separated".into()));
    }
    let baseline = coder(&options.baseline)?;
    family.retain(|c| c.name() != baseline.name());
    Ok((baseline, family))
}

/// What `--dry-run` prints.
pub fn describe(options: &Options) -> Result<serde_json::Value> {
    let (baseline, family) = coders(options)?;
    let (folder, config, corpus) = ppl::open_text(&options.text)?;
    Ok(json!({
        "model": folder.display().to_string(), "layers": config.num_hidden_layers, "corpus": corpus.path.display().to_string(),
        "passages": options.text.passages, "ctx": options.text.ctx, "baseline": baseline.name(),
        "codecs": family.iter().map(Coder::name).collect::<Vec<_>>(), "forward_passes": options.text.passages,
    }))
}

pub fn run(options: &Options) -> Result<Sweep> {
    let start = Instant::now();
    let (baseline, mut family) = coders(options)?;
    let (folder, config, corpus) = ppl::open_text(&options.text)?;
    options.output.folder()?;
    let text = &options.text;
    let model = if text.stream { Model::stream(&folder)? } else { Model::load(&folder)? };
    let facts = report::ModelFacts::of(&folder, &model);
    let d = config.head_dim();
    let both = |coder: &Coder| Stream::ALL.map(|half| coder.stored_bits(half, 0, d)).iter().sum::<f64>();
    family.sort_by(|a, b| both(a).total_cmp(&both(b)));
    let all: Vec<Coder> = std::iter::once(baseline).chain(family).collect();
    let settings = json!({ "command": "sweep", "model": facts.sha256, "corpus": corpus.sha256, "ctx": text.ctx });
    let mut journal = Journal::open(&options.output, &settings)?;
    let mut found: Vec<Vec<Sums>> = vec![Vec::new(); 2 * all.len()];
    for passage in 0..text.passages {
        let mut rows: Option<Capture> = None;
        for (at, (coder, stream)) in all.iter().flat_map(|c| Stream::ALL.map(|s| (*c, s))).enumerate() {
            let piece = format!("{} {} passage {passage}", coder.name(), stream.name());
            let sums = match journal.get(&piece) {
                Some(sums) => sums,
                None => {
                    let ids = &corpus.passage(passage)[..text.ctx];
                    let rows = match &rows {
                        Some(rows) => rows,
                        None => rows.insert(capture(&model, ids)?),
                    };
                    let sums = distortion(rows, &coder, stream)?;
                    journal.put(&piece, &sums)?;
                    sums
                }
            };
            found[at].push(sums);
        }
        eprintln!("passage {}/{}  done after {:.0} s", passage + 1, text.passages, start.elapsed().as_secs_f64());
    }
    let named = all.iter().flat_map(|c| Stream::ALL.map(|s| (*c, s)));
    let points: Vec<Point> = named.zip(&found).map(|((coder, stream), sums)| point(&coder, stream, d, sums)).collect();
    Ok(Sweep {
        kind: "sweep",
        baseline: baseline.name().into(),
        definition: "rel_mse is ||x - x^||^2 / ||x||^2 of post-RoPE keys or of values, pooled over layers and heads; a passage is the unit",
        answers: answers(&points, baseline.name()),
        points,
        model: facts,
        corpus: report::CorpusFacts::of(&corpus, text.passages, text.ctx, &(0..text.ctx)),
        seed: options.output.seed,
        environment: Environment::here(),
        command: report::command_line(),
        date: report::utc_now(),
        seconds: start.elapsed().as_secs_f64(),
    })
}

fn distortion(rows: &Capture, coder: &Coder, stream: Stream) -> Result<Sums> {
    let d = rows.geometry.d;
    let mut sums = Sums { layers: Vec::new(), spread: 0.0 };
    for layer in 0..rows.geometry.layers {
        let x = rows.rows(layer, stream);
        sums.layers.push(Distortion::of_rows(x, &coder.round_trip(stream, (layer, 0), x, d)?.0, d));
        let mut mean = vec![0.0; d];
        x.chunks_exact(d).for_each(|row| mean.iter_mut().zip(row).for_each(|(m, v)| *m += f64::from(*v)));
        let n = (x.len() / d) as f64;
        let energy: f64 = x.iter().map(|v| f64::from(*v) * f64::from(*v)).sum();
        sums.spread += energy - mean.iter().map(|m| m * m / n).sum::<f64>();
    }
    Ok(sums)
}

fn point(coder: &Coder, stream: Stream, d: usize, passages: &[Sums]) -> Point {
    let pooled = |layers: &mut dyn Iterator<Item = &Distortion>| {
        let mut sum = Distortion::default();
        layers.for_each(|layer| sum += *layer);
        sum
    };
    let whole = pooled(&mut passages.iter().flat_map(|p| &p.layers));
    let by_passage: Vec<f64> = passages.iter().map(|p| pooled(&mut p.layers.iter()).relative()).collect();
    let (rel_mse, rel_mse_halfwidth) = mean_with_interval(&by_passage, LEVEL);
    let layers = passages.first().map_or(0, |p| p.layers.len());
    Point {
        codec: coder.name().into(),
        stream: stream.name().into(),
        bits: coder.stored_bits(stream, 0, d),
        rel_mse,
        rel_mse_halfwidth,
        rel_mse_centred: whole.error / passages.iter().map(|p| p.spread).sum::<f64>(),
        cosine: whole.mean_cosine(),
        by_layer: (0..layers).map(|l| pooled(&mut passages.iter().map(|p| &p.layers[l])).relative()).collect(),
        by_passage,
    }
}

impl Sweep {
    pub fn json(&self) -> Result<String> {
        serde_json::to_string_pretty(self).map_err(|e| Error::Data(format!("the sweep cannot be written as json: {e}")))
    }

    pub fn table(&self) -> String {
        table::table(self)
    }

    pub fn write(&self, folder: &Path) -> Result<()> {
        let plot = |title: &str, stream| html::Drawing { title: title.into(), note: "The dashed line is the baseline's error: what lies on it or below is as good.", svg: plot::plot(self, stream), half: true };
        let page = html::prose("Sweep over codecs", &self.table(), &[plot("Keys", "k"), plot("Values", "v")]);
        write_files(folder, "sweep", &self.json()?, &self.table(), &page)
    }
}
