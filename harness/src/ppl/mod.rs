//! delta-ppl: how much worse a language model predicts when it reads its keys and values from a coded cache.
//! Base and codec score the same positions of the same passages; every number is a paired comparison.

mod plan;
mod scores;
mod table;
mod verdict;

use std::path::PathBuf;
use std::time::Instant;

pub use plan::{DEFAULT_CODECS, PAGE_TOKENS, Subject};
pub use scores::{LogProbs, Score};
pub use table::{PassageRow, Row};

use crate::attention::{Counted, Dense, Geometry, Tally};
use crate::backend::{self, Backend};
use crate::corpus::Corpus;
use crate::error::{Error, Result};
use crate::model::Model;
use crate::report::{Environment, Report};
use crate::{assets, report};

/// The command line of `ppl`.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// model folder, or the name of a bundled model
    #[arg(long, default_value = assets::BUNDLED_MODEL)]
    pub model: String,
    /// token ids [passage, token] as .npy; the bundled passages when left out
    #[arg(long)]
    pub corpus: Option<PathBuf>,
    /// codecs, comma separated; NAME:k and NAME:v code one half, NAME:sim leaves out the packed cache
    #[arg(long, default_value = DEFAULT_CODECS)]
    pub codec: String,
    /// passages to score
    #[arg(long, default_value_t = 8)]
    pub passages: usize,
    /// tokens of each passage that the model reads
    #[arg(long, default_value_t = 1024)]
    pub ctx: usize,
    /// scored positions first..end; position p scores token p + 1; the second half when left out
    #[arg(long)]
    pub score: Option<String>,
    #[arg(long, value_enum, default_value = "auto")]
    pub backend: backend::Choice,
    /// folder for report.json and report.md
    #[arg(long)]
    pub out: Option<PathBuf>,
}

/// Measures all rows; the report says whether the run is valid.
pub fn run(options: &Options) -> Result<Report> {
    let start = Instant::now();
    let subjects = plan::subjects(&options.codec)?;
    let corpus = Corpus::read(&options.corpus.clone().map_or_else(assets::passages, Ok)?)?;
    let folder = assets::model(&options.model)?;
    let config = crate::model::Config::read(&folder.join("config.json"))?;
    plan::check_sizes(options.passages, options.ctx, &corpus, &config)?;
    let score = plan::score_range(options.score.as_deref(), options.ctx, corpus.length)?;
    corpus.check(options.passages, (options.ctx + 1).min(corpus.length), config.vocab_size)?;
    if let Some(out) = &options.out {
        std::fs::create_dir_all(out).map_err(Error::writing(out))?;
    }
    let backend = backend::open(options.backend)?;
    let model = Model::load(&folder)?;
    let run = Run { model, backend, corpus, score: score.clone(), ctx: options.ctx, start };
    let mut results: Vec<Vec<PassageRow>> = subjects.iter().map(|_| Vec::new()).collect();
    for passage in 0..options.passages {
        run.passage(passage, options.passages, &subjects, &mut results)?;
    }
    let d = run.model.config.head_dim();
    let rows: Vec<Row> = subjects.iter().zip(&results).map(|(s, passages)| Row::of(s, passages, d)).collect();
    let invalid = verdict::reasons(&subjects, &rows, &results, run.model.config.num_hidden_layers * options.ctx);
    Ok(Report {
        command: report::command_line(),
        model: report::ModelFacts::of(&folder, &run.model),
        corpus: report::CorpusFacts::of(&run.corpus, options.passages, options.ctx, &score),
        read_path: "all".into(),
        backend: run.backend.name(),
        page_tokens: PAGE_TOKENS,
        ppl_base: table::ppl_base(&results[0]),
        rows,
        valid: invalid.is_empty(),
        invalid,
        environment: Environment::here(),
        date: report::utc_now(),
        seconds: start.elapsed().as_secs_f64(),
    })
}

struct Run {
    model: Model,
    backend: Box<dyn Backend>,
    corpus: Corpus,
    score: std::ops::Range<usize>,
    ctx: usize,
    start: Instant,
}

impl Run {
    fn passage(&self, index: usize, of: usize, subjects: &[Subject], results: &mut [Vec<PassageRow>]) -> Result<()> {
        let ids = &self.corpus.passage(index)[..self.ctx];
        let gold = &self.corpus.passage(index)[self.score.start + 1..self.score.end + 1];
        let geometry = Geometry::of(&self.model.config);
        let logits = |attention: &mut dyn crate::model::Attention| {
            self.model.logits(ids, self.score.start, self.score.end, attention)
        };
        let base = LogProbs::of(&logits(&mut Dense::new(geometry))?);
        if !base.is_finite() {
            return Err(Error::Data(format!(
                "the base model gives logits that are not finite on passage {index}; the checkpoint is damaged"
            )));
        }
        for (subject, result) in subjects.iter().zip(results.iter_mut()) {
            let clock = Instant::now();
            let (coded, tally) = match subject.attention(self.backend.as_ref(), geometry, self.ctx)? {
                Some(mut attention) => (logits(&mut Forward(attention.as_mut()))?, attention.tally()),
                None => (logits(&mut Dense { block: 192, segment: 256, ..Dense::new(geometry) })?, Tally::default()),
            };
            let seconds = clock.elapsed().as_secs_f64();
            result.push(PassageRow { scores: base.compare(&coded, gold), tally, seconds });
            eprintln!("passage {}/{of}  {:24} {seconds:6.1} s", index + 1, subject.name());
        }
        let passed = self.start.elapsed().as_secs_f64();
        let left = passed / (index + 1) as f64 * (of - index - 1) as f64;
        eprintln!("passage {}/{of}  done after {passed:.0} s, about {left:.0} s left", index + 1);
        Ok(())
    }
}

/// Lends a counted attention as a plain one.
struct Forward<'a>(&'a mut dyn Counted);

impl crate::model::Attention for Forward<'_> {
    fn attend(&mut self, rows: &crate::model::Rows) -> Result<Vec<f32>> {
        self.0.attend(rows)
    }
}
