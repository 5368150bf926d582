//! E8 in exactly w bits a dimension: how a point becomes a code word and a word becomes lanes, for every codec
//! that stores E8 points of a box of 2^w integers a side.
//!
//! A point is `m - 2^(w-1) + c/2` with digits m of even sum and one coset bit c a block. The sum being
//! even, the lowest bit of `m[7]` is implied by the other seven, and its slot holds it plus c: the lowest bits of a code
//! sum to c. Lanes are `2m + c`.

use kernel_dsl::device;
use kernel_dsl::math::{mul_hi, opaque};

use super::digits::{height, heights, packed, raised4_of, unpack4, upper};
use super::fractions::nearest_by_bytes;
use super::quads::lowered4;
use super::threes;

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

/// Lanes of eight nibbles in 32 bits. The product sums the eight low bits into the top nibble.
#[device]
pub fn nibbles(w: u32) -> (u32, u32) {
    let sum = (w & 0x1111_1111_u32).wrapping_mul(0x1111_1111_u32) & 0x1000_0000_u32;
    // 2^28 * 0x10101010 / 2^32 = 0x01010101
    let coset = mul_hi(sum, 0x1010_1010_u32);
    (low_lanes(w, coset), high_lanes(w ^ sum, coset))
}

/// Lanes of digits in bytes.
#[device]
fn lanes(low: u32, high: u32) -> (u32, u32) {
    let x = (low ^ high) & 0x0101_0101_u32;
    let coset = (x.wrapping_mul(0x0101_0101_u32) >> 24) & 1_u32;
    let all = coset.wrapping_mul(0x0101_0101_u32);
    ((low << 1) + all, ((high ^ (coset << 24)) << 1) + all)
}

#[device]
fn folded(x: u32, by: usize) -> u32 {
    x ^ (x >> by)
}

/// The word of the point that is nearest to `y by` in the box of `2^width` integers; see [`nearest_by_bytes`].
#[device]
pub fn word_of(y: [f32; 8], by: f32, width: usize, reach: f32, middle: f32, inverse: f32) -> [u32; 4] {
    let (m, coset) = nearest_by_bytes(y, by, width, reach, middle, inverse);
    let last = m[1] ^ (coset & 0x0100_0000_u32);
    if width == 3 { threes::packed(m[0], last) } else { packed(m[0], last, width) }
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
        let (a, b) = if width == 3 { threes::unpack(code[0]) } else { upper(code, width) };
        let (low, high) = lanes(a, b);
        [low, high, 0_u32, 0_u32]
    }
}

/// The cosets of four tokens in the lowest bit of each byte: the sum of the lowest bits of their digits. Byte k of the codes
/// is word k.
#[device]
pub fn cosets4(w: [u32; 8], width: usize) -> u32 {
    let sum = if width >= 4 {
        folded(w[0] ^ w[1] ^ w[2] ^ w[3], 4)
    } else if width == 3 {
        folded(w[0] ^ w[1] ^ w[2], 3) ^ (w[2] >> 6) ^ (w[2] >> 7)
    } else {
        if width >= 2 { folded(folded(w[0] ^ w[1], 2), 4) } else { folded(folded(folded(w[0], 1), 2), 4) }
    };
    // It is shifted to several heights.
    opaque(sum & 0x0101_0101_u32)
}

/// Digits in bytes, doubled, become lanes: `coset` at the height `up` where they stand.
#[device]
pub fn with_coset(digits: [u32; 8], coset: u32, i: usize, up: usize) -> u32 {
    // The last digit's lowest bit is stored plus the coset.
    if i < 7 { digits[i] | coset.wrapping_mul(1_u32 << up) } else { digits[i] ^ coset.wrapping_mul(3_u32 << up) }
}

/// As `lanes_of` for four tokens at once: see [`crate::codec::Codec::decode4`].
#[device]
pub fn lanes4_of(w: [u32; 8], width: usize) -> [u32; 8] {
    if width == 3 {
        lowered4(threes::raised4_of(w), threes::HEIGHTS)
    } else {
        let digits = unpack4(w, width, 1);
        let coset = cosets4(w, width);
        let mut out = [0_u32; 8];
        for i in 0..8 {
            out[i] = with_coset(digits, coset, i, 0);
        }
        out
    }
}

/// Bits by which [`raised_lanes4_of`] leaves the lanes of each dim higher.
pub fn raised(width: usize) -> [usize; 8] {
    match width {
        2 => TWOS,
        3 => threes::HEIGHTS,
        _ => heights(width, 1),
    }
}

/// Of two bits: where there is room for the coset below a digit. The two upper digits of a byte stand so already, the two lower ones in a
/// multiple of it: the pipe that multiplies has time, the one that shifts and masks has none.
const TWOS: [usize; 8] = [3, 3, 5, 5, 3, 3, 5, 5];

/// Lanes of two bits, as high as [`TWOS`] says.
#[device]
fn twos4_of(w: [u32; 8]) -> [u32; 8] {
    // One number, so that it is masked with the sum.
    let lowest = opaque((w[0] ^ w[1]) & 0x5555_5555_u32);
    // Three of a byte's four bits meet in bit 5: 2^5 + 2^3 + 2. No bit meets more than three, so carries end one bit above odd ones.
    let high = opaque((lowest.wrapping_mul(42_u32) ^ (lowest >> 1)) & 0x2020_2020_u32);
    let low = high >> 2;
    let mut out = [0_u32; 8];
    for k in 0..2 {
        let lower = w[k] << 4;
        out[k] = (lower & 0x3030_3030_u32) | low;
        out[2 + k] = (lower & 0xc0c0_c0c0_u32) | high;
        out[4 + k] = (w[k] & 0x3030_3030_u32) | low;
        out[6 + k] = (w[k] & 0xc0c0_c0c0_u32) | high;
    }
    // The last digit's lowest bit is stored plus the coset.
    out[7] = (w[1] & 0xc0c0_c0c0_u32) ^ high.wrapping_mul(3_u32);
    out
}

/// As `lanes4_of`, lane i `raised(width)[i]` bits higher: see [`crate::codec::Codec::raised4`].
#[device]
pub fn raised_lanes4_of(w: [u32; 8], width: usize) -> [u32; 8] {
    if width == 2 {
        twos4_of(w)
    } else if width == 3 {
        threes::raised4_of(w)
    } else if width == 4 {
        let digits = raised4_of(w, width, 1);
        let coset = cosets4(w, width);
        let mut out = [0_u32; 8];
        for i in 0..8 {
            out[i] = with_coset(digits, coset, i, height(i, width, 1));
        }
        out
    } else {
        lanes4_of(w, width)
    }
}
