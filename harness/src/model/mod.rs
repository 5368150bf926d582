//! A dense decoder (Qwen2, Qwen3, Llama) in f32 on the CPU: enough to measure what a coded cache does to a real model.
//! The attention is a trait object, so the same forward pass runs exactly or through any codec. `v4` is DeepSeek-V4's
//! architecture, which caches other things.

mod architecture;
mod config;
mod forward;
mod layer;
mod quantised;
mod rope;
pub mod v4;
mod weights;

pub use architecture::Architecture;
pub use config::Config;
pub use forward::{Lane, Logits, Model};
pub use rope::Rope;
pub use rope::speeds as rope_speeds;
pub use weights::{FileDigest, Weights, sha256};

use crate::error::Result;

/// What one attention call gets: the rows of the next tokens of one passage, in order.
pub struct Rows<'a> {
    pub layer: usize,
    /// position of the first of these tokens; the ones before it came in earlier calls for this layer
    pub start: usize,
    pub tokens: usize,
    /// [token, head, d], after the norm and RoPE
    pub q: &'a [f32],
    /// [token, kv head, d], after the norm and RoPE
    pub k: &'a [f32],
    /// [token, kv head, d]
    pub v: &'a [f32],
}

/// Causal attention over one passage; the query at position p reads positions 0..=p.
pub trait Attention {
    /// Returns [token, head, d].
    fn attend(&mut self, rows: &Rows) -> Result<Vec<f32>>;
}

/// Of config.json and of the files with weights.
fn digests(config: &std::path::Path, weights: &Weights) -> Result<Vec<FileDigest>> {
    let bytes = std::fs::read(config).map_err(crate::error::Error::reading(config))?;
    let mut digests = vec![FileDigest { file: "config.json".into(), sha256: sha256(&bytes) }];
    digests.extend(weights.digests.iter().cloned());
    Ok(digests)
}
