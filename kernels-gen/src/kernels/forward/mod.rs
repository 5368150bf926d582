//! A dense decoder's forward pass beside its matrix products: norms, rotary turns, the gate, exact attention, and
//! the statistics of logits and rows. All in f32 with sums of a stated order, so that two runs give the same bits.

pub mod attention;
pub mod distances;
pub mod gate;
pub mod heads;
pub mod norm;
pub mod rows;
pub mod scores;

use attention::AttentionMeta;
use distances::{DistancesMeta, SameMeta};
use gate::GateMeta;
use heads::HeadsMeta;
use kernel_dsl::prelude::*;
use kernel_dsl::{Report, Source};
use norm::NormMeta;
use rows::RowsMeta;
use scores::ScoresMeta;

/// Warps of a block where each warp has a row of its own.
pub const WARPS: usize = 4;

/// Threads of a block where threads share the work.
pub const THREADS: usize = 256;

#[device]
pub(crate) fn exponential(x: f32) -> f32 {
    exp2_or_zero(x * 1.442695_f32)
}

/// RMSNorm of rows of `width` numbers, a multiple of 32. Grid: [rows / WARPS, 1, 1].
pub fn norm(width: usize) -> Result<Source, Report> {
    Source::of(&norm::rms_norm::build(&NormMeta::of(width))?)
}

/// The projections' output cut into heads, normalised and turned. Grid: [tokens, 1, 1].
pub fn heads(m: &HeadsMeta) -> Result<Source, Report> {
    Source::of(&heads::split_heads::build(m)?)
}

/// silu(gate) * up. Grid: [rows, width / THREADS, 1].
pub fn gate(width: usize) -> Result<Source, Report> {
    Source::of(&gate::gate::build(&GateMeta { width })?)
}

/// A vector added to each row. Grid: [rows, width / THREADS, 1].
pub fn shift(width: usize) -> Result<Source, Report> {
    Source::of(&gate::shift::build(&GateMeta { width })?)
}

/// Exact attention. Grid: [`AttentionMeta::blocks`], kv heads, 1].
pub fn attention(m: &AttentionMeta) -> Result<Source, Report> {
    Source::of(&attention::attention::build(m)?)
}

/// Rows to places of their own. Grid: [rows, 1, 1].
pub fn scatter(width: usize) -> Result<Source, Report> {
    Source::of(&rows::scatter::build(&RowsMeta { width })?)
}

/// Rows from places of their own. Grid: [rows, 1, 1].
pub fn gather(width: usize) -> Result<Source, Report> {
    Source::of(&rows::gather::build(&RowsMeta { width })?)
}

/// Rows with their coordinates in another order. Grid: [rows, 1, 1].
pub fn reorder(width: usize) -> Result<Source, Report> {
    Source::of(&rows::reorder::build(&RowsMeta { width })?)
}

/// Two models' logits compared. Grid: [positions, 1, 1].
pub fn scores() -> Result<Source, Report> {
    Source::of(&scores::scores::build(&ScoresMeta)?)
}

/// How far rows are from others. Grid: [rows / `distances::ROWS`, 1, 1].
pub fn distances(d: usize) -> Result<Source, Report> {
    Source::of(&distances::distances::build(&DistancesMeta { d })?)
}

/// Equal bytes counted. Grid: [bytes / `distances::BYTES`, 1, 1].
pub fn same_bytes() -> Result<Source, Report> {
    Source::of(&distances::same_bytes::build(&SameMeta)?)
}
