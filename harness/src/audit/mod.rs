//! `audit`: are keys and values Gaussian? The published gates cannot tell: perfect Gaussian rows fire them too. So each
//! figure stands beside what Gaussian rows of the same number and width score, and beside what is left of it once the
//! coordinates are shuffled against each other. Nothing is gated on any of them.

mod channel;
mod heat;
mod metrics;
mod plot;
mod table;

use std::path::Path;
use std::time::Instant;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::json;

pub use channel::Channel;
pub use metrics::{Figures, GATES, NAMES};

use kernels_gen::reference::rotate;

use crate::attention::Stream;
use crate::error::{Error, Result};
use crate::model::Model;
use crate::ppl::{self, Text};
use crate::report::{self, Environment, html, write_files};
use crate::rows::capture;
use crate::run::{Journal, Output};
use crate::stats::{Random, mean, percentile};

#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    #[command(flatten)]
    pub text: Text,
    /// rows of each layer, drawn at random from all passages and heads
    #[arg(long, default_value_t = 2048)]
    pub rows: usize,
    /// Gaussian samples that make the null band
    #[arg(long, default_value_t = 20)]
    pub null_draws: usize,
    /// shuffles that make the permutation band
    #[arg(long, default_value_t = 6)]
    pub shuffles: usize,
    #[command(flatten)]
    pub output: Output,
}

/// Centre and ends of a figure over repetitions.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Band {
    pub mean: f64,
    pub low: f64,
    pub high: f64,
}

/// One layer of one half of the cache.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Finding {
    pub layer: usize,
    pub stream: String,
    pub rows: usize,
    pub figures: Figures,
    /// the same rows with every coordinate shuffled over the rows by itself: spreads of single coordinates stay, what
    /// they have to do with each other goes
    pub shuffled: [Band; 5],
    /// each kv head's rows by themselves
    pub heads: Vec<Figures>,
    /// the least Gaussian coordinate, as it is and after the Hadamard rotation
    pub channels: [Channel; 2],
}

#[derive(Clone, Debug, Serialize)]
pub struct Audit {
    pub kind: &'static str,
    pub figures: [&'static str; 5],
    pub published_gates: [Option<f64>; 5],
    /// Gaussian rows of the same number and width; the ends hold 95 % of the draws
    pub gaussian: [Band; 5],
    /// as many Gaussian rows as a kv head has
    pub gaussian_head: [Band; 5],
    /// of the least Gaussian coordinate of those rows: shares of the rows in bins, likewise
    pub gaussian_channel: Vec<Band>,
    pub findings: Vec<Finding>,
    pub d: usize,
    pub rows: usize,
    pub model: report::ModelFacts,
    pub corpus: report::CorpusFacts,
    pub seed: u64,
    pub environment: Environment,
    pub command: String,
    pub date: String,
    pub seconds: f64,
}

fn check(options: &Options) -> Result<()> {
    let wrong = [("rows", options.rows, 16), ("null-draws", options.null_draws, 2), ("shuffles", options.shuffles, 2)];
    match wrong.iter().find(|(_, is, least)| is < least) {
        Some((what, is, least)) => Err(Error::Usage(format!("--{what} {is}: it takes at least {least}"))),
        None => Ok(()),
    }
}

/// What `--dry-run` prints.
pub fn describe(options: &Options) -> Result<serde_json::Value> {
    check(options)?;
    let (folder, config, corpus) = ppl::open_text(&options.text)?;
    Ok(json!({
        "model": folder.display().to_string(), "layers": config.num_hidden_layers, "corpus": corpus.path.display().to_string(),
        "passages": options.text.passages, "ctx": options.text.ctx, "rows": options.rows,
        "null_draws": options.null_draws, "shuffles": options.shuffles, "forward_passes": options.text.passages,
    }))
}

pub fn run(options: &Options) -> Result<Audit> {
    let start = Instant::now();
    check(options)?;
    let (folder, config, corpus) = ppl::open_text(&options.text)?;
    options.output.folder()?;
    let (text, seed, d) = (&options.text, options.output.seed, config.head_dim());
    let model = if text.stream { Model::stream(&folder)? } else { Model::load(&folder)? };
    let facts = report::ModelFacts::of(&folder, &model);
    let settings = json!({
        "command": "audit", "model": facts.sha256, "corpus": corpus.sha256, "passages": text.passages, "ctx": text.ctx,
        "rows": options.rows, "shuffles": options.shuffles, "seed": seed,
    });
    let mut journal = Journal::open(&options.output, &settings)?;
    let pieces: Vec<(usize, Stream)> = (0..config.num_hidden_layers).flat_map(|layer| Stream::ALL.map(|stream| (layer, stream))).collect();
    let piece = |layer: usize, stream: Stream| format!("layer {layer} {}", stream.name());
    let kv_heads = config.num_key_value_heads;
    let mut samples: Vec<Sample> = vec![Sample { heads: vec![Vec::new(); kv_heads], d }; pieces.len()];
    if pieces.iter().any(|(layer, stream)| journal.get::<Finding>(&piece(*layer, *stream)).is_none()) {
        for passage in 0..text.passages {
            let rows = capture(&model, &corpus.passage(passage)[..text.ctx])?;
            for (sample, (layer, stream)) in samples.iter_mut().zip(&pieces) {
                let share = options.rows.div_ceil(text.passages);
                sample.draw(rows.rows(*layer, *stream), share, seed ^ (passage as u64) << 32 | *layer as u64);
            }
            eprintln!("passage {}/{} read", passage + 1, text.passages);
        }
    }
    let mut findings = Vec::new();
    for ((layer, stream), sample) in pieces.iter().zip(samples) {
        let name = piece(*layer, *stream);
        let finding = match journal.get(&name) {
            Some(finding) => finding,
            None => {
                let finding = finding((*layer, *stream), &sample, options);
                journal.put(&name, &finding)?;
                finding
            }
        };
        eprintln!("{name} done after {:.0} s", start.elapsed().as_secs_f64());
        findings.push(finding);
    }
    let rows = findings.first().map_or(options.rows, |f| f.rows);
    let gaussian = |rows: usize, repeat: usize| -> Vec<f32> {
        let mut random = Random::new(seed + 1000 + repeat as u64);
        (0..rows * d).map(|_| random.gaussian() as f32).collect()
    };
    let null = |rows: usize| band(options.null_draws, OUTSIDE, |repeat| Figures::of(&gaussian(rows, repeat), d));
    let channels: Vec<Channel> = (0..options.null_draws).into_par_iter().map(|repeat| Channel::least_gaussian(&gaussian(rows, repeat), d)).collect();
    let share = |bin: usize| Band::of(&channels.iter().map(|c| c.shares[bin]).collect::<Vec<f64>>(), OUTSIDE);
    Ok(Audit {
        kind: "audit",
        figures: NAMES,
        published_gates: GATES,
        gaussian: null(rows),
        gaussian_head: null((rows / kv_heads).max(16)),
        gaussian_channel: (0..channel::BINS).map(share).collect(),
        findings,
        d,
        rows,
        model: facts,
        corpus: report::CorpusFacts::of(&corpus, text.passages, text.ctx, &(0..text.ctx)),
        seed,
        environment: Environment::here(),
        command: report::command_line(),
        date: report::utc_now(),
        seconds: start.elapsed().as_secs_f64(),
    })
}

/// Of Gaussian draws so many lie beyond each end of a band.
const OUTSIDE: f64 = 0.025;

/// Rows of one layer of one half of the cache, by kv head.
#[derive(Clone)]
struct Sample {
    heads: Vec<Vec<f32>>,
    d: usize,
}

impl Sample {
    /// Adds `count` different ones of `rows` [token, kv head, d], or all there are.
    fn draw(&mut self, rows: &[f32], count: usize, seed: u64) {
        let mut order: Vec<usize> = (0..rows.len() / self.d).collect();
        Random::new(seed).shuffle(&mut order);
        order.truncate(count);
        order.sort_unstable();
        let heads = self.heads.len();
        order.into_iter().for_each(|row| self.heads[row % heads].extend(&rows[row * self.d..][..self.d]));
    }
}

fn finding((layer, stream): (usize, Stream), sample: &Sample, options: &Options) -> Finding {
    let (d, rows) = (sample.d, sample.heads.concat());
    let mut rotated = rows.clone();
    rotated.chunks_exact_mut(d).for_each(rotate);
    Finding {
        layer,
        stream: stream.name().into(),
        rows: rows.len() / d,
        figures: Figures::of(&rows, d),
        shuffled: band(options.shuffles, 0.0, |repeat| shuffled(&rows, d, options.output.seed + repeat as u64)),
        heads: sample.heads.par_iter().filter(|head| !head.is_empty()).map(|head| Figures::of(head, d)).collect(),
        channels: [&rows, &rotated].map(|rows| Channel::least_gaussian(rows, d)),
    }
}

fn shuffled(rows: &[f32], d: usize, seed: u64) -> Figures {
    let (mut random, mut mixed) = (Random::new(seed), rows.to_vec());
    for coordinate in 0..d {
        let mut column: Vec<f32> = rows.iter().skip(coordinate).step_by(d).copied().collect();
        random.shuffle(&mut column);
        mixed.iter_mut().skip(coordinate).step_by(d).zip(column).for_each(|(to, x)| *to = x);
    }
    Figures::of(&mixed, d)
}

/// A band of every figure over repetitions; `outside` of them lie beyond each end.
fn band(repeats: usize, outside: f64, figures: impl Fn(usize) -> Figures + Sync) -> [Band; 5] {
    let all: Vec<[f64; 5]> = (0..repeats).into_par_iter().map(|repeat| figures(repeat).values()).collect();
    std::array::from_fn(|figure| Band::of(&all.iter().map(|v| v[figure]).collect::<Vec<f64>>(), outside))
}

impl Band {
    fn of(values: &[f64], outside: f64) -> Band {
        Band { mean: mean(values.iter().copied()), low: percentile(values, outside), high: percentile(values, 1.0 - outside) }
    }
}

impl Audit {
    pub fn json(&self) -> Result<String> {
        serde_json::to_string_pretty(self).map_err(|e| Error::Data(format!("the audit cannot be written as json: {e}")))
    }

    pub fn table(&self) -> String {
        table::table(self)
    }

    fn drawings(&self) -> Vec<html::Drawing> {
        let wide = |title: &str, note, svg| html::Drawing { title: title.into(), note, svg, half: false };
        let mut drawings = vec![wide("Figures, layer by layer", "A point inside the grey band is what Gaussian rows of this number and width score. A published gate below the band fires on Gaussian rows too.", plot::figures(self))];
        for (stream, name) in Stream::ALL.into_iter().zip(["key", "value"]) {
            let Some(worst) = plot::worst(self, stream) else { continue };
            drawings.push(html::Drawing {
                title: format!("The least Gaussian {name} channel: {} of layer {}", worst.channels[0].coordinate, worst.layer),
                note: "Grey: where the least Gaussian channel of Gaussian rows lies, 95 % of draws. Blue: this one. Green: the least Gaussian one after the Hadamard rotation.",
                svg: plot::channel(self, worst),
                half: true,
            });
        }
        let maps = [0, 4].map(|figure| heat::draw(self, figure)).join("<div style=\"height:18px\"></div>");
        drawings.push(wide("Where in the model", "Each layer and kv head by itself, against as many Gaussian rows. `as one`: inside the band.", maps));
        drawings
    }

    pub fn write(&self, folder: &Path) -> Result<()> {
        let page = html::prose("Keys and values, how far from Gaussian", &self.table(), &self.drawings());
        write_files(folder, "audit", &self.json()?, &self.table(), &page)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shuffling_keeps_coordinates_and_breaks_their_ties() {
        let mut random = Random::new(3);
        // all coordinates move together: after the rotation one of them holds everything
        let rows: Vec<f32> = (0..512)
            .flat_map(|_| {
                let common = random.gaussian();
                (0..64).map(|_| (common + 0.3 * random.gaussian()) as f32).collect::<Vec<_>>()
            })
            .collect();
        let (before, after) = (Figures::of(&rows, 64), shuffled(&rows, 64, 9));
        assert!((before.iso_variance / after.iso_variance - 1.0).abs() < 1e-6);
        assert!(before.hadamard_variance > 20.0 * after.hadamard_variance, "{before:?} {after:?}");
    }
}
