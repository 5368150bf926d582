//! A row of the report, and what one passage gives to it. Not-a-number and infinities become null in the file.

use serde::{Deserialize, Serialize};

use super::Score;
use super::gates::{Gate, SeedVerdict};
use super::latent_row::LatentRow;
use crate::attention::{Seen, Sizes, Tally};
use crate::report::number::{nan, nan_list, nan_pair};

/// One passage through one subject.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PassageRow {
    pub scores: Vec<Score>,
    pub tally: Tally,
    pub seconds: f64,
    /// read path `decode`: how far the same passage in one chunk is
    pub agreement: Option<Agreement>,
}

/// Token-by-token against all at once, over the scored positions.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Agreement {
    /// every logit has the same bits
    pub exact: bool,
    pub kl_mean: f64,
    pub kl_max: f64,
}

/// Bytes that a row moved, as the kernels counted them, and what its codec's sizes and the passage lengths ask for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Proof {
    pub bytes_written: u64,
    pub bytes_written_expected: u64,
    /// in whole tiles of 32 tokens, as kernels read
    pub bytes_read: u64,
    pub bytes_read_expected: u64,
    /// None where the scalar reference ran, whose bytes the host counts
    pub counted_by_kernels: Option<Seen>,
}

/// Change of the true token's probability, codec minus base.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct DeltaP {
    pub mean: f64,
    pub rms: f64,
    pub median: f64,
    pub min: f64,
    pub p0_1: f64,
    pub p1: f64,
    pub p5: f64,
    pub p25: f64,
    pub p75: f64,
    pub p95: f64,
    pub p99: f64,
    pub p99_9: f64,
    pub max: f64,
}

/// Scored positions from..to of all passages.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Bucket {
    pub from: usize,
    pub to: usize,
    pub positions: usize,
    #[serde(deserialize_with = "nan")]
    pub ppl_ratio: f64,
    #[serde(deserialize_with = "nan")]
    pub kl_mean: f64,
    pub top1: f64,
}

/// One layer: stored rows against raw ones, and the attention's output against the exact one.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct LayerRow {
    pub layer: usize,
    pub rel_mse_k: f64,
    pub rel_mse_v: f64,
    pub cosine_k: f64,
    pub cosine_v: f64,
    #[serde(deserialize_with = "nan")]
    pub attention_nmse: f64,
    #[serde(deserialize_with = "nan")]
    pub attention_cosine: f64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Row {
    pub codec: String,
    pub stored_bits_per_element: f64,
    /// of the whole cache, raw layers and halves included
    pub compression_vs_bf16: f64,
    /// caches really allocated over elements really stored: page slack included
    pub allocated_bits_per_element: Option<f64>,
    /// of a codec whose sizes depend on the rows, over all passages
    #[serde(default)]
    pub sizes: Sizes,
    #[serde(deserialize_with = "nan")]
    pub ppl_ratio: f64,
    #[serde(deserialize_with = "nan_pair")]
    pub ppl_ratio_ci95: [f64; 2],
    #[serde(deserialize_with = "nan_pair")]
    pub ppl_ratio_boot95: [f64; 2],
    /// the smallest true ratio that this run would have found four times in five
    #[serde(deserialize_with = "nan")]
    pub ppl_ratio_detectable: f64,
    #[serde(deserialize_with = "nan")]
    pub se_passage: f64,
    /// as if tokens were independent, which they are not
    #[serde(deserialize_with = "nan")]
    pub se_token_llamacpp: f64,
    #[serde(deserialize_with = "nan")]
    pub kl_mean: f64,
    #[serde(deserialize_with = "nan_pair")]
    pub kl_mean_ci95: [f64; 2],
    #[serde(deserialize_with = "nan_pair")]
    pub kl_mean_boot95: [f64; 2],
    #[serde(deserialize_with = "nan")]
    pub kl_median: f64,
    #[serde(deserialize_with = "nan")]
    pub kl_p90: f64,
    #[serde(deserialize_with = "nan")]
    pub kl_p95: f64,
    #[serde(deserialize_with = "nan")]
    pub kl_p99: f64,
    #[serde(deserialize_with = "nan")]
    pub kl_p999: f64,
    #[serde(deserialize_with = "nan")]
    pub kl_max: f64,
    #[serde(deserialize_with = "nan")]
    pub kl_llamacpp: f64,
    pub top1: f64,
    #[serde(deserialize_with = "nan_pair")]
    pub top1_ci95: [f64; 2],
    #[serde(deserialize_with = "nan")]
    pub top1_confident: f64,
    pub gold_change_rms: f64,
    pub delta_p: DeltaP,
    pub rel_mse_k: f64,
    pub rel_mse_v: f64,
    pub positions: usize,
    pub tokens_stored: u64,
    /// where rows of the cache serve all heads; both errors above are then those of whole rows
    #[serde(default)]
    pub latent: Option<LatentRow>,
    pub proof: Option<Proof>,
    pub gate: Gate,
    pub seed_verdict: SeedVerdict,
    pub decode_agreement: Option<Agreement>,
    /// eighths of the scored range
    pub by_position: Vec<Bucket>,
    /// 0-1k, 1-4k, 4-16k, from 16k
    pub by_context: Vec<Bucket>,
    pub layers: Vec<LayerRow>,
    pub seconds: f64,
    /// per passage: mean ln-perplexity difference
    #[serde(deserialize_with = "nan_list")]
    pub dlnppl: Vec<f64>,
    #[serde(deserialize_with = "nan_list")]
    pub kl: Vec<f64>,
    #[serde(deserialize_with = "nan_list")]
    pub top1_by_passage: Vec<f64>,
}
