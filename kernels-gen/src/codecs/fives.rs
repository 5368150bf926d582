//! Eight numbers below 5 in 19 bits (or 20), cut so that those of four codes side by side unpack byte by byte.
//!
//! Three numbers are one fraction of seven bits, `x / 125` rounded up to 128ths, two are one of five bits, `x / 25`. Five times
//! a fraction has the next number before its point. Of a seven-bit fraction only the five upper bits are
//! multiplied: `5 (4 u + v) = 4 (5 u + v) + v`, so v, the two lower bits, comes in again at every step and nothing
//! passes the end of a byte.

use kernel_dsl::device;
use kernel_dsl::math::{add_dot4, dot4, pick};

/// Fraction of three numbers, 25 times the first one and so on: from bit `at` on the quotient `(128 x + 124) / 125`, below it is anything, and so is above it. `x` is
/// shifted left by `up` bits, `at` is 16 more at least.
#[device]
fn three(x: u32, at: usize, up: usize) -> u32 {
    x.wrapping_mul(67_109_u32 << (at - 16 - up)).wrapping_add(65_200_u32 << (at - 16))
}

/// Likewise of two numbers: `(32 x + 24) / 25`.
#[device]
fn two(x: u32, at: usize, up: usize) -> u32 {
    x.wrapping_mul(83_887_u32 << (at - 16 - up)).wrapping_add(64_200_u32 << (at - 16))
}

/// The uppermost bytes of three words, the last one's below 128, as one word.
#[device]
fn uppermost(a: u32, b: u32, c: u32) -> u32 {
    pick(pick(a, b, 0x0073_u32), c, 0xf710_u32)
}

/// Five times a fraction: the next number stands in the upper three bits of each byte.
#[device]
fn next(x: u32, v: u32) -> u32 {
    (x & 0x1f1f_1f1f_u32).wrapping_mul(5_u32).wrapping_add(v)
}

/// 19 bits of the numbers in the bytes of two words, `up` bits from their lowest, up to 4: the upper five of the fractions of numbers 0 to 2 and 3 to 5 in two bytes,
/// their other three bits each and the last three bits for the rest and the fraction of numbers 6 and 7.
#[device]
pub fn pack19(h: [u32; 2], up: usize) -> u32 {
    let (x, y, z) = (dot4(h[0], 0x0001_0519_u32), add_dot4(dot4(h[0], 0x1900_0000_u32), h[1], 0x0105_u32), dot4(h[1], 0x0105_0000_u32));
    // A product anew for each place, as the pipe that shifts has enough to do.
    let first = (three(x, 22, up) & 0x1f00_0000_u32) | (two(z, 29, up) & 0xe000_0000_u32);
    let second = (three(y, 22, up) & 0x1f00_0000_u32) | (two(z, 26, up) & 0x6000_0000_u32) | (three(y, 31, up) & 0x8000_0000_u32);
    uppermost(first, second, (three(x, 24, up) & 0x0300_0000_u32) | (three(y, 25, up) & 0x0400_0000_u32))
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

/// 18 bits, and two that are kept elsewhere, in bit 24 of two words: fractions of two numbers each. `up`: see [`pack19`].
#[device]
pub fn pack20(h: [u32; 2], up: usize) -> (u32, [u32; 2]) {
    let (a, b, c, d) = (dot4(h[0], 0x0105_u32), dot4(h[0], 0x0105_0000_u32), dot4(h[1], 0x0105_u32), dot4(h[1], 0x0105_0000_u32));
    let first = (two(a, 24, up) & 0x1f00_0000_u32) | (two(c, 29, up) & 0xe000_0000_u32);
    let second = (two(b, 24, up) & 0x1f00_0000_u32) | (two(d, 29, up) & 0xe000_0000_u32);
    (uppermost(first, second, two(c, 21, up)), [two(d, 21, up), two(d, 20, up)])
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
