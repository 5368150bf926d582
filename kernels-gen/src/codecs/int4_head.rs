//! Uniform levels of 4 bits over a rotated vector's range, with a whole number for zero: `int4_per_token_head`.
//!
//! Step `s = max((max - min) / 15, 1e-6)`, zero point `z = round(-min / s)` in 0..=15, code `round(x / s + z)`, halves to even.
//! Codes are chosen with s in f32; its f16 and z are stored, as many bytes as the original's f32 with z in its last bits.
//! The rotation is the plain Hadamard matrix, without the original's random signs. Source: vLLM's INT4_PER_TOKEN_HEAD.

use kernel_dsl::codec;
use kernel_dsl::math::{fmax, fmin, saturate};

use super::affine::quotient;
use super::digits::{heights, pack, raised4_of, unpack, unpack4};
use crate::codec::{Codec, Spec};

#[derive(Debug)]
pub struct Int4Head;

#[codec]
impl Codec for Int4Head {
    fn name(&self) -> String {
        "int4_per_token_head".into()
    }

    fn spec(&self) -> Spec {
        Spec { sides: 2, affine: true, bytewise: true, raised: heights(4, 0), ..Spec::integers(32, 16) }
    }

    fn side(&self, least: f32, largest: f32) -> [f32; 2] {
        let step = fmax(quotient(largest - least, 15.0_f32, 0.06666667_f32), 1e-6_f32);
        [step, fmin(fmax(-least / step + 0.5_f32, 0.0_f32), 15.0_f32).floor()]
    }

    fn encode(&self, y: [f32; 8], side: [f32; 2]) -> [u32; 4] {
        let inverse = 0.06666667_f32 / side[0];
        let zero = side[1] * 0.06666667_f32;
        let mut c = [0_u32; 8];
        for i in 0..8 {
            // The box is [0, 1]; a sum with 1.5 * 2^23 rounds and has the level in its lowest byte.
            c[i] = saturate(y[i].mul_add(inverse, zero)).mul_add(15.0_f32, 12_582_912.0_f32).to_bits();
        }
        pack(c, 4)
    }

    fn decode(&self, code: [u32; 4]) -> [u32; 4] {
        let (low, high) = unpack(code, 4);
        [low, high, 0_u32, 0_u32]
    }

    fn decode4(&self, w: [u32; 8]) -> [u32; 8] {
        unpack4(w, 4, 0)
    }

    fn raised4(&self, w: [u32; 8]) -> [u32; 8] {
        raised4_of(w, 4, 0)
    }

    fn scale(&self, side: [f32; 2]) -> f32 {
        side[0]
    }

    fn offset(&self, side: [f32; 2]) -> f32 {
        (8.0_f32 - side[1]) * side[0]
    }
}
