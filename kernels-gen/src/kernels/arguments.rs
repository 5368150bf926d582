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
