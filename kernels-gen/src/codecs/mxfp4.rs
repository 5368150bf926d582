//! MXFP4: E2M1 numbers, a power of two for every 32: 4.25 bits, not rotated.
//!
//! The scale is 2^(floor(log2 m) - 2) for a largest magnitude of m, as the standard has it, so numbers above 6 saturate.
//! Source: OCP Microscaling Formats (MX) 1.0.

use kernel_dsl::codec;
use kernel_dsl::math::{e2m1_of, fmax, mul_bf16x2};

use super::e2m1::{pack_e2m1, spread_e2m1};
use crate::codec::{Codec, Lane, Spec};

#[derive(Debug)]
pub struct Mxfp4;

#[codec]
impl Codec for Mxfp4 {
    fn name(&self) -> String {
        "mxfp4".into()
    }

    fn spec(&self) -> Spec {
        Spec { sides: 0, lane: Lane::Bf16, rotate: false, group: 32, shared: 8, ..Spec::integers(32, 0) }
    }

    fn side(&self, _norm: f32, _top: f32) -> [f32; 2] {
        [0.0_f32, 0.0_f32]
    }

    /// Not below 2^-100.
    fn group(&self, top: f32) -> f32 {
        fmax(f32::from_bits(top.to_bits() & 0x7f80_0000_u32) * 0.25_f32, 7.888_609e-31_f32)
    }

    fn shared(&self, group: f32) -> u32 {
        group.to_bits() >> 23
    }

    fn encode(&self, y: [f32; 8], side: [f32; 2]) -> [u32; 4] {
        let inverse = 1.0_f32 / side[0];
        let mut c = [0_u32; 8];
        for i in 0..8 {
            c[i] = e2m1_of(y[i] * inverse);
        }
        [pack_e2m1(c), 0_u32, 0_u32, 0_u32]
    }

    /// Exact: the scale, at most 2^25, meets a number 2^102 times up; 2^24 is left for `scale`.
    fn decode(&self, code: [u32; 4]) -> [u32; 4] {
        let both = (code[1].min(152_u32) + 102_u32) * 0x0080_0080_u32;
        let mut w = spread_e2m1(code[0]);
        for i in 0..4 {
            w[i] = mul_bf16x2(w[i], both);
        }
        w
    }

    fn scale(&self, _side: [f32; 2]) -> f32 {
        16_777_216.0_f32
    }
}
