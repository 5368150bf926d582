//! The element-wise steps of online softmax in log2 units. The running maximum is an integer, so that
//! every rescale is an exact power of two.

use super::decode_attention::DecodeMeta;
use kernel_dsl::math::{min_u16x2, opaque};
use kernel_dsl::prelude::*;

/// Positions at or past the end weigh nothing.
#[device]
pub fn visible(x: f32, past: i32) -> f32 {
    if past < 0_i32 { x } else { f32::NEG_INFINITY }
}

/// The same number, which the compiler takes for another one.
#[device]
pub fn apart_from(x: f32) -> f32 {
    f32::from_bits(opaque(x.to_bits()))
}

#[device]
pub fn above(x: f32, top: f32) -> bool {
    x > top
}

/// The next maximum: an integer with room for 16 times more, so that it rarely moves.
#[device]
pub fn raised(top: f32, peak: f32) -> f32 {
    if peak > top { fmax(top, peak.ceil() + 4.0_f32) } else { top }
}

/// 2^(x - top), 0 for a masked position or an empty maximum.
#[device]
pub fn weight(x: f32, top: f32) -> f32 {
    exp2_or_little(x - top)
}

/// Weights under units that stay are 2^26 times what they are. A lane adds up those of its tokens of a leaf in f32, two by two and tile by
/// tile; at the leaf's end their sum becomes an integer, 2^23 for a weight of 1: all together are at most 2^31.
#[device]
pub fn counted(sum: f32) -> u32 {
    (sum * 0.125_f32) as u32
}

/// What each lane's two neighbouring tokens of a tile come to.
#[device]
pub fn lane_sums(m: &DecodeMeta, p: &Tile<f32>) -> Tile<f32> {
    if m.apart { p.half_sums() } else { p.lane_sums() }
}

/// What sums under a maximum are worth under the next one.
#[device]
pub fn fade_of(top: f32, next: f32) -> f32 {
    exp2_or_zero(top - next)
}

/// What the smaller of two maxima is worth under the larger one. Both are whole numbers, or nothing: so it is a power of two, without a
/// polynomial.
#[device]
pub fn fading(a: f32, b: f32) -> f32 {
    let by = (a - b).abs();
    // The lowest bits of the difference are the exponent.
    if by <= 126.0_f32 { f32::from_bits(((12582912.0_f32 - by).to_bits() << 23).wrapping_add(0x3f80_0000_u32)) } else { 0.0_f32 }
}

/// What the left part of two neighbours with these maxima is worth.
#[device]
pub fn left_worth(a: f32, b: f32) -> f32 {
    if a < b { fading(a, b) } else { 1.0_f32 }
}

/// What the right part is worth.
#[device]
pub fn right_worth(a: f32, b: f32) -> f32 {
    if a < b { 1.0_f32 } else { fading(a, b) }
}

/// Scales at or past the end are 0, whatever their slots hold.
#[device]
pub fn kept(s: f32, past: i32) -> f32 {
    if past < 0_i32 { s } else { 0.0_f32 }
}

/// Two stored scales made safe, each the only side value of its vector: what is no finite number from 0 up becomes the largest.
#[device]
pub fn sound(sides: u32) -> u32 {
    min_u16x2(sides, 0x7bff_7bff_u32)
}

/// A scale made safe: a slot that nobody wrote may hold anything.
#[device]
pub fn bounded(scale: f32) -> f32 {
    fmin(fmax(0.0_f32, scale), 1.0e9_f32)
}

/// The weights of four tokens as an integer in units of 2^-29.
#[device]
pub fn fixed(p: f32) -> i64 {
    ((p * 536870912.0_f32) as u32) as i64
}

/// The sum of weights under the next maximum.
#[device]
pub fn shifted(sum: i64, top: f32, next: f32) -> i64 {
    let by = (next - top) as i32;
    sum >> (by.min(63_i32) as i64 & 63_i64)
}

/// Keeps row 0: a total goes back into one lane's partial sum.
#[device]
fn first_row(x: i64, row: i32) -> i64 {
    if row == 0_i32 { x } else { 0_i64 }
}

/// Sums of lanes under the next maximum.
#[device]
pub fn faded(m: &DecodeMeta, sums: &Tile<i64>, top: &Tile<f32>, next: &Tile<f32>) -> Tile<i64> {
    let total = sums.sum_rows().map3(top, next, shifted);
    (acc(8, m.cols, 0_i64) + &total).map2(&row_ids(8), first_row)
}

/// Biased exponent of the power of two that brings the f32 of bits `peak` into [2^14, 2^15).
#[device]
fn lift(peak: i32) -> i32 {
    (268_i32 - ((peak as u32) >> 23) as i32).max(1_i32).min(253_i32)
}

#[device]
pub fn bits_of(x: f32) -> i32 {
    x.to_bits() as i32
}

#[device]
pub fn larger(a: i32, b: i32) -> i32 {
    a.max(b)
}

#[device]
pub fn up(peak: i32) -> f32 {
    f32::from_bits((lift(peak) << 23) as u32)
}

#[device]
pub fn down(peak: i32) -> f32 {
    f32::from_bits(((254_i32 - lift(peak)) << 23) as u32)
}

#[device]
pub fn fused(a: f32, b: f32, c: f32) -> f32 {
    a.mul_add(b, c)
}
