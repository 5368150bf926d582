//! No compression: the baseline that shares every other part of the path.

use crate::codec::{Codec, Lane, Spec};
use kernel_dsl::{codec, device};

#[derive(Debug)]
pub struct Bf16;

/// The largest finite bf16.
const LIMIT: f32 = 3.389_531_4e38;

/// Upper half of the f32, rounded to nearest, ties to even; finite inputs only.
#[device]
fn bf16_bits(x: f32) -> u32 {
    let bits = x.to_bits();
    let lsb = (bits >> 16) & 1_u32;
    bits.wrapping_add(0x7fff_u32).wrapping_add(lsb) >> 16
}

/// Halves that are infinite or NaN become +-1 to 2: a slot nobody wrote must not poison a sum it has no weight in.
#[device]
fn finite(w: u32) -> u32 {
    let carry = (w & 0x7f80_7f80_u32).wrapping_add(0x0080_0080_u32);
    w & !((carry >> 1) & 0x4000_4000_u32)
}

#[codec]
impl Codec for Bf16 {
    fn name(&self) -> String {
        "bf16".into()
    }

    fn spec(&self) -> Spec {
        Spec { sides: 0, lane: Lane::Bf16, rotate: false, limit: LIMIT, ..Spec::integers(128, 0) }
    }

    fn side(&self, _norm: f32, _top: f32) -> [f32; 2] {
        [0.0_f32, 0.0_f32]
    }

    fn encode(&self, y: [f32; 8], _side: [f32; 2]) -> [u32; 4] {
        let mut w = [0_u32; 4];
        for i in 0..4 {
            w[i] = bf16_bits(y[2 * i]) | (bf16_bits(y[2 * i + 1]) << 16);
        }
        w
    }

    fn decode(&self, code: [u32; 4]) -> [u32; 4] {
        [finite(code[0]), finite(code[1]), finite(code[2]), finite(code[3])]
    }

    fn scale(&self, _side: [f32; 2]) -> f32 {
        1.0_f32
    }
}
