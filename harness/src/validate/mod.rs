//! Codecs on made-up rows: what they store, how far the decoded rows are, and whether all readers agree.

mod parity;
mod rows;

use std::fmt::Write;
use std::path::Path;

use kernels_gen::registry::{CodecInfo, codec, codecs};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::attention::SquaredError;
use crate::backend;
use crate::error::{Error, Result};
use crate::report::{html, write_files};
use crate::run::{Journal, Output};
use rows::{FAMILIES, Family};

const ROWS: usize = 2000;
/// Non-exact codecs: largest difference between readers, relative to the largest value.
const TOLERANCE: f32 = 5e-3;

#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// codecs, comma separated; all when left out
    #[arg(long)]
    pub codec: Option<String>,
    /// head dim of the made-up rows
    #[arg(long, default_value_t = 128)]
    pub d: usize,
    #[arg(long, value_enum, default_value = "auto")]
    pub backend: backend::Choice,
    #[command(flatten)]
    pub output: Output,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Finding {
    pub codec: String,
    pub stored_bits_per_element: f64,
    /// family and ||x - x^||^2 / ||x||^2
    pub rel_mse: Vec<(String, f64)>,
    /// decibels above the least error that a Gaussian source allows at these stored bits
    pub db_above_rate_bound: f64,
    /// what was compared, and what is wrong with it
    pub checks: Vec<(String, Option<String>)>,
}

#[derive(Clone, Debug, Serialize)]
pub struct Findings {
    pub backend: String,
    pub d: usize,
    pub rows: usize,
    pub seed: u64,
    pub codecs: Vec<Finding>,
}

/// What is asked for, checked.
fn chosen(options: &Options) -> Result<Vec<&'static CodecInfo>> {
    if !kernels_gen::registry::HEAD_DIMS_STORE.contains(&options.d) {
        return Err(Error::Usage(format!(
            "--d {}: head dims are {:?}",
            options.d,
            kernels_gen::registry::HEAD_DIMS_STORE
        )));
    }
    match &options.codec {
        Some(names) => names.split(',').map(|name| Ok(codec(name.trim())?)).collect(),
        None => Ok(codecs().to_vec()),
    }
}

/// What `--dry-run` prints.
pub fn describe(options: &Options) -> Result<serde_json::Value> {
    let names: Vec<&str> = chosen(options)?.into_iter().map(|codec| codec.name).collect();
    Ok(json!({ "codecs": names, "d": options.d, "rows": ROWS, "seed": options.output.seed }))
}

pub fn run(options: &Options) -> Result<Findings> {
    let chosen = chosen(options)?;
    let cpu = backend::open(backend::Choice::Cpu)?;
    let other = backend::open(options.backend)?;
    let other = (other.name() != cpu.name()).then_some(other);
    let backend = other.as_ref().unwrap_or(&cpu).name();
    let settings = json!({ "command": "validate", "d": options.d, "seed": options.output.seed, "backend": backend });
    let mut journal = Journal::open(&options.output, &settings)?;
    let mut codecs = Vec::new();
    for codec in chosen {
        let finding = match journal.get(codec.name) {
            Some(finding) => finding,
            None => {
                let finding = finding(codec, options, cpu.as_ref(), other.as_deref())?;
                journal.put(codec.name, &finding)?;
                finding
            }
        };
        eprintln!("{} done", codec.name);
        codecs.push(finding);
    }
    Ok(Findings { backend, d: options.d, rows: ROWS, seed: options.output.seed, codecs })
}

fn finding(
    codec: &'static CodecInfo,
    options: &Options,
    cpu: &dyn backend::Backend,
    other: Option<&dyn backend::Backend>,
) -> Result<Finding> {
    let error = |family: &Family| (family.name().to_string(), rel_mse(codec, *family, options.d, options.output.seed));
    let rel_mse: Vec<_> = FAMILIES.iter().map(error).collect();
    let bits = codec.stored_bits_per_element(options.d);
    let mut checks = vec![("odd rows decode to finite numbers".to_string(), odd_rows(codec, options.d))];
    let ours = parity::read(cpu, codec)?;
    let tolerance = (!codec.exact()).then_some(TOLERANCE);
    checks.push((
        "fast and plain scalar decode agree".into(),
        parity::differing_value(&ours.out, &parity::plain(codec, &ours.bytes), tolerance),
    ));
    if let Some(other) = other {
        let theirs = parity::read(other, codec)?;
        checks.push(("the gpu stores the same bytes".into(), parity::differing_byte(&theirs.bytes, &ours.bytes)));
        checks.push(("the gpu decodes the same".into(), parity::differing_value(&theirs.out, &ours.out, tolerance)));
    }
    let db_above_rate_bound = 10.0 * rel_mse[0].1.log10() + 20.0 * bits * 2_f64.log10();
    Ok(Finding { codec: codec.name.into(), stored_bits_per_element: bits, rel_mse, db_above_rate_bound, checks })
}

fn rel_mse(codec: &CodecInfo, family: Family, d: usize, seed: u64) -> f64 {
    let rows = family.rows(ROWS, d, seed);
    let errors: Vec<_> =
        rows.par_chunks_exact(d).map(|x| SquaredError::of_row(x, &codec.k.decode_row(&codec.k.encode_row(x), d))).collect();
    errors.into_iter().fold(SquaredError::default(), |a, b| a + b).relative()
}

/// Rows that break naive codecs: zero, tiny, huge, one coordinate only, NaN and infinities.
fn odd_rows(codec: &CodecInfo, d: usize) -> Option<String> {
    let only = |value: f32| (0..d).map(|i| if i == 3 { value } else { 0.0 }).collect::<Vec<f32>>();
    let all = |value: f32| vec![value; d];
    let odd = [
        all(0.0),
        all(-0.0),
        all(1e-38),
        all(f32::MAX),
        only(1.0),
        only(f32::NAN),
        only(f32::INFINITY),
        only(f32::NEG_INFINITY),
        all(f32::NAN),
    ];
    let broken = |x: &&Vec<f32>| !codec.k.decode_row(&codec.k.encode_row(x), d).iter().all(|v| v.is_finite());
    odd.iter()
        .find(broken)
        .map(|x| format!("a row with {:e} at 0 and {:e} at 3 decodes to something that is not finite", x[0], x[3]))
}

impl Findings {
    pub fn table(&self) -> String {
        let mut text = format!("{} rows of {} for each kind; backend {}\n\n", self.rows, self.d, self.backend);
        let families: String = FAMILIES.iter().map(|f| format!(" {:>12} |", f.name())).collect();
        let _ = writeln!(
            text,
            "| codec  | bits/el |{families} dB above rate bound |\n|--------|--------:|{}--------------------:|",
            "-------------:|".repeat(FAMILIES.len())
        );
        for f in &self.codecs {
            let errors: String = f.rel_mse.iter().map(|(_, e)| format!(" {e:>12.3e} |")).collect();
            let _ = writeln!(
                text,
                "| {:6} | {:>7.3} |{errors} {:>19.2} |",
                f.codec, f.stored_bits_per_element, f.db_above_rate_bound
            );
        }
        text.push('\n');
        for f in &self.codecs {
            for (what, wrong) in &f.checks {
                let _ = writeln!(text, "* {:6} {what}: {}", f.codec, wrong.as_deref().unwrap_or("ok"));
            }
        }
        text
    }

    pub fn json(&self) -> Result<String> {
        serde_json::to_string_pretty(self)
            .map_err(|e| Error::Data(format!("the findings cannot be written as json: {e}")))
    }

    pub fn write(&self, folder: &Path) -> Result<()> {
        let page = html::prose("Codecs on made-up rows", &self.table(), &[]);
        write_files(folder, "validate", &self.json()?, &self.table(), &page)
    }

    /// Fails if any reader disagrees.
    pub fn check(&self) -> Result<()> {
        let wrong = |f: &Finding| {
            f.checks
                .iter()
                .filter_map(|(_, wrong)| Some(format!("{}: {}", f.codec, wrong.as_ref()?)))
                .collect::<Vec<_>>()
        };
        let reasons: Vec<String> = self.codecs.iter().flat_map(wrong).collect();
        if reasons.is_empty() { Ok(()) } else { Err(Error::Invalid { reasons }) }
    }
}
