//! Codecs on made-up rows and on rows of the bundled model: what they store, how far the decoded rows are, how long
//! the scalar reference takes, and whether all readers agree.

mod parity;
mod plot;
mod real;
mod rows;

use std::fmt::Write;
use std::path::Path;
use std::time::Instant;

use kernels_gen::reference::Row;
use kernels_gen::registry::{CodecInfo, Half, codec, codecs};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::attention::SquaredError;
use crate::backend;
use crate::error::{Error, Result};
use crate::report::{html, write_files};
use crate::run::{Journal, Output};
use real::Real;
use rows::{FAMILIES, Family};

const ROWS: usize = 2000;
/// Rows that are timed.
const TIMED: usize = 500;
/// Rows of the bundled model.
const REAL: [&str; 2] = ["real keys", "real values"];
/// Non-exact codecs: largest difference between readers, relative to the largest value.
const TOLERANCE: f32 = 5e-3;

#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// codecs, comma separated; `every` for one of each family; the four that all tests take when left out
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
    /// of a cache of head dim 128: bytes that the backend allocated over the elements that fit
    pub allocated_bits_per_element: f64,
    /// kind of rows and ||x - x^||^2 / ||x||^2; none for the model's rows where they have another head dim
    pub rel_mse: Vec<(String, Option<f64>)>,
    /// decibels above the least error that a Gaussian source allows at these stored bits
    pub db_above_rate_bound: f64,
    /// million elements a second of one thread of the scalar reference, Gaussian rows
    pub encoded: f64,
    pub decoded: f64,
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
        return Err(Error::Usage(format!("--d {}: head dims are {:?}", options.d, kernels_gen::registry::HEAD_DIMS_STORE)));
    }
    match &options.codec {
        Some(every) if every == "every" => kernels_gen::registry::FAMILIES.iter().map(|name| Ok(codec(name)?)).collect(),
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
    let (mut codecs, real) = (Vec::new(), real::real()?);
    for codec in chosen {
        let finding = match journal.get(codec.name) {
            Some(finding) => finding,
            None => {
                let finding = finding(codec, options, &real, cpu.as_ref(), other.as_deref())?;
                journal.put(codec.name, &finding)?;
                finding
            }
        };
        eprintln!("{} done", codec.name);
        codecs.push(finding);
    }
    Ok(Findings { backend, d: options.d, rows: ROWS, seed: options.output.seed, codecs })
}

fn finding(codec: &'static CodecInfo, options: &Options, real: &Real, cpu: &dyn backend::Backend, other: Option<&dyn backend::Backend>) -> Result<Finding> {
    let d = options.d;
    let made_up = |family: &Family| (family.name().to_string(), family.rows(ROWS, d, options.output.seed));
    let gaussian = rel_mse(&codec.k, &made_up(&Family::Gaussian).1, d);
    let of = |(name, rows): (String, Vec<f32>)| (name, Some(rel_mse(&codec.k, &rows, d)));
    let mut errors: Vec<_> = FAMILIES.iter().map(made_up).map(of).collect();
    for (name, half, rows) in [(REAL[0], &codec.k, &real.keys), (REAL[1], &codec.v, &real.values)] {
        errors.push((name.to_string(), (real.d == d).then(|| rel_mse(half, rows, d))));
    }
    let (encoded, decoded) = speed(&codec.k, &made_up(&Family::Gaussian).1[..TIMED * d], d);
    let bits = codec.stored_bits_per_element(options.d);
    let mut checks = vec![("odd rows decode to finite numbers".to_string(), odd_rows(codec, options.d))];
    let ours = parity::read(cpu, codec)?;
    let tolerance = (!codec.exact()).then_some(TOLERANCE);
    checks.push(("fast and plain scalar decode agree".into(), parity::differing_value(&ours.out, &parity::plain(codec, &ours.bytes), tolerance)));
    if let Some(other) = other {
        let theirs = parity::read(other, codec)?;
        checks.push(("the gpu stores the same bytes".into(), parity::differing_byte(&theirs.bytes, &ours.bytes)));
        checks.push(("the gpu decodes the same".into(), parity::differing_value(&theirs.out, &ours.out, tolerance)));
    }
    if options.d == parity::D && (ours.bits - bits).abs() > 1e-9 {
        let what = format!("the cache took {} bits an element where the layout asks for {bits}", ours.bits);
        checks.push(("bytes allocated".into(), Some(what)));
    }
    Ok(Finding { codec: codec.name.into(), stored_bits_per_element: bits, allocated_bits_per_element: ours.bits, rel_mse: errors, db_above_rate_bound: 10.0 * gaussian.log10() + 20.0 * bits * 2_f64.log10(), encoded, decoded, checks })
}

/// Million elements a second that one thread codes and decodes.
fn speed(half: &Half, rows: &[f32], d: usize) -> (f64, f64) {
    let rate = |start: Instant| rows.len() as f64 / start.elapsed().as_secs_f64().max(1e-9) / 1e6;
    let start = Instant::now();
    let coded: Vec<Row> = rows.chunks_exact(d).map(|x| half.encode_row(x)).collect();
    let encoded = rate(start);
    let start = Instant::now();
    let sum: f32 = coded.iter().map(|row| half.decode_row(row, d)[0]).sum();
    std::hint::black_box(sum);
    (encoded, rate(start))
}

fn rel_mse(half: &Half, rows: &[f32], d: usize) -> f64 {
    let errors: Vec<_> = rows.par_chunks_exact(d).map(|x| SquaredError::of_row(x, &half.decode_row(&half.encode_row(x), d))).collect();
    errors.into_iter().fold(SquaredError::default(), |a, b| a + b).relative()
}

/// Rows that break naive codecs: zero, tiny, huge, one coordinate only, NaN and infinities.
fn odd_rows(codec: &CodecInfo, d: usize) -> Option<String> {
    let only = |value: f32| (0..d).map(|i| if i == 3 { value } else { 0.0 }).collect::<Vec<f32>>();
    let all = |value: f32| vec![value; d];
    let odd = [all(0.0), all(-0.0), all(1e-38), all(f32::MAX), only(1.0), only(f32::NAN), only(f32::INFINITY), only(f32::NEG_INFINITY), all(f32::NAN)];
    let broken = |x: &&Vec<f32>| !codec.k.decode_row(&codec.k.encode_row(x), d).iter().all(|v| v.is_finite());
    odd.iter().find(broken).map(|x| format!("a row with {:e} at 0 and {:e} at 3 decodes to something that is not finite", x[0], x[3]))
}

impl Findings {
    pub fn table(&self) -> String {
        let mut text = format!("{} rows of {} for each made-up kind; backend {}; Mel/s: million elements a second of one thread of the scalar reference\n\n", self.rows, self.d, self.backend);
        let kinds = FAMILIES.map(Family::name).into_iter().chain(REAL);
        let kinds: String = kinds.map(|name| format!(" {name:>12} |")).collect();
        let _ = writeln!(
            text,
            "| codec  | bits/el | allocated |{kinds} dB above rate bound | encode Mel/s | decode Mel/s |\n|--------|--------:|----------:|{}--------------------:|-------------:|-------------:|",
            "-------------:|".repeat(FAMILIES.len() + REAL.len())
        );
        for f in &self.codecs {
            let shown = |e: &Option<f64>| e.map_or(format!(" {:>12} |", "-"), |e| format!(" {e:>12.3e} |"));
            let errors: String = f.rel_mse.iter().map(|(_, e)| shown(e)).collect();
            let (bits, allocated) = (f.stored_bits_per_element, f.allocated_bits_per_element);
            let _ = writeln!(text, "| {:6} | {bits:>7.3} | {allocated:>9.3} |{errors} {:>19.2} | {:>12.1} | {:>12.1} |", f.codec, f.db_above_rate_bound, f.encoded, f.decoded);
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
        serde_json::to_string_pretty(self).map_err(|e| Error::Data(format!("the findings cannot be written as json: {e}")))
    }

    pub fn write(&self, folder: &Path) -> Result<()> {
        let drawing = html::Drawing {
            title: "Rate and distortion".into(),
            note: "Relative squared error of keys, or of values where it says so. No code of a Gaussian source lies below the dotted line; the model's rows are not Gaussian.",
            svg: plot::plot(&self.codecs),
            half: false,
        };
        let page = html::prose("Codecs on made-up and real rows", &self.table(), &[drawing]);
        write_files(folder, "validate", &self.json()?, &self.table(), &page)
    }

    /// Fails if any reader disagrees.
    pub fn check(&self) -> Result<()> {
        let wrong = |f: &Finding| f.checks.iter().filter_map(|(_, wrong)| Some(format!("{}: {}", f.codec, wrong.as_ref()?))).collect::<Vec<_>>();
        let reasons: Vec<String> = self.codecs.iter().flat_map(wrong).collect();
        if reasons.is_empty() { Ok(()) } else { Err(Error::Invalid { reasons }) }
    }
}
