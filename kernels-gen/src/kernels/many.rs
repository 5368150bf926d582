//! What attention of several query tokens a sequence adds to that of one: what each row sees, and weights whose
//! two bytes have outputs of their own without being columns side by side.

use super::decode_attention::DecodeMeta;
use super::softmax::fused;
use super::values::less_zero;
use crate::codec::Codec;
use kernel_dsl::prelude::*;

/// Tokens that query token `token` of `queries` sees of a sequence of `len`: the last one all, the one before one less.
#[device]
pub fn sees(len: i32, queries: i32, token: i32) -> i32 {
    (len - queries + token.min(queries - 1_i32) + 1_i32).max(0_i32)
}

/// Row of q and of the output, `[tokens, kv_heads, group]`, of column `column` of a block that begins with token `first`
/// of a sequence's `queries`; past the last token that one's.
#[device]
pub fn row_of(m: &DecodeMeta, seq: i32, kv_heads: i32, head: i32, queries: i32, first: i32, column: i32) -> i32 {
    let token = if m.many { seq * queries + (first + column / m.group as i32).min(queries - 1_i32) } else { seq };
    (token * kv_heads + head) * m.group as i32 + column % m.group as i32
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
    let v: Tile<u8> = if quads { tokens.quads(at, c.spec().bits, d, 8, |x| c.decode4(x)) } else { tokens.values(at, c.spec().bits, d, 8, |x| c.decode(x)) };
    let of_high = mma(&v, &w.0, &less_zero(c, &totals.0, d)).cast::<f32>().map3(&w.3, high, fused);
    let of_low = mma(&v, &w.1, &less_zero(c, &totals.1, d)).cast::<f32>().map3(&w.3, low, fused);
    (of_high, of_low)
}

/// Sums of the two bytes, joined.
#[device]
pub fn joined(high: &Tile<f32>, low: &Tile<f32>) -> Tile<f32> {
    high.mul_add(256.0_f32, low)
}
