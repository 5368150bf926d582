//! Eight numbers below 5 in 19 bits (or 20), cut so that those of four codes side by side unpack byte by byte.
//!
//! Three numbers are one fraction of seven bits, `x / 125` rounded up to 128ths, two are one of five bits, `x / 25`. Five times
//! a fraction has the next number before its point. Of a seven-bit fraction only the five upper bits are
//! multiplied: `5 (4 u + v) = 4 (5 u + v) + v`, so v, the two lower bits, comes in again at every step and nothing
//! passes the end of a byte.

use kernel_dsl::device;
use kernel_dsl::math::{dot4, pick};

/// Fraction of the three numbers in the first bytes of a word, the first one first out; it begins at bit 16, where a product has the quotient
/// `(128 x + 124) / 125`, and below it is anything.
#[device]
fn three(h: u32) -> u32 {
    dot4(h, 0x0001_0519_u32) * 67_109_u32 + 65_200_u32
}

/// Likewise of the two numbers from byte `at` on, `at` even: `(32 x + 24) / 25`.
#[device]
fn two(h: u32, at: usize) -> u32 {
    dot4(h, 0x0105_u32 << (8 * at)) * 83_887_u32 + 64_200_u32
}

/// Five times a fraction: the next number stands in the upper three bits of each byte.
#[device]
fn next(x: u32, v: u32) -> u32 {
    (x & 0x1f1f_1f1f_u32).wrapping_mul(5_u32).wrapping_add(v)
}

/// 19 bits of the numbers in the bytes of two words: the upper five of the fractions of numbers 0 to 2 and 3 to 5 in two bytes, their other three bits each and the
/// last three bits for the rest and the fraction of numbers 6 and 7.
#[device]
pub fn pack19(h: [u32; 2]) -> u32 {
    let (a, b, c) = (three(h[0]), three(pick(h[0], h[1], 0x7543_u32)), two(h[1], 2));
    let first = (a >> 18) | ((c >> 11) & 0xe0_u32);
    let second = ((b >> 10) & 0x1f00_u32) | ((c >> 6) & 0x6000_u32) | ((b >> 1) & 0x8000_u32);
    first | second | (a & 0x3_0000_u32) | ((b << 1) & 0x4_0000_u32)
}

/// Numbers of four codes from their last bytes on, that of place i in the upper three bits of each byte of word i; below
/// them is anything.
#[device]
pub fn unpack19(w: [u32; 4]) -> [u32; 8] {
    let (a, b) = (w[2] & 0x0303_0303_u32, ((w[1] >> 7) & 0x0101_0101_u32) | ((w[2] >> 1) & 0x0202_0202_u32));
    let x = next(w[0], a);
    let y = next(x, a);
    let s = next(w[1], b);
    let t = next(s, b);
    let z = next(((w[0] >> 5) & 0x0707_0707_u32) | ((w[1] >> 2) & 0x1818_1818_u32), 0_u32);
    [x, y, next(y, a), s, t, next(t, b), z, next(z, 0_u32)]
}

/// 18 bits and two that are kept elsewhere: fractions of two numbers each.
#[device]
pub fn pack20(h: [u32; 2]) -> (u32, u32) {
    let (a, b, c, d) = (two(h[0], 0), two(h[0], 2), two(h[1], 0), two(h[1], 2));
    let (first, second) = ((a >> 16) | ((c >> 11) & 0xe0_u32), ((b >> 8) & 0x1f00_u32) | ((d >> 3) & 0xe000_u32));
    (first | second | ((c >> 3) & 0x3_0000_u32), d >> 19)
}

/// As [`unpack19`]; `kept` has its two bits in bits 3 and 4 of each byte.
#[device]
pub fn unpack20(w: [u32; 4], kept: u32) -> [u32; 8] {
    let x = next(w[0], 0_u32);
    let y = next(w[1], 0_u32);
    let z = next(((w[0] >> 5) & 0x0707_0707_u32) | ((w[2] << 3) & 0x1818_1818_u32), 0_u32);
    let t = next(((w[1] >> 5) & 0x0707_0707_u32) | kept, 0_u32);
    [x, next(x, 0_u32), y, next(y, 0_u32), z, next(z, 0_u32), t, next(t, 0_u32)]
}
