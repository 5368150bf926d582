//! Eight numbers below 11 in 28 bits, unpacked for four codes side by side.
//!
//! Two numbers are one fraction of seven bits, `x / 121` rounded up to 128ths. Eleven times a fraction has the next number
//! before its point: with a fraction in the lower byte of a half word that is the upper byte.

use kernel_dsl::device;
use kernel_dsl::math::{dot4, pick};

/// Twice the fraction of the two numbers from byte `at` of a word on, the first one first out.
#[device]
fn two(h: u32, at: usize) -> u32 {
    (dot4(h, 0x010b_u32 << (8 * at)) * 128_u32 + 120_u32) / 121_u32 * 2_u32
}

/// The lower bytes of half words, times eleven.
#[device]
fn next(x: u32) -> u32 {
    (x & 0xff_00ff_u32).wrapping_mul(11_u32)
}

/// Two numbers of four codes out of their doubled fractions.
#[device]
fn numbers(w: u32) -> (u32, u32) {
    let (even, odd) = (next(w & 0xfefe_fefe_u32), next((w >> 8) & 0xfe_fefe_u32));
    (pick(even, odd, 0x7351_u32), pick(next(even), next(odd), 0x7351_u32))
}

/// 28 bits of the numbers in the bytes of two words: three fractions in the upper seven bits of a byte each; the fourth has the lowest bits of these, then the
/// last four.
#[device]
pub fn pack28(h: [u32; 2]) -> u32 {
    let (a, b, c, d) = (two(h[0], 0), two(h[0], 2), two(h[1], 0), two(h[1], 2));
    let (first, second, third) = (a | ((d >> 1) & 1_u32), b | ((d >> 2) & 1_u32), c | ((d >> 3) & 1_u32));
    first | (second << 8) | (third << 16) | ((d >> 4) << 24)
}

/// Numbers of four codes from their last bytes on, a byte each; `top` is the fourth fraction's upper four bits, in place.
#[device]
pub fn unpack28(w: [u32; 4], top: u32) -> [u32; 8] {
    let ones = 0x0101_0101_u32;
    let d = (((w[0] & ones) << 1) | ((w[1] & ones) << 2)) | (((w[2] & ones) << 3) | top);
    let (a, b, c, e) = (numbers(w[0]), numbers(w[1]), numbers(w[2]), numbers(d));
    [a.0, a.1, b.0, b.1, c.0, c.1, e.0, e.1]
}
