//! What the experiment found: every cell both ways, and where the loss of fused codecs comes from.

use serde::Serialize;

use super::{Cell, FUSED};
use crate::error::{Error, Result};
use crate::ppl::Row;
use crate::report::{CorpusFacts, Environment, ModelFacts, Report};

/// One cell in one run.
#[derive(Clone, Debug, Serialize)]
pub struct Loss {
    /// mean over passages of (codec's perplexity - base's) / base's
    pub ppl_change: f64,
    pub ppl_ratio: f64,
    pub ppl_ratio_ci95: [f64; 2],
    pub kl: f64,
    pub kl_ci95: [f64; 2],
    pub top1: f64,
    pub rel_mse_k: f64,
    pub rel_mse_v: f64,
}

#[derive(Clone, Debug, Serialize)]
pub struct CellRow {
    pub what: &'static str,
    pub codec: String,
    /// of the coded prefix, layers and halves that stay raw included
    pub bits: f64,
    pub compression_vs_bf16: f64,
    /// of full blocks in coded layers alone: the figure that is usually quoted
    pub bits_of_coded: Option<f64>,
    pub snapshot: Loss,
    pub in_forward: Loss,
    pub parts: Parts,
}

/// What the in-forward divergence of a cell is made of.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "from", rename_all = "snake_case")]
pub enum Parts {
    /// rows that made a round trip, under exact attention: all of it is the codec's, no kernel is in it
    CodecAlone,
    /// one number for codec and kernel
    Together,
    Apart(Apart),
}

#[derive(Clone, Debug, Serialize)]
pub struct Apart {
    /// decoded rows under exact attention
    pub codec_kl: f64,
    /// what attention over codes adds to it, as the scalar reference defines it
    pub attention_kl: f64,
    /// None where no GPU was there
    pub kernel: Option<Kernel>,
}

/// The fused kernel on a GPU against the scalar reference, the forward pass around both on the CPU.
#[derive(Clone, Debug, Serialize)]
pub struct Kernel {
    pub reference_kl: f64,
    /// the kernel's minus the reference's
    pub difference: f64,
    /// every passage has the same KL and the same perplexity to the last digit
    pub equal: bool,
}

#[derive(Clone, Debug, Serialize)]
pub struct Found {
    pub kind: &'static str,
    pub valid: bool,
    pub invalid: Vec<String>,
    pub cells: Vec<CellRow>,
    pub ppl_base: f64,
    pub model: ModelFacts,
    pub corpus: CorpusFacts,
    pub environment: Environment,
    pub backend: String,
    pub seed: u64,
    pub command: String,
    pub date: String,
    pub seconds: f64,
}

fn row<'a>(run: &'a Report, name: &str) -> Result<&'a Row> {
    // rows are named with the way they run
    let named = |row: &&Row| row.codec == name || row.codec == format!("{name}:sim") || row.codec == format!("{name}_e4m3_64");
    let missing = || Error::Data(format!("the run of read path {} has no row {name}", run.read_path));
    run.rows.iter().find(named).ok_or_else(missing)
}

fn loss(row: &Row) -> Loss {
    Loss { ppl_change: row.seed_verdict.change, ppl_ratio: row.ppl_ratio, ppl_ratio_ci95: row.ppl_ratio_ci95, kl: row.kl_mean, kl_ci95: row.kl_mean_ci95, top1: row.top1, rel_mse_k: row.rel_mse_k, rel_mse_v: row.rel_mse_v }
}

/// `kernels` are runs of the kernels and of the scalar reference within one forward pass.
pub fn cell_row(cell: &Cell, forward: &Report, snapshot: &Report, kernels: Option<(&Report, &Report)>) -> Result<CellRow> {
    let (in_forward, once) = (row(forward, &cell.codec)?, row(snapshot, &cell.codec)?);
    let parts = match FUSED.contains(&cell.codec.as_str()) {
        true => Parts::Apart(apart(&cell.codec, forward, kernels)?),
        false if in_forward.proof.is_some() => Parts::Together,
        false => Parts::CodecAlone,
    };
    Ok(CellRow {
        what: cell.what,
        codec: cell.codec.clone(),
        bits: once.stored_bits_per_element,
        compression_vs_bf16: once.compression_vs_bf16,
        bits_of_coded: once.sizes.coded_bits(),
        snapshot: loss(once),
        in_forward: loss(in_forward),
        parts,
    })
}

fn apart(name: &str, forward: &Report, kernels: Option<(&Report, &Report)>) -> Result<Apart> {
    let (packed, plain) = (row(forward, name)?, row(forward, &format!("{name}:sim"))?);
    let kernel = |(gpu, reference): (&Report, &Report)| -> Result<Kernel> {
        let (gpu, reference) = (row(gpu, name)?, row(reference, name)?);
        Ok(Kernel { reference_kl: reference.kl_mean, difference: gpu.kl_mean - reference.kl_mean, equal: gpu.kl == reference.kl && gpu.dlnppl == reference.dlnppl })
    };
    Ok(Apart { codec_kl: plain.kl_mean, attention_kl: packed.kl_mean - plain.kl_mean, kernel: kernels.map(kernel).transpose()? })
}
