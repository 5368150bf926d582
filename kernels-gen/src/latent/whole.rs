//! Integers of a byte, -127 to 127, under one scale: the codes of RoPE's numbers, and `int8` rows.
//!
//! Unlike `int8` of caches with heads, zero is a level, so that a lane is a signed byte.

use kernel_dsl::codec;
use kernel_dsl::math::{fmax, fmin};

use crate::codec::{Codec, Spec};

#[derive(Debug)]
pub struct Whole;

#[codec]
impl Codec for Whole {
    fn name(&self) -> String {
        "int8".into()
    }

    fn spec(&self) -> Spec {
        Spec::integers(64, 256)
    }

    fn side(&self, _norm: f32, top: f32) -> [f32; 2] {
        [top / 127.0_f32, 0.0_f32]
    }

    fn encode(&self, y: [f32; 8], side: [f32; 2]) -> [u32; 4] {
        let mut code = [0_u32; 4];
        for i in 0..8 {
            let z = if side[0] > 0.0_f32 { y[i] / side[0] } else { 0.0_f32 };
            let byte = (fmin(fmax(z.round_ties_even(), -127.0_f32), 127.0_f32) + 128.0_f32) as u32;
            code[i / 4] = code[i / 4] | (byte << (8 * (i % 4)));
        }
        code
    }

    fn decode(&self, code: [u32; 4]) -> [u32; 4] {
        code
    }

    fn scale(&self, side: [f32; 2]) -> f32 {
        side[0]
    }
}
