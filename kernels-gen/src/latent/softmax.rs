//! The element-wise steps of attention over rows of integers, the same source for reference and kernel.

use kernel_dsl::device;
use kernel_dsl::math::{exp2_or_zero, fmin};

/// Positions whose sums are integers.
pub const LEAF: usize = 128;

/// The power of two that brings the largest scale of a leaf's rows into [2^13, 2^14): no weight is above 1.
#[device]
pub fn up_of(top: f32) -> f32 {
    f32::from_bits(((267_i32 - (top.to_bits() >> 23) as i32).max(1_i32).min(253_i32) as u32) << 23)
}

/// One over a power of two.
#[device]
pub fn down_of(up: f32) -> f32 {
    f32::from_bits(0x7f00_0000_u32.wrapping_sub(up.to_bits()))
}

/// A weight's integer, of 14 bits.
#[device]
pub fn rounded(x: f32) -> i32 {
    fmin(x.round_ties_even(), 16383.0_f32) as i32
}

/// A weight in units of 2^-24: a leaf's sum of them is an integer.
#[device]
pub fn fixed(p: f32) -> i32 {
    (p * 16_777_216.0_f32) as i32
}

/// One over the denominator, a sink included.
#[device]
pub fn inverse_of(top: f32, sum: f32, sink: f32) -> f32 {
    let sinks = exp2_or_zero(fmin(sink.mul_add(1.442_695_f32, -top), 126.0_f32));
    1.0_f32 / (sum + sinks)
}
