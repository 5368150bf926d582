//! The element-wise steps of attention over rows of integers, the same source for reference and kernel.

use kernel_dsl::device;
use kernel_dsl::math::{exp2_or_zero, fmin};

/// Positions whose sums are integers.
pub const LEAF: usize = 128;

/// 1.5 * 2^23: a sum with it rounds to an integer, ties to even, which then stands in the low bits.
const MAGIC: f32 = 12_582_912.0;

/// The power of two that brings the largest scale of a leaf's rows into [2^14, 2^15): no weight is above 1.
#[device]
pub fn up_of(top: f32) -> f32 {
    f32::from_bits(((268_i32 - (top.to_bits() >> 23) as i32).max(1_i32).min(253_i32) as u32) << 23)
}

/// One over a power of two.
#[device]
pub fn down_of(up: f32) -> f32 {
    f32::from_bits(0x7f00_0000_u32.wrapping_sub(up.to_bits()))
}

/// A weight times its row's scale as an integer, at most 2^15, in the two lowest bytes.
#[device]
pub fn rounded(p: f32, scale: f32) -> i32 {
    p.mul_add(scale, MAGIC).to_bits() as i32
}

/// A weight in units of 2^-21: a leaf's sum of them is an integer.
#[device]
pub fn fixed(p: f32) -> i32 {
    p.mul_add(2_097_152.0_f32, MAGIC).to_bits().wrapping_sub(MAGIC.to_bits()) as i32
}

/// One over the denominator, a sink included.
#[device]
pub fn inverse_of(top: f32, sum: f32, sink: f32) -> f32 {
    let sinks = exp2_or_zero(fmin(sink.mul_add(1.442_695_f32, -top), 126.0_f32));
    1.0_f32 / (sum + sinks)
}
