//! Values of a tile, weighted: softmax weights become integers, and sums of them with decoded bytes are exact.

use super::decode_attention::DecodeMeta;
use super::keys::high_bytes;
use super::softmax::*;
use crate::codec::Codec;
use kernel_dsl::prelude::*;

/// Weights as 15-bit integers under the tile's own power of two, so that a tile of small weights loses nothing
/// to a large one elsewhere: their high bytes, their low bytes, their sums and what one is worth.
#[device]
pub fn weights(p: Tile<f32>) -> (Tile<u8>, Tile<u8>, Tile<i32>, Tile<f32>) {
    // Weights are not negative: their bits order as integers.
    let peak = p.map(bits_of).max_rows();
    let (w_lo, w_hi) = p.map2(&peak.map(up), rounded).split_bytes();
    let total = w_hi.sum_k() * 256_i32 + w_lo.sum_k();
    (w_hi, w_lo, total, peak.map(down))
}

/// The integer nearest to `p * up`, below 2^16, in the lower half; above it the bits of 1.5 * 2^23.
#[device]
pub fn rounded(p: f32, up: f32) -> i32 {
    p.mul_add(up, 12582912.0_f32).to_bits() as i32
}

/// A band of a tile's values as left operand.
#[device]
pub fn values_of(m: &DecodeMeta, c: &dyn Codec, tokens: &Page, at: i32, d: usize) -> Tile<u8> {
    let high = raises(m, c, d);
    if m.quads { tokens.quads(at, c.spec().bits, d, 8, |x| if high { c.raised4(x) } else { c.decode4(x) }) } else { tokens.values(at, c.spec().bits, d, 8, |x| c.decode(x)) }
}

/// A band's output [d, cols] and a tile's weighted values.
#[device]
pub fn weighed(m: &DecodeMeta, c: &dyn Codec, tokens: &Page, w: &(Tile<u8>, Tile<u8>, Tile<i32>, Tile<f32>), out: &Tile<f32>, at: i32, d: usize) -> Tile<f32> {
    let base = less_zero(c, &w.2, d);
    let v = values_of(m, c, tokens, at, d);
    let start = if raises(m, c, d) { &base * &raise_of(c, d) } else { base.clone() };
    let o = if c.spec().wide_lanes() {
        let top: Tile<u8> = tokens.values(at, c.spec().bits, d, 8, |x| high_bytes(c.decode(x)));
        let hi = mma(&v, &w.0, 0_i32) + mma(&top, &w.0, 0_i32) * 256_i32;
        hi * 256_i32 + (mma(&v, &w.1, &base) + mma(&top, &w.1, 0_i32) * 256_i32)
    } else {
        mma(&v, &w.0, 0_i32) * 256_i32 + mma(&v, &w.1, &start)
    };
    o.cast::<f32>().map3(&w.3, out, fused)
}

/// What the dims of a lane's rows are worth where they are decoded at different heights.
#[device]
pub fn raise_of(c: &dyn Codec, d: usize) -> Tile<i32> {
    raise(d, c.spec().raised)
}

/// What sums of weights and lanes start from, so that zero, or the lane above it, weighs nothing.
#[device]
pub fn less_zero(c: &dyn Codec, total: &Tile<i32>, d: usize) -> Tile<i32> {
    if c.spec().mixed { &(total * -1_i32) * &raise(d, c.spec().halves) } else { total * -((c.spec().zero2 + 1_i32) / 2) }
}

/// Whether values are decoded with their dims at different heights.
#[device]
pub fn raises(m: &DecodeMeta, c: &dyn Codec, d: usize) -> bool {
    m.quads & (d >= 64) & (c.spec().raised[7] > 0)
}

/// Of a power of two: a division of constants would stay one.
#[device]
pub fn inverse(x: f32) -> f32 {
    f32::from_bits(0x7f00_0000_u32 - x.to_bits())
}

/// Largest score of a column, both halves of the tokens.
#[device]
pub fn peaks(x: &Tile<f32>, parts: usize) -> Tile<f32> {
    let peak = x.max_rows();
    if parts == 2 { peak.map2(&peak.swap_halves(), fmax).left_halves() } else { peak }
}

/// Sum of weights over both halves of the tokens.
#[device]
pub fn total_of(sum: &Tile<i64>, parts: usize) -> Tile<i64> {
    let total = sum.sum_rows();
    if parts == 2 { &total + &total.swap_halves() } else { total }
}

/// Likewise of what lanes have [`counted`].
#[device]
pub fn count_of(sum: &Tile<u32>, parts: usize) -> Tile<u32> {
    let total = sum.sum_rows();
    if parts == 2 { &total + &total.swap_halves() } else { total }
}
