//! E8 in exactly w bits a dimension: how a point becomes a code word and a word becomes lanes, for every codec
//! that stores E8 points of a box of 2^w integers a side.
//!
//! A point is `m - 2^(w-1) + c/2` with digits m of even sum and one coset bit c a block. The sum being
//! even, the lowest bit of `m[7]` is implied by the other seven, and its slot holds c. Lanes are `2m + c`.

use kernel_dsl::device;
use kernel_dsl::math::mul_hi;

use super::digits::{height, pack, raised4_of, unpack4, upper};
use super::lattice::nearest_wide;

/// Lanes 2m + c of the low nibbles of four bytes.
#[device]
fn low_lanes(w: u32, coset: u32) -> u32 {
    ((w << 1) & 0x1e1e_1e1e_u32) | coset
}

/// Of the high nibbles.
#[device]
fn high_lanes(w: u32, coset: u32) -> u32 {
    ((w >> 3) & 0x1e1e_1e1e_u32) | coset
}

/// Lanes of eight nibbles of even sum and a coset bit in 32 bits: the coset stands where the lowest bit of
/// the last nibble is implied. The product sums the eight low bits into the top nibble: odd means that bit
/// 28 must flip.
#[device]
pub fn nibbles(w: u32) -> (u32, u32) {
    let fixed = w ^ ((w & 0x1111_1111_u32).wrapping_mul(0x1111_1111_u32) & 0x1000_0000_u32);
    // 2^28 * 0x10101010 / 2^32 = 0x01010101
    let coset = mul_hi(w & 0x1000_0000_u32, 0x1010_1010_u32);
    (low_lanes(fixed, coset), high_lanes(fixed, coset))
}

/// Lanes of digits in bytes, the coset in the place of the implied bit.
#[device]
fn lanes(low: u32, high: u32) -> (u32, u32) {
    let coset = (high >> 24) & 1_u32;
    let x = (low ^ high) & 0x0101_0101_u32;
    let odd = x.wrapping_mul(0x0101_0101_u32) & 0x0100_0000_u32;
    let all = coset.wrapping_mul(0x0101_0101_u32);
    ((low << 1) + all, ((high ^ odd) << 1) + all)
}

#[device]
fn folded(x: u32, by: usize) -> u32 {
    x ^ (x >> by)
}

/// The word of the point that is nearest to z in the box from `low` on, `span` wide; `inv` is 1 / span.
#[device]
pub fn word_of(z: [f32; 8], low: f32, span: f32, inv: f32, width: usize) -> [u32; 4] {
    let (found, coset) = nearest_wide(z, low, span, inv);
    let mut m = found;
    m[7] = (m[7] & 0xfffe_u32) | coset;
    pack(m, width)
}

/// The lanes of a word.
#[device]
pub fn lanes_of(code: [u32; 4], width: usize) -> [u32; 4] {
    if width >= 4 {
        let (low, high) = nibbles(code[0]);
        if width > 4 {
            let (a, b) = upper(code, width);
            [low + (a << 5), high + (b << 5), 0_u32, 0_u32]
        } else {
            [low, high, 0_u32, 0_u32]
        }
    } else {
        let (a, b) = upper(code, width);
        let (low, high) = lanes(a, b);
        [low, high, 0_u32, 0_u32]
    }
}

/// Parity of the lowest bits of four tokens' digits, in the lowest bit of each byte, and the byte whose lowest
/// bit is the coset. Byte k of the codes is word k; the parity folds across the words that hold lowest bits.
#[device]
fn parity4(w: [u32; 8], width: usize) -> (u32, u32) {
    if width >= 4 {
        (folded(w[0] ^ w[1] ^ w[2] ^ w[3], 4), w[3] >> 4)
    } else if width == 3 {
        let last = w[2] >> 7;
        (folded(w[0] ^ w[1] ^ w[2], 3) ^ (w[2] >> 6) ^ last, last)
    } else {
        if width >= 2 {
            (folded(folded(w[0] ^ w[1], 2), 4), w[1] >> 6)
        } else {
            (folded(folded(folded(w[0], 1), 2), 4), w[0] >> 7)
        }
    }
}

/// As `lanes_of` for four tokens at once: see [`crate::codec::Codec::decode4`].
#[device]
pub fn lanes4_of(w: [u32; 8], width: usize) -> [u32; 8] {
    let mut out = unpack4(w, width, 1);
    let (x, last) = parity4(w, width);
    let coset = last & 0x0101_0101_u32;
    for i in 0..7 {
        out[i] = out[i] | coset;
    }
    // Flipping twice the coset's bit as well turns the slot of the coset into the implied bit.
    out[7] = (out[7] ^ ((x & 0x0101_0101_u32) << 1)) | coset;
    out
}

/// As `lanes4_of`, lane i `height(i, width, 1)` bits higher: see [`crate::codec::Codec::raised4`].
#[device]
pub fn raised_lanes4_of(w: [u32; 8], width: usize) -> [u32; 8] {
    if (width >= 2) & (width <= 4) {
        let mut out = raised4_of(w, width, 1);
        let (x, last) = parity4(w, width);
        let coset = last & 0x0101_0101_u32;
        for i in 0..8 {
            let up = height(i, width, 1);
            if i == 7 {
                out[i] = out[i] ^ ((x & 0x0101_0101_u32) << (up + 1));
            }
            out[i] = out[i] | coset.wrapping_mul(1_u32 << up);
        }
        out
    } else {
        lanes4_of(w, width)
    }
}
