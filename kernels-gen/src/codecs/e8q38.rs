//! E8 points with 77 levels a coordinate in 51 bits a block, f16 norm and f16 maximum a vector.
//!
//! Digits `d = v + 38` (integers) or `v - 1/2 + 38` (half integers) have an even sum. Each is `16 h + l`:
//! the nibbles l lie as in e8w4, 32 bits with the coset in the place of the implied lowest bit; the eight
//! h, 0 to 4, are two numbers of four digits in base 5, one 19-bit field: 5^8 < 2^19.

use kernel_dsl::{codec, device};
use kernel_dsl::math::{fmax, mul_hi};

use crate::codec::{Codec, Spec};
use crate::codecs::e8word::nibbles;
use crate::codecs::e8q::{below, scaled};
use crate::codecs::lattice::nearest_even;

#[derive(Debug)]
pub struct E8Q38;

/// ceil(2^32 / 625): `mul_hi` with it divides every f < 2^19 exactly.
const RECIPROCAL: u32 = 6_871_948;

/// See `nearest_even`.
const SPAN: f32 = below(76);

/// Two halves below 25 to bytes of base-5 digits, low digit first. x * 13 >> 6 is x / 5 there.
#[device]
fn two_digits(x: u32) -> u32 {
    x.wrapping_add((x.wrapping_mul(13_u32) >> 6 & 0x7_0007_u32) * 251_u32)
}

#[codec]
impl Codec for E8Q38 {
    fn name(&self) -> String {
        "e8q38".into()
    }

    fn spec(&self) -> Spec {
        Spec { sides: 2, unit: true, ..Spec::integers(51, 152) }
    }

    fn side(&self, norm: f32, top: f32) -> [f32; 2] {
        let eps = 1.192_092_9e-7_f32;
        [fmax(norm, eps), fmax(top, eps)]
    }

    fn encode(&self, y: [f32; 8], side: [f32; 2]) -> [u32; 4] {
        let (d, coset) = nearest_even(scaled(y, side[1], 38.0_f32), 38.0_f32, SPAN, 0.013_157_895_f32);
        let mut w = 0_u32;
        let mut h = [0_u32; 8];
        for i in 0..8 {
            w = w | ((d[i] & 15_u32) << (8 * (i % 4) + 4 * (i / 4)));
            h[i] = d[i] >> 4;
        }
        let a = h[0] + h[1] * 5_u32 + h[4] * 25_u32 + h[5] * 125_u32;
        let b = h[2] + h[3] * 5_u32 + h[6] * 25_u32 + h[7] * 125_u32;
        [(w & 0xefff_ffff_u32) | (coset << 28), a + b * 625_u32, 0_u32, 0_u32]
    }

    fn decode(&self, code: [u32; 4]) -> [u32; 4] {
        let (low, high) = nibbles(code[0]);
        // Halves a | b << 16, then a / 25 and a % 25 of both at once: x * 41 >> 10 is x / 25 below 625.
        let both = code[1].wrapping_add(mul_hi(code[1], RECIPROCAL).wrapping_mul(64_911_u32));
        let upper = (both.wrapping_mul(41_u32) >> 10) & 0x1f_001f_u32;
        let lower = both.wrapping_sub(upper * 25_u32);
        [two_digits(lower).wrapping_mul(32_u32).wrapping_add(low), two_digits(upper).wrapping_mul(32_u32).wrapping_add(high), 0_u32, 0_u32]
    }

    fn scale(&self, side: [f32; 2]) -> f32 {
        (side[0] * side[1]) * 0.013_157_895_f32
    }
}
