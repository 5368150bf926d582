//! delta-ppl: how much worse a language model predicts when it reads its keys and values from a coded cache.
//! Base and codec score the same positions of the same passages; every number is a paired comparison.

mod blocks;
mod calibrated;
mod gates;
mod latent_row;
mod measure;
mod names;
mod on_device;
mod path;
mod plan;
mod row;
mod row_names;
mod rows;
mod scores;
mod subject;
mod table;
mod verdict;

use std::ops::Range;
use std::path::PathBuf;
use std::time::Instant;

use serde_json::{Value, json};

pub use blocks::FitFacts;
pub use gates::{Gate, SeedVerdict};
pub use latent_row::{KindRow, LatentRow};
pub use names::coder;
pub use path::ReadPath;
pub use plan::check_sizes;
pub use row::{Agreement, Bucket, DeltaP, LayerRow, PassageRow, Proof, Row};
pub use scores::{LogProbs, Score};
pub use subject::{Ask, RAW_BITS, Streams, Subject};

use crate::attention::{Geometry, PAGE_TOKENS};
use crate::backend::{self, Backend};
use crate::corpus::Corpus;
use crate::error::{Error, Result};
use crate::model::{Architecture, Config, Model, v4};
use crate::report::{self, Environment, Report};
use crate::run::{Journal, Output};
use crate::{assets, calibrate, device, stats};
use measure::Base;

pub const DEFAULT_CODECS: &str = "bf16,fp8,int4,e8w4,e8q38,int4:k,int4:v";

/// Which text a model is measured on.
#[derive(Clone, Debug, clap::Args)]
pub struct Text {
    /// model folder, the name of a bundled model, or hub:OWNER/NAME[@REVISION] where harness was built with --features hub
    #[arg(long, default_value = assets::BUNDLED_MODEL)]
    pub model: String,
    /// token ids [passage, token] as .npy; the bundled passages when left out
    #[arg(long)]
    pub corpus: Option<PathBuf>,
    /// passages to read
    #[arg(long, default_value_t = 8)]
    pub passages: usize,
    /// tokens of each passage that the model reads
    #[arg(long, default_value_t = 1024)]
    pub ctx: usize,
    /// keep only one layer's weights in memory; the numbers stay the same
    #[arg(long)]
    pub stream: bool,
}

/// The command line of `ppl`.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    #[command(flatten)]
    pub text: Text,
    /// codecs, comma separated; fp8 is the engines' format, fp8_e4m3_64; NAME:k and NAME:v code one half, NAME:sim
    /// leaves out the packed cache. Of a model with rows that serve all heads: formats of rows, NAME:window, :csa, :hca
    /// code one kind, fp8 is v4_fp8, and other codecs take a row as one vector
    #[arg(long, default_value = DEFAULT_CODECS)]
    pub codec: String,
    /// which halves of the cache to code, or which kinds of rows, comma separated, for every codec without one of its own
    #[arg(long, value_enum, value_delimiter = ',', default_value = "both")]
    pub streams: Vec<Ask>,
    /// sweep: so many layers at either end stay raw, comma separated
    #[arg(long, default_value = "0")]
    pub skip_layers: String,
    /// one more row for every codec, with some layers coded otherwise: 0=bf16,11=raw; may be given again
    #[arg(long, value_name = "LAYER=CODEC,..")]
    pub layers: Vec<String>,
    #[arg(long, value_enum, default_value = "all")]
    pub read_path: ReadPath,
    /// tokens of a chunk on the read path `serving`
    #[arg(long, default_value_t = 256)]
    pub chunk: usize,
    /// scored positions first..end; position p scores token p + 1; the second half, or the last 64 for `snapshot`
    #[arg(long)]
    pub score: Option<String>,
    /// of the kvfuse codecs, as `calibrate` writes it; kvfuse.calibration in the model's folder when left out
    #[arg(long)]
    pub calibration: Option<PathBuf>,
    /// token ids [window, token] as .npy to fit the pca codecs on; the bundled calibration text when left out
    #[arg(long)]
    pub fit_text: Option<PathBuf>,
    #[arg(long, value_enum, default_value = "auto")]
    pub backend: backend::Choice,
    #[command(flatten)]
    pub output: Output,
}

impl Options {
    /// What was asked for, or what the architecture has when nothing was.
    fn codecs(&self, rows: bool) -> &str {
        if rows && self.codec == DEFAULT_CODECS { row_names::DEFAULT_CODECS } else { &self.codec }
    }
}

/// A checked wish: nothing is left that could fail late.
pub struct Plan {
    pub folder: PathBuf,
    pub architecture: Architecture,
    pub corpus: Corpus,
    pub geometry: Geometry,
    pub subjects: Vec<Subject>,
    pub score: Range<usize>,
    /// where a subject needs one
    pub calibration: Option<calibrate::Opened>,
    /// what pca codecs are fitted on, where one of them needs it
    pub fit_text: Option<Corpus>,
}

/// Model and text as asked for, of a model that caches keys and values.
pub fn open_text(text: &Text) -> Result<(PathBuf, Config, Corpus)> {
    let (folder, architecture, corpus) = open(text)?;
    match architecture {
        Architecture::Dense(config) => Ok((folder, config, corpus)),
        Architecture::V4(_) => Err(Error::Unsupported { path: folder, why: "it caches rows that are key and value at once; `harness ppl` alone measures those".into() }),
    }
}

fn open(text: &Text) -> Result<(PathBuf, Architecture, Corpus)> {
    let corpus = Corpus::read(&text.corpus.clone().map_or_else(assets::passages, Ok)?)?;
    let folder = assets::model(&text.model)?;
    let architecture = Architecture::read(&folder.join("config.json"))?;
    check_sizes(text.passages, text.ctx, &corpus, architecture.positions())?;
    corpus.check(text.passages, (text.ctx + 1).min(corpus.length), architecture.vocab())?;
    Ok((folder, architecture, corpus))
}

impl Plan {
    pub fn of(options: &Options) -> Result<Plan> {
        if options.chunk == 0 {
            return Err(crate::error::Error::Usage("--chunk 0: a chunk holds at least one token".into()));
        }
        // mistakes in names first: they need no file
        let mistake = names::subjects(&options.codec, &options.streams, &[0], &[]).err();
        if let Some(mistake) = mistake.filter(|_| row_names::subjects(options.codecs(true), &options.streams).is_err()) {
            return Err(mistake);
        }
        let (folder, architecture, corpus) = open(&options.text)?;
        let geometry = architecture.geometry();
        let score = plan::score_range(options.score.as_deref(), options.read_path, options.text.ctx, corpus.length)?;
        let (mut calibration, mut fit_text) = (None, None);
        let subjects = match &architecture {
            Architecture::Dense(config) => {
                let skips = plan::skip_list(&options.skip_layers, geometry.layers)?;
                let own = options.layers.iter().map(|text| plan::own_layers(text, geometry.layers));
                let own = own.collect::<Result<Vec<_>>>()?;
                let subjects = names::subjects(&options.codec, &options.streams, &skips, &own)?;
                calibration = calibrated::opened(&subjects, options.calibration.as_deref(), &folder, &geometry)?;
                fit_text = blocks::checked(&subjects, options, &geometry, config)?;
                subjects
            }
            Architecture::V4(_) if options.skip_layers != "0" || !options.layers.is_empty() => {
                return Err(Error::Usage("--skip-layers and --layers are for keys and values; with rows choose kinds by --streams".into()));
            }
            Architecture::V4(_) => row_names::subjects(options.codecs(true), &options.streams)?,
        };
        Ok(Plan { folder, architecture, corpus, geometry, subjects, score, calibration, fit_text })
    }

    /// What `--dry-run` prints.
    pub fn describe(&self, options: &Options) -> Value {
        let (text, Geometry { layers, heads, kv_heads, d, .. }) = (&options.text, self.geometry);
        let state = 4 * text.ctx * self.architecture.state() * (self.subjects.len() + 1);
        json!({
            "model": self.folder.display().to_string(),
            "layers": layers, "heads": heads, "kv_heads": kv_heads, "head_dim": d,
            "corpus": self.corpus.path.display().to_string(),
            "passages": text.passages, "ctx": text.ctx, "score": [self.score.start, self.score.end],
            "read_path": options.read_path.name(), "meaning": options.read_path.meaning(),
            "rows": self.subjects.iter().map(Subject::name).collect::<Vec<_>>(),
            "forward_passes": text.passages * (self.subjects.len() + 1),
            "streamed": text.stream,
            "megabytes_of_hidden_states": state / 1_000_000,
        })
    }
}

/// Measures all rows; the report says whether the run is valid.
pub fn run(options: &Options) -> Result<Report> {
    run_at(options, device::Place::asked())
}

/// The same with the forward pass at a place of its own.
pub fn run_at(options: &Options, place: device::Place) -> Result<Report> {
    let start = Instant::now();
    let mut plan = Plan::of(options)?;
    options.output.folder()?;
    let backend = backend::open(options.backend)?;
    let text = &options.text;
    let base = base(&plan, text.stream, backend.as_ref(), place)?;
    let (backend_name, digests) = match &base {
        Base::Dense(model) => (backend.name(), &model.digests),
        Base::Device(model, forward) => (format!("{}; {}", backend.name(), forward.machine.name()), &model.digests),
        Base::Rows(model) => ("references of the formats on the CPU".into(), &model.digests),
    };
    let facts = report::ModelFacts::new(&plan.folder, &plan.geometry, plan.architecture.vocab(), digests);
    let (mut calibration, mut fitted) = (None, None);
    if let Base::Dense(model) | Base::Device(model, _) = &base {
        calibration = calibrated::equip(&mut plan, &facts.sha256, text.ctx)?;
        fitted = blocks::equip(&mut plan, model, text.ctx)?;
    }
    let settings = json!({
        "version": env!("CARGO_PKG_VERSION"), "model": facts.sha256, "corpus": plan.corpus.sha256, "ctx": text.ctx,
        "score": [plan.score.start, plan.score.end], "read-path": options.read_path.name(), "chunk": options.chunk,
        "backend": backend_name, "calibration": calibration.as_ref().map(|c| &c.sha256), "reads": "tiles",
        "fit-text": fitted.as_ref().and_then(|f| f.text_sha256.as_ref()),
    });
    let mut journal = Journal::open(&options.output, &settings)?;
    let run = measure::Run { base, backend, plan: &plan, options, start };
    let mut results: Vec<Vec<PassageRow>> = plan.subjects.iter().map(|_| Vec::new()).collect();
    for passage in 0..text.passages {
        for (found, result) in run.passage(passage, &mut journal)?.into_iter().zip(&mut results) {
            result.push(found);
        }
    }
    let (path, seed) = (options.read_path, options.output.seed);
    let rows = if let Architecture::V4(config) = &plan.architecture { Some(config) } else { None };
    let setting = table::Setting { path, geometry: &plan.geometry, rows, ctx: text.ctx, score: plan.score.clone(), seed };
    let rows: Vec<Row> = plan.subjects.iter().zip(&results).map(|(subject, found)| Row::of(subject, found, &setting)).collect();
    let invalid = verdict::reasons(&plan.subjects, &rows);
    Ok(Report {
        kind: "ppl".into(),
        command: report::command_line(),
        model: facts,
        corpus: report::CorpusFacts::of(&plan.corpus, text.passages, text.ctx, &plan.score),
        read_path: path.name().into(),
        read_path_meaning: path.meaning().into(),
        chunk: (path == ReadPath::Serving).then_some(options.chunk),
        backend: backend_name,
        page_tokens: PAGE_TOKENS,
        seed,
        bootstrap_draws: stats::DRAWS,
        calibration,
        fitted,
        kernels: report::kernels(&plan.subjects, &plan.geometry),
        ppl_base: table::ppl_base(&results[0]),
        rows,
        valid: invalid.is_empty(),
        invalid,
        environment: Environment::here(),
        date: report::utc_now(),
        seconds: start.elapsed().as_secs_f64(),
    })
}

/// The model of a plan in memory, where its forward pass can run.
fn base(plan: &Plan, stream: bool, backend: &dyn Backend, place: device::Place) -> Result<Base> {
    let folder = &plan.folder;
    if matches!(plan.architecture, Architecture::V4(_)) {
        return Ok(Base::Rows(if stream { v4::Model::stream(folder)? } else { v4::Model::load(folder)? }));
    }
    let model = if stream { Model::stream(folder)? } else { Model::load(folder)? };
    Ok(match device::open(backend, &model, place)? {
        Some(forward) => Base::Device(model, forward),
        None => Base::Dense(model),
    })
}
