//! NVFP4: E2M1 numbers, an E4M3 scale for every 16, one scale for the tensor: 4.5 bits, not rotated.
//!
//! The scale of a group is the E4M3 number nearest to its largest magnitude over 6. The tensor's scale is 2^-N, known
//! when a kernel is built: `nvfp4` takes 1, `nvfp4_tN` suits rows whose groups reach less than 0.1.
//! Source: NVIDIA's NVFP4 format.

use kernel_dsl::codec;
use kernel_dsl::math::{e2m1_of, e4m3_of, e4m3_value, mul_bf16x2, pick};

use super::e2m1::{pack_e2m1, spread_e2m1};
use crate::codec::{Codec, Lane, Spec};

#[derive(Debug)]
pub struct Nvfp4 {
    tensor: usize,
    /// What a lane is worth, and what a unit of its group's scale is.
    unit: f32,
    step: f32,
}

impl Nvfp4 {
    /// `tensor`: 0 to 8, for a tensor scale of 2^-tensor.
    pub const fn new(tensor: usize) -> Nvfp4 {
        let step = 1.0 / (1_u32 << tensor) as f32;
        Nvfp4 { tensor, unit: 16_777_216.0 * step, step }
    }
}

#[codec]
impl Codec for Nvfp4 {
    fn name(&self) -> String {
        if self.tensor == 0 { "nvfp4".into() } else { format!("nvfp4_t{}", self.tensor) }
    }

    fn spec(&self) -> Spec {
        Spec { sides: 0, lane: Lane::Bf16, rotate: false, group: 16, shared: 8, ..Spec::integers(32, 0) }
    }

    fn side(&self, _norm: f32, _top: f32) -> [f32; 2] {
        [0.0_f32, 0.0_f32]
    }

    fn group(&self, top: f32) -> f32 {
        e4m3_value(e4m3_of(top / (self.step * 6.0_f32)))
    }

    fn shared(&self, group: f32) -> u32 {
        e4m3_of(group)
    }

    fn encode(&self, y: [f32; 8], side: [f32; 2]) -> [u32; 4] {
        let inverse = if side[0] > 0.0_f32 { 1.0_f32 / (side[0] * self.step) } else { 0.0_f32 };
        let mut c = [0_u32; 8];
        for i in 0..8 {
            c[i] = e2m1_of(y[i] * inverse);
        }
        [pack_e2m1(c), 0_u32, 0_u32, 0_u32]
    }

    /// A number times its group's scale has six bits: exact. The scale meets it 2^102 times up, what is left is `unit`.
    fn decode(&self, code: [u32; 4]) -> [u32; 4] {
        let scale = e4m3_value(code[1] & 127_u32).to_bits().wrapping_add(0x3300_0000_u32);
        let both = pick(scale, scale, 0x3232_u32);
        let mut w = spread_e2m1(code[0]);
        for i in 0..4 {
            w[i] = mul_bf16x2(w[i], both);
        }
        w
    }

    fn scale(&self, _side: [f32; 2]) -> f32 {
        self.unit
    }
}
