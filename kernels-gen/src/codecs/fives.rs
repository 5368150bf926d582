//! Eight digits below 80, each a nibble and an upper part below 5, in 51 bits (or 50), cut so that four codes side by side
//! unpack byte by byte.
//!
//! Upper parts of three dims are one fraction of seven bits, `x / 125` rounded up to 128ths, those of two one of five bits.
//! Five times a fraction has the next upper part before its point. Of a seven-bit fraction only the five upper bits are
//! multiplied: `5 (4 u + v) = 4 (5 u + v) + v`, so v, the two lower bits, comes in again at every step and nothing
//! passes the end of a byte.
//! Bytes 0 to 3: nibbles, dims i and i + 4. Bytes 4 and 5: five upper bits each of two fractions; their other six bits
//! and the tail hold the rest.

use kernel_dsl::device;

/// The lower five bits of each byte.
const REST: u32 = 0x1f1f_1f1f;

/// Fraction of three upper parts, the first one first out.
#[device]
fn three(a: u32, b: u32, c: u32) -> u32 {
    (((a * 5_u32 + b) * 5_u32 + c) * 128_u32 + 124_u32) / 125_u32
}

/// Of two.
#[device]
fn two(a: u32, b: u32) -> u32 {
    ((a * 5_u32 + b) * 32_u32 + 24_u32) / 25_u32
}

/// Five times a fraction: the next upper part stands in the upper three bits of each byte.
#[device]
fn next(x: u32, v: u32) -> u32 {
    (x & REST).wrapping_mul(5_u32).wrapping_add(v)
}

/// Two bits of each byte from bit `at` on, at bit `to`.
#[device]
fn pair(w: u32, at: usize, to: usize) -> u32 {
    (if to > at { w << (to - at) } else { w >> (at - to) }) & (0x0303_0303_u32 << to)
}

/// Nibbles of eight digits, dims i and i + 4 in byte i.
#[device]
fn nibbles(d: [u32; 8]) -> u32 {
    let mut w = 0_u32;
    for i in 0..8 {
        w = w | ((d[i] & 15_u32) << (8 * (i % 4) + 4 * (i / 4)));
    }
    w
}

/// 51 bits: fractions of dims 0 to 2, 3 to 5, 6 and 7.
#[device]
pub fn pack51(d: [u32; 8]) -> [u32; 4] {
    let mut h = [0_u32; 8];
    for i in 0..8 {
        h[i] = d[i] >> 4;
    }
    let (a, b, c) = (three(h[0], h[1], h[2]), three(h[3], h[4], h[5]), two(h[6], h[7]));
    let first = (a >> 2) | ((c & 7_u32) << 5);
    let second = (b >> 2) | ((c >> 3) << 5) | ((b & 1_u32) << 7);
    let tail = (a & 3_u32) | (((b >> 1) & 1_u32) << 2);
    [nibbles(d), first | (second << 8) | (tail << 16), 0_u32, 0_u32]
}

/// Upper parts of four codes, those of dim i in the upper three bits of each byte of word i; below them is anything.
#[device]
pub fn upper51(w: [u32; 8]) -> [u32; 8] {
    let (a, b) = (w[6] & 0x0303_0303_u32, ((w[5] >> 7) & 0x0101_0101_u32) | ((w[6] >> 1) & 0x0202_0202_u32));
    let c = ((w[4] >> 5) & 0x0707_0707_u32) | pair(w[5], 5, 3);
    let x = next(w[4], a);
    let y = next(x, a);
    let s = next(w[5], b);
    let t = next(s, b);
    let z = next(c, 0_u32);
    [x, y, next(y, a), s, t, next(t, b), z, next(z, 0_u32)]
}

/// 50 bits: fractions of two dims each; the lowest bits of dims 3 and 7 are implied, and their places taken.
#[device]
pub fn pack50(d: [u32; 8]) -> [u32; 4] {
    let mut f = [0_u32; 4];
    for i in 0..4 {
        f[i] = two(d[2 * i] >> 4, d[2 * i + 1] >> 4);
    }
    let low = (nibbles(d) & 0xeeff_ffff_u32) | (((f[3] >> 3) & 1_u32) << 24) | ((f[3] >> 4) << 28);
    let (first, second) = (f[0] | ((f[2] & 7_u32) << 5), f[1] | ((f[3] & 7_u32) << 5));
    [low, first | (second << 8) | ((f[2] >> 3) << 16), 0_u32, 0_u32]
}

/// As [`upper51`].
#[device]
pub fn upper50(w: [u32; 8]) -> [u32; 8] {
    let c = ((w[4] >> 5) & 0x0707_0707_u32) | pair(w[6], 0, 3);
    let d = ((w[5] >> 5) & 0x0707_0707_u32) | (((w[3] << 3) & 0x0808_0808_u32) | (w[3] & 0x1010_1010_u32));
    let x = next(w[4], 0_u32);
    let y = next(w[5], 0_u32);
    let z = next(c, 0_u32);
    let t = next(d, 0_u32);
    [x, next(x, 0_u32), y, next(y, 0_u32), z, next(z, 0_u32), t, next(t, 0_u32)]
}

/// Bytes of `32 h + 2 l` out of the upper parts and of the nibbles in words 0 to 3.
#[device]
pub fn doubled(upper: [u32; 8], w: [u32; 8], i: usize) -> u32 {
    let low = if i < 4 { w[i] << 1 } else { w[i - 4] >> 3 };
    (upper[i] & 0xe0e0_e0e0_u32) | (low & 0x1e1e_1e1e_u32)
}

/// The lowest bits of both nibbles of each byte, joined.
#[device]
pub fn folded(w: u32) -> u32 {
    w ^ (w >> 4)
}

/// Byte k of a code as word k.
#[device]
pub fn bytes_of(code: [u32; 4]) -> [u32; 8] {
    let mut w = [0_u32; 8];
    for k in 0..8 {
        w[k] = (code[k / 4] >> (8 * (k % 4))) & 255_u32;
    }
    w
}

/// The lowest bytes of eight words, side by side.
#[device]
pub fn words_of(lanes: [u32; 8]) -> [u32; 4] {
    let mut w = [0_u32; 4];
    for i in 0..8 {
        w[i / 4] = w[i / 4] | ((lanes[i] & 255_u32) << (8 * (i % 4)));
    }
    w
}
