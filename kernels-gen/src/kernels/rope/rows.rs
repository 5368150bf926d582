//! Norm and RoPE alone: heads of a projection, turned, for an engine that stores them later.
//!
//! Cost: reads d elements a row twice, the second time from the cache, and a row of the table; writes d elements.

use super::super::arguments::Rows;
use super::super::store::StoreMeta;
use super::{Turns, turn_rows};
use kernel_dsl::prelude::*;

/// Grid: blocks of 32 tokens, heads.
#[kernel]
pub fn turn_heads<T: Float>(
    m: StoreMeta,
    x: &Rows<T>,
    turns: &Turns,
    weight: &Global<f32>, // [d]
    out: &mut Global<T>,  // [tokens, heads, d]
    tokens: i32,
    heads: i32,
) {
    after_previous();
    release_next();
    let mut sums = shared::<f32>(32 * 4);
    turn_rows::<T>(&m, x, out, weight, turns, &mut sums, block_id(1), heads, tokens);
}
