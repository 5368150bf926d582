//! Sixteen mid-rise levels on rotated coordinates, one f16 step a vector.
//!
//! Levels are `s * (c - 7.5)` with `s = top / 8`: the largest coordinate overshoots the outermost
//! level by half a step, the same error as anywhere else.

use kernel_dsl::{codec, device};
use kernel_dsl::math::{fmax, fmin};

use crate::codec::{Codec, Spec};

#[derive(Debug)]
pub struct Int4;

/// Lanes c of the low nibbles of four bytes.
#[device]
fn low(w: u32) -> u32 {
    w & 0x0f0f_0f0f_u32
}

/// Of the high nibbles.
#[device]
fn high(w: u32) -> u32 {
    (w >> 4) & 0x0f0f_0f0f_u32
}

#[codec]
impl Codec for Int4 {
    fn name(&self) -> String {
        "int4".into()
    }

    fn spec(&self) -> Spec {
        Spec { bytewise: true, ..Spec::integers(32, 15) }
    }

    fn side(&self, _norm: f32, top: f32) -> [f32; 2] {
        [top * 0.125_f32, 0.0_f32]
    }

    /// Dims 0..4 in the low nibbles of bytes 0..4, dims 4..8 in the high nibbles.
    fn encode(&self, y: [f32; 8], side: [f32; 2]) -> [u32; 4] {
        let s = side[0];
        let mut w = 0_u32;
        for i in 0..8 {
            let z = if s > 0.0_f32 { y[i] / s } else { 0.0_f32 };
            let c = fmin(fmax((z + 7.5_f32).round_ties_even(), 0.0_f32), 15.0_f32) as u32;
            w = w | (c << (8 * (i % 4) + 4 * (i / 4)));
        }
        [w, 0_u32, 0_u32, 0_u32]
    }

    fn decode(&self, code: [u32; 4]) -> [u32; 4] {
        [low(code[0]), high(code[0]), 0_u32, 0_u32]
    }

    fn decode4(&self, w: [u32; 4]) -> [u32; 8] {
        [low(w[0]), low(w[1]), low(w[2]), low(w[3]), high(w[0]), high(w[1]), high(w[2]), high(w[3])]
    }

    fn scale(&self, side: [f32; 2]) -> f32 {
        side[0]
    }
}
