//! Scalar functions of two numbers in each half of a word: bf16, or unsigned integers. Part of [`crate::math`].

use crate::build::{B, V};
use crate::ir::BinOp;
use crate::math::{greater, lesser, recorded};

/// Products of the two bf16 of each word, each rounded to nearest even. No NaN comes out of finite factors.
pub fn mul_bf16x2(a: u32, b: u32) -> u32 {
    // A product of two bf16 is an f32 exactly, but for those below its normal range.
    let half = |by: u32| {
        let of = |w: u32| f64::from(f32::from_bits(w >> by << 16));
        bf16_of(of(a) * of(b)) << by
    };
    half(0) | half(16)
}

/// bf16 bits of a double that has few enough bits for its own rounding to be none.
fn bf16_of(x: f64) -> u32 {
    u32::from(crate::dtype::bf16::from_f64(x).to_bits())
}

recorded!(mul_bf16x2, MulBf16x2);

/// The squares of the two bf16 of `w` on top of the two of `sum`, each sum rounded once to nearest even.
#[inline]
pub fn add_squares_bf16x2(sum: u32, w: u32) -> u32 {
    let half = |by: u32| {
        let of = |w: u32| f64::from(f32::from_bits(w >> by << 16));
        once(of(w) * of(w), of(sum)) << by
    };
    half(0) | half(16)
}

recorded!(add_squares_bf16x2, AddSquaresBf16x2);

/// bf16 bits of a sum of two doubles.
fn once(a: f64, b: f64) -> u32 {
    let sum = a + b;
    let rest = sum - b;
    // What the double has lost, and an odd last bit for it: then nothing that rounds on can take the sum for a tie.
    let lost = (a - rest) + (b - (sum - rest));
    let mut bits = sum.to_bits();
    if lost != 0.0 && lost.is_finite() {
        bits = (bits - u64::from((lost < 0.0) != (sum < 0.0))) | 1;
    }
    if bits as u32 != 0 {
        bits |= 1 << 32;
    }
    if sum.is_nan() { 0x7fff } else { bf16_of(f64::from_bits(bits)) }
}

/// [`greater`] of each two bf16 of two words without NaN.
#[inline]
pub fn greater_bf16x2(a: u32, b: u32) -> u32 {
    let half = |by: u32| {
        let of = |w: u32| f32::from_bits(w >> by << 16);
        greater(of(a), of(b)).to_bits() >> 16 << by
    };
    half(0) | half(16)
}

recorded!(greater_bf16x2, GreaterBf16x2);

/// [`lesser`] likewise.
#[inline]
pub fn lesser_bf16x2(a: u32, b: u32) -> u32 {
    let half = |by: u32| {
        let of = |w: u32| f32::from_bits(w >> by << 16);
        lesser(of(a), of(b)).to_bits() >> 16 << by
    };
    half(0) | half(16)
}

recorded!(lesser_bf16x2, LesserBf16x2);

/// The smaller of each half of two words.
#[inline]
pub fn min_u16x2(a: u32, b: u32) -> u32 {
    (a & 0xffff).min(b & 0xffff) | (a >> 16).min(b >> 16) << 16
}

recorded!(min_u16x2, MinU16x2);

/// The larger of each half of two words.
#[inline]
pub fn max_u16x2(a: u32, b: u32) -> u32 {
    (a & 0xffff).max(b & 0xffff) | (a >> 16).max(b >> 16) << 16
}

recorded!(max_u16x2, MaxU16x2);
