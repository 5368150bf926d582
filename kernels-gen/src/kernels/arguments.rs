//! What kernels take: arguments that belong together.

use kernel_dsl::prelude::*;

/// Keys, values or queries as a projection leaves them.
#[device]
pub struct Rows<T: Float> {
    /// `[tokens, heads, d]`, strided
    pub base: Global<T>,
    /// In elements.
    pub token_stride: i64,
    pub head_stride: i64,
}

/// Tokens that are stored, and where.
#[device]
pub struct Stored {
    /// `[tokens]`; below 0: padding
    pub slots: Global<i64>,
    /// `[pages, kv_heads, block]`
    #[out]
    pub cache: Global<u8>,
    /// Bad slot, bad page, bad length, where.
    #[out]
    pub status: Global<i32>,
    /// Tokens that the cache holds.
    pub slot_count: i64,
    pub tokens: i32,
    pub kv_heads: i32,
}

/// What was fitted to a layer, and the turns of its segments.
#[device]
pub struct Fitted {
    /// `[segments, 2, d / 2]`: cosines, sines
    pub turns: Global<f32>,
    /// As `preset::LayerMaps::packed` has them.
    pub maps: Global<i8>,
    pub scales: Global<f32>,
    pub segments: i32,
}

/// A cache that attention reads, and which of its pages sequences have.
#[device]
pub struct Cache<'a> {
    /// `[pages, kv_heads, block]`
    pub bytes: &'a Global<u8>,
    /// `[batch, table_stride]`
    pub table: &'a Global<i32>,
    /// `[batch]`
    pub lens: &'a Global<i32>,
    pub kv_heads: i32,
    pub pages: i32,
    pub table_stride: i32,
}

/// Query rows, and which of them a block has.
#[device]
pub struct Queries<'a, T: Float> {
    /// `[batch, tokens, heads, d]`, or records `[batch, kv_heads, blocks, segments, m.record]`
    pub rows: &'a Global<T>,
    pub scale: f32,
    /// Of the records.
    pub segments: i32,
    /// Query tokens a sequence. The block has those from `first` on, and is the `slot`-th of `blocks`.
    pub tokens: i32,
    pub first: i32,
    pub slot: i32,
    pub blocks: i32,
}

/// Which part of which sequence a block has.
#[device]
pub struct Share<'a> {
    pub head: i32,
    pub seq: i32,
    pub split: i32,
    /// What the upper half of its warps has where crews are halves of a block.
    pub other: i32,
    pub other_head: i32,
    pub other_split: i32,
    /// log2 of the leaves of a warp.
    pub unit: i32,
    /// log2 of the warps of a crew. Where crews are single warps of several, `short` has the sequence of each: below 0 none.
    pub log_crew: i32,
    pub short: &'a Shared<i32>,
}

/// What attention writes: outputs of rows that it has all of, parts of the others for the join kernel.
#[device]
pub struct Outputs<'a, T: Float> {
    /// `[batch, tokens, heads, d]`
    pub out: &'a mut Global<T>,
    /// `[batch, tokens, heads]`, natural logarithm
    pub lse: &'a mut Global<f32>,
    /// `[batch, kv_heads, blocks, splits, rows, d]`
    pub part: &'a mut Global<f32>,
    /// `[batch, kv_heads, blocks, splits, rows, 2]`: maximum, sum
    pub stat: &'a mut Global<f32>,
    /// Bad slot, bad page, bad length, where.
    pub status: &'a mut Global<i32>,
    /// What outputs of a calibrated codec are mapped back with.
    pub maps: &'a Global<i8>,
    pub scales: &'a Global<f32>,
    /// Most parts of a sequence.
    pub splits: i32,
}
