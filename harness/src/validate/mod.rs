//! Codecs on made-up rows: what they store, how far the decoded rows are, and whether all readers agree.

mod parity;
mod rows;

use std::fmt::Write;

use kernels_gen::registry::{CodecInfo, codec, codecs};
use rayon::prelude::*;
use serde::Serialize;

use crate::attention::SquaredError;
use crate::backend;
use crate::error::{Error, Result};
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
    /// print json instead of a table
    #[arg(long)]
    pub json: bool,
}

#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    pub codec: &'static str,
    pub stored_bits_per_element: f64,
    /// family and ||x - x^||^2 / ||x||^2
    pub rel_mse: Vec<(&'static str, f64)>,
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
    pub codecs: Vec<Finding>,
}

pub fn run(options: &Options) -> Result<Findings> {
    if !kernels_gen::registry::HEAD_DIMS_STORE.contains(&options.d) {
        return Err(Error::Usage(format!(
            "--d {}: head dims are {:?}",
            options.d,
            kernels_gen::registry::HEAD_DIMS_STORE
        )));
    }
    let chosen: Vec<&'static CodecInfo> = match &options.codec {
        Some(names) => names.split(',').map(|name| Ok(codec(name.trim())?)).collect::<Result<_>>()?,
        None => codecs().to_vec(),
    };
    let cpu = backend::open(backend::Choice::Cpu)?;
    let other = backend::open(options.backend)?;
    let other = (other.name() != cpu.name()).then_some(other);
    let codecs = chosen.into_iter().map(|codec| {
        let rel_mse: Vec<_> = FAMILIES.iter().map(|f| (f.name(), rel_mse(codec, *f, options.d))).collect();
        let bits = codec.stored_bits_per_element(options.d);
        let mut checks = vec![("odd rows decode to finite numbers".to_string(), odd_rows(codec, options.d))];
        let ours = parity::read(cpu.as_ref(), codec)?;
        let tolerance = (!codec.exact()).then_some(TOLERANCE);
        checks.push((
            "fast and plain scalar decode agree".into(),
            parity::differing_value(&ours.out, &parity::plain(codec, &ours.bytes), tolerance),
        ));
        if let Some(other) = &other {
            let theirs = parity::read(other.as_ref(), codec)?;
            checks.push(("the gpu stores the same bytes".into(), parity::differing_byte(&theirs.bytes, &ours.bytes)));
            checks
                .push(("the gpu decodes the same".into(), parity::differing_value(&theirs.out, &ours.out, tolerance)));
        }
        let db_above_rate_bound = 10.0 * rel_mse[0].1.log10() + 20.0 * bits * 2_f64.log10();
        Ok(Finding { codec: codec.name, stored_bits_per_element: bits, rel_mse, db_above_rate_bound, checks })
    });
    let codecs = codecs.collect::<Result<Vec<_>>>()?;
    Ok(Findings { backend: other.as_ref().unwrap_or(&cpu).name(), d: options.d, rows: ROWS, codecs })
}

fn rel_mse(codec: &CodecInfo, family: Family, d: usize) -> f64 {
    let rows = family.rows(ROWS, d, 11);
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
                let _ = writeln!(text, "{:6} {what}: {}", f.codec, wrong.as_deref().unwrap_or("ok"));
            }
        }
        text
    }

    pub fn json(&self) -> Result<String> {
        serde_json::to_string_pretty(self)
            .map_err(|e| Error::Data(format!("the findings cannot be written as json: {e}")))
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
