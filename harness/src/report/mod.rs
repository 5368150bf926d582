//! What a run found and everything needed to repeat it; written as report.json and report.md.

mod environment;
pub mod html;
pub mod join;
mod kernels;
mod latent;
mod markdown;
pub mod number;

use std::ops::Range;
use std::path::Path;

use serde::{Deserialize, Serialize};

pub use environment::{Environment, command_line, utc_now};
pub use kernels::{KernelId, kernels};
pub use markdown::{facts, table};

use crate::attention::Geometry;
use crate::corpus::Corpus;
use crate::error::{Error, Result};
use crate::model::{FileDigest, Model};
use crate::ppl::Row;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// which command made it
    pub kind: String,
    pub valid: bool,
    /// why the run may not be believed
    pub invalid: Vec<String>,
    pub read_path: String,
    pub read_path_meaning: String,
    pub chunk: Option<usize>,
    pub backend: String,
    pub page_tokens: usize,
    pub seed: u64,
    pub bootstrap_draws: usize,
    pub kernels: Vec<KernelId>,
    /// of the calibrated codecs among the rows
    #[serde(default)]
    pub calibration: Option<crate::calibrate::Facts>,
    /// of the pca codecs among the rows
    #[serde(default)]
    pub fitted: Option<crate::ppl::FitFacts>,
    pub ppl_base: f64,
    pub rows: Vec<Row>,
    pub model: ModelFacts,
    pub corpus: CorpusFacts,
    pub environment: Environment,
    pub command: String,
    pub date: String,
    pub seconds: f64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ModelFacts {
    pub name: String,
    pub layers: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    pub vocab: usize,
    pub files: Vec<FileDigest>,
    /// of the lines "sha256  file" of `files`
    pub sha256: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CorpusFacts {
    pub name: String,
    pub sha256: String,
    pub passages: usize,
    pub ctx: usize,
    /// half-open; position p scores token p + 1
    pub score: [usize; 2],
}

impl ModelFacts {
    pub fn of(folder: &Path, model: &Model) -> ModelFacts {
        ModelFacts::new(folder, &Geometry::of(&model.config), model.config.vocab_size, &model.digests)
    }

    pub fn new(folder: &Path, geometry: &Geometry, vocab: usize, files: &[FileDigest]) -> ModelFacts {
        let lines: String = files.iter().map(|f| format!("{}  {}\n", f.sha256, f.file)).collect();
        ModelFacts { name: last_name(folder), layers: geometry.layers, heads: geometry.heads, kv_heads: geometry.kv_heads, head_dim: geometry.d, vocab, files: files.to_vec(), sha256: crate::model::sha256(lines.as_bytes()) }
    }
}

impl CorpusFacts {
    pub fn of(corpus: &Corpus, passages: usize, ctx: usize, score: &Range<usize>) -> CorpusFacts {
        CorpusFacts { name: last_name(&corpus.path), sha256: corpus.sha256.clone(), passages, ctx, score: [score.start, score.end] }
    }
}

impl Report {
    pub fn json(&self) -> Result<String> {
        serde_json::to_string_pretty(self).map_err(|e| Error::Data(format!("the report cannot be written as json: {e}")))
    }

    /// What a terminal shows.
    pub fn summary(&self) -> String {
        format!("{}\n{}", facts(self), table(&self.rows))
    }

    /// Writes report.json, report.md and report.html into a folder that exists.
    pub fn write(&self, folder: &Path) -> Result<()> {
        let page = html::document(std::slice::from_ref(self), &[]);
        write_files(folder, "report", &self.json()?, &markdown::document(self), &page)
    }

    /// A report.json, or the folder that holds one.
    pub fn read(path: &Path) -> Result<Report> {
        let path = if path.is_dir() { path.join("report.json") } else { path.to_path_buf() };
        let text = std::fs::read_to_string(&path).map_err(Error::reading(&path))?;
        serde_json::from_str(&text).map_err(|e| Error::malformed(&path, format!("it is no report of `harness ppl`: {e}")))
    }

    /// Ok for a run that may be believed.
    pub fn check(&self) -> Result<()> {
        if self.valid { Ok(()) } else { Err(Error::Invalid { reasons: self.invalid.clone() }) }
    }
}

/// NAME.json, NAME.md and NAME.html.
pub fn write_files(folder: &Path, name: &str, json: &str, markdown: &str, html: &str) -> Result<()> {
    for (ending, text) in [("json", json), ("md", markdown), ("html", html)] {
        let path = folder.join(format!("{name}.{ending}"));
        std::fs::write(&path, format!("{}\n", text.trim_end())).map_err(Error::writing(&path))?;
    }
    Ok(())
}

fn last_name(path: &Path) -> String {
    path.file_name().map_or_else(|| path.display().to_string(), |n| n.to_string_lossy().into_owned())
}
