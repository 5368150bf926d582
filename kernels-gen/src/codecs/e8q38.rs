//! E8 points with 77 levels a coordinate in 51 bits a block, f16 norm and f16 maximum a vector.
//!
//! Digits `d = v + 38` (integers) or `v - 1/2 + 38` (half integers) have an even sum, so the lowest
//! bit of `d[7]` is implied. Two fields of three digits in base 77 (19 bits each) and one of 13 bits
//! keep every division a 32-bit multiplication.

use kernel_dsl::{codec, device};
use kernel_dsl::math::{fmax, mul_hi};

use crate::codec::{Codec, Lane};
use crate::codecs::lattice::nearest_e8;

pub struct E8Q38;

/// ceil(2^32 / 77): `mul_hi` with it divides every f < 2^19 exactly.
const RECIPROCAL: u32 = 55_778_797;

/// Three digits `d0 + 77 d1 + 5929 d2` to bytes `d0 | d1 << 8 | d2 << 16`.
#[device]
fn three_digits(f: u32) -> u32 {
    let h = mul_hi(f, RECIPROCAL);
    let h2 = mul_hi(h, RECIPROCAL);
    f + h * 179_u32 + h2 * 45_824_u32
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
        let f2 = (lane & 1_u32) + (d[6] + (d[7] >> 1) * 77_u32) * 2_u32;
        [f0 | (f1 << 19), (f1 >> 13) | (f2 << 6), 0_u32, 0_u32]
    }

    fn decode(code: [u32; 4]) -> [u32; 4] {
        let a = three_digits(code[0] & 0x7_ffff_u32);
        let b = three_digits((code[0] >> 19) | ((code[1] & 0x3f_u32) << 13));
        let pair = code[1] >> 7;
        let h = mul_hi(pair, RECIPROCAL);
        // Digits 6 and 7, the latter still even: pair - 77 h in byte 2, 2 h in byte 3.
        let low = a | (b << 24);
        let high = (b >> 8) | ((pair + h * 435_u32) << 16);
        let x = low ^ high;
        let x2 = x ^ (x >> 16);
        let odd = (x2 ^ (x2 >> 8)) & 1_u32;
        let coset = ((code[1] >> 6) & 1_u32) * 0x0101_0101_u32;
        [(low << 1) + coset, (high << 1) + (odd << 25) + coset, 0_u32, 0_u32]
    }

    fn scale(side: [f32; 2]) -> f32 {
        (side[0] * side[1]) * 0.013_157_895_f32
    }
}
