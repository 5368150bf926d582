//! What attention of several query tokens a sequence adds to that of one: what each row sees, and weights whose
//! two bytes have outputs of their own without being columns side by side.

use super::softmax::fused;
use crate::codec::Codec;
use kernel_dsl::prelude::*;

/// Tokens that query token `token` of `queries` sees of a sequence of `len`: the last one all, the one before one less.
#[device]
pub fn sees(len: i32, queries: i32, token: i32) -> i32 {
    (len - queries + token.min(queries - 1_i32) + 1_i32).max(0_i32)
}

/// Row of q and of the output, `[tokens, kv_heads, group]`, of column `column` of a block that begins with `token`'s.
#[device]
pub fn row_of(token: i32, kv_heads: i32, head: i32, group: usize, column: i32) -> i32 {
    (token * kv_heads + head) * group as i32 + column % group as i32
}

/// Segments of a warp: `run`, or where that is 0 an equal share of those of `n` tokens among 2^log_splits blocks' warps.
#[device]
pub fn share(n: i32, run: i32, log_splits: i32, segment: usize, warps: usize) -> i32 {
    let all = (n + (segment as i32 - 1_i32)) / segment as i32;
    let of_block = (all + ((1_i32 << (log_splits & 31_i32)) - 1_i32)) >> (log_splits & 31_i32);
    if run > 0_i32 { run } else { (of_block + (warps as i32 - 1_i32)) / warps as i32 }
}

/// Segments of a warp that takes `run` of a sequence of `segments`: as much less as this one of `n` tokens is shorter, so that
/// as many warps share it. Rounded up by more than the quotient can be off.
#[device]
pub fn share_of(n: i32, run: i32, segments: i32, segment: usize) -> i32 {
    let all = (n + (segment as i32 - 1_i32)) / segment as i32;
    let part = all as f32 * run as f32 / segments as f32;
    (part.mul_add(9.536743e-7_f32, part).ceil() as i32).min(run)
}

/// How far the tokens of tile `t` lie behind what each column sees, from the second half of `seen`: 0 and more are hidden.
#[device]
pub fn hidden(seen: &Shared<i32>, t: i32, cols: usize, parts: usize) -> Tile<i32> {
    let ends = seen.cols(cols, 1, cols);
    if parts == 2 { (pair_ids() + t * 32_i32) - &ends } else { (row_ids(32) + t * 32_i32) - &ends }
}

/// As `weighed`, the sums of the weights' high and low bytes apart: each as with two parts.
#[device]
pub fn weighed_apart(c: &dyn Codec, tokens: &Page, w: &(Tile<u8>, Tile<u8>, Tile<i32>, Tile<f32>), totals: &(Tile<i32>, Tile<i32>), high: &Tile<f32>, low: &Tile<f32>, at: usize, quads: bool, d: usize) -> (Tile<f32>, Tile<f32>) {
    let zero = -((c.spec().zero2 + 1_i32) / 2);
    let v: Tile<u8> = if quads { tokens.quads(at, c.spec().bits, d, 8, |x| c.decode4(x)) } else { tokens.values(at, c.spec().bits, d, 8, |x| c.decode(x)) };
    let of_high = mma(&v, &w.0, &(&totals.0 * zero)).cast::<f32>().map3(&w.3, high, fused);
    let of_low = mma(&v, &w.1, &(&totals.1 * zero)).cast::<f32>().map3(&w.3, low, fused);
    (of_high, of_low)
}

/// Sums of the two bytes, joined.
#[device]
pub fn joined(high: &Tile<f32>, low: &Tile<f32>) -> Tile<f32> {
    high.mul_add(256.0_f32, low)
}
