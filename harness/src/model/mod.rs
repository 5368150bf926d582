//! A small Qwen3 decoder in f32 on the CPU: enough to measure what a coded cache does to a real model.
//! The attention is a trait object, so the same forward pass runs exactly or through any codec.

mod config;
mod forward;
mod rope;
mod weights;

pub use config::Config;
pub use forward::{Logits, Model};
pub use weights::{FileDigest, Weights, sha256};

use crate::error::Result;

/// What one attention call gets: the rows of all tokens of one passage, positions 0.. in order.
pub struct Rows<'a> {
    pub layer: usize,
    pub tokens: usize,
    /// [token, head, d], after q_norm and RoPE
    pub q: &'a [f32],
    /// [token, kv head, d], after k_norm and RoPE
    pub k: &'a [f32],
    /// [token, kv head, d]
    pub v: &'a [f32],
}

/// Causal attention over one passage; the query at position p reads positions 0..=p.
pub trait Attention {
    /// Returns [token, head, d].
    fn attend(&mut self, rows: &Rows) -> Result<Vec<f32>>;
}
