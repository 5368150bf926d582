//! Eight numbers below 11 in 28 bits, unpacked for four codes side by side.
//!
//! Two numbers are one fraction of seven bits, `x / 121` rounded up to 128ths. Eleven times a fraction has the next number
//! before its point: with a fraction in the lower byte of a half word that is the upper byte.

use kernel_dsl::device;
use kernel_dsl::math::{dot4, pick};

/// Fraction of the two numbers from byte `at` of a word on, the first one first out; it begins at bit 16, where a product has the quotient
/// `(128 x + 120) / 121`, and below it is anything.
#[device]
fn two(h: u32, at: usize) -> u32 {
    dot4(h, 0x010b_u32 << (8 * at)) * 69_328_u32 + 65_200_u32
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
    let first = ((a >> 15) & 0xfe_u32) | ((d >> 16) & 1_u32);
    let second = ((b >> 7) & 0xfe00_u32) | ((d >> 9) & 0x100_u32);
    let third = ((c << 1) & 0xfe_0000_u32) | ((d >> 2) & 0x1_0000_u32);
    first | second | third | ((d << 5) & 0xf00_0000_u32)
}

/// Numbers of four codes from their last bytes on, a byte each; `top` is the fourth fraction's upper four bits, in place.
#[device]
pub fn unpack28(w: [u32; 4], top: u32) -> [u32; 8] {
    let ones = 0x0101_0101_u32;
    let d = (((w[0] & ones) << 1) | ((w[1] & ones) << 2)) | (((w[2] & ones) << 3) | top);
    let (a, b, c, e) = (numbers(w[0]), numbers(w[1]), numbers(w[2]), numbers(d));
    [a.0, a.1, b.0, b.1, c.0, c.1, e.0, e.1]
}
