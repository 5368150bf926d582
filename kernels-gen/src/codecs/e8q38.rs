//! E8 points with 77 levels a coordinate in 51 bits a block, f16 norm and f16 maximum a vector.
//!
//! Digits `d = v + 38` (integers) or `v - 1/2 + 38` (half integers) have an even sum, so the lowest
//! bit of `d[7]` is implied. Bit 0 of a code is the coset, then come two fields of three digits in base
//! 77 (19 bits each) and one of 12 bits: every division is a 32-bit multiplication.

use kernel_dsl::{codec, device};
use kernel_dsl::math::{dot4, fmax, funnel, mul_hi};

use crate::codec::{Codec, Lane};
use crate::codecs::lattice::nearest_e8;

pub struct E8Q38;

/// ceil(2^31 / 77): `mul_hi` of it and 2f is f / 77, for every f < 2^19.
const RECIPROCAL: u32 = 27_889_399;

/// Twice three digits, `2 (d0 + 77 d1 + 5929 d2)`, to bytes `2 d0 | 2 d1 << 8 | 2 d2 << 16`.
#[device]
fn three_digits(f: u32) -> u32 {
    let h = mul_hi(f, RECIPROCAL);
    let h2 = mul_hi(h, 2 * RECIPROCAL);
    f + h * 358_u32 + h2 * 91_648_u32
}

#[codec]
impl Codec for E8Q38 {
    const NAME: &'static str = "e8q38";
    const BITS: usize = 51;
    const SIDES: usize = 2;
    const LANE: Lane = Lane::U8;
    const ZERO2: i32 = 152;
    const ROTATE: bool = true;
    const UNIT: bool = true;
    const BYTEWISE: bool = false;
    const LIMIT: f32 = 65504.0;

    fn side(norm: f32, top: f32) -> [f32; 2] {
        let eps = 1.192_092_9e-7_f32;
        [fmax(norm, eps), fmax(top, eps)]
    }

    fn encode(y: [f32; 8], side: [f32; 2]) -> [u32; 4] {
        let s = side[1] / 38.0_f32;
        let mut z = [0.0_f32; 8];
        for i in 0..8 {
            z[i] = y[i] / s;
        }
        let p = nearest_e8(z, -38.0_f32, 38.0_f32, 37.0_f32);
        let mut d = [0_u32; 8];
        let mut lane = 0_u32;
        for i in 0..8 {
            lane = (p[i] * 2.0_f32 + 76.0_f32) as u32;
            d[i] = lane >> 1;
        }
        let f0 = d[0] + d[1] * 77_u32 + d[2] * 5929_u32;
        let f1 = d[3] + d[4] * 77_u32 + d[5] * 5929_u32;
        let pair = d[6] + (d[7] >> 1) * 77_u32;
        [(lane & 1_u32) | (f0 << 1) | (f1 << 20), (f1 >> 12) | (pair << 7), 0_u32, 0_u32]
    }

    /// All in doubled digits, which is what lanes are but for the coset.
    fn decode(code: [u32; 4]) -> [u32; 4] {
        let coset = (code[0] & 1_u32) * 0x0101_0101_u32;
        let a = three_digits(code[0] & 0xf_fffe_u32);
        let b = three_digits(funnel(code[0], code[1], 19) & 0xf_fffe_u32);
        let pair = (code[1] >> 6) & 0x1ffe_u32;
        // 2 d6 in a byte, 4 (d7 / 2) in the next.
        let c = pair + mul_hi(pair, RECIPROCAL) * 870_u32;
        let low = a + (b << 24) + coset;
        let high = (b >> 8) + (c << 16) + coset;
        // Bit 1 of the lanes' sum is the parity of the digits.
        let sum = dot4(low, 0x0101_0101_u32) + dot4(high, 0x0101_0101_u32);
        [low, high + ((sum & 2_u32) << 24), 0_u32, 0_u32]
    }

    fn scale(side: [f32; 2]) -> f32 {
        (side[0] * side[1]) * 0.013_157_895_f32
    }
}
