//! E4M3, what engines call an fp8 cache: `fp8_e4m3` as it is, saturating at 448, `fp8_e4m3_token` under one f16
//! scale a vector, its largest coordinate at 448. Decoded to bf16, which holds every E4M3 value.

use kernel_dsl::codec;
use kernel_dsl::math::{e4m3_of, mul_bf16x2, pick};

use crate::codec::{Codec, Lane, Spec};

#[derive(Debug)]
pub struct Fp8 {
    scaled: bool,
}

impl Fp8 {
    /// `scaled`: one scale a vector.
    pub const fn new(scaled: bool) -> Fp8 {
        Fp8 { scaled }
    }
}

#[codec]
impl Codec for Fp8 {
    fn name(&self) -> String {
        format!("fp8_e4m3{}", if self.scaled { "_token" } else { "" })
    }

    fn spec(&self) -> Spec {
        let sides = if self.scaled { 1 } else { 0 };
        Spec { sides, lane: Lane::Bf16, rotate: false, level_bits: 8, ..Spec::integers(64, 0) }
    }

    fn side(&self, _norm: f32, top: f32) -> [f32; 2] {
        [top / 448.0_f32, 0.0_f32]
    }

    fn encode(&self, y: [f32; 8], side: [f32; 2]) -> [u32; 4] {
        let mut code = [0_u32; 4];
        for i in 0..8 {
            let z = if self.scaled { if side[0] > 0.0_f32 { y[i] / side[0] } else { 0.0_f32 } } else { y[i] };
            code[i / 4] = code[i / 4] | (e4m3_of(z) << (8 * (i % 4)));
        }
        code
    }

    fn decode(&self, code: [u32; 4]) -> [u32; 4] {
        let mut w = [0_u32; 4];
        for i in 0..4 {
            // Two codes in the low bytes of a word's halves, their signs above them, then where a bf16 of 2^-120 times their values has them.
            let x = pick(code[i / 2], 0_u32, if i % 2 == 0 { 0x9180_u32 } else { 0xb3a2_u32 });
            w[i] = mul_bf16x2((x << 4) & 0x87f0_87f0_u32, 0x7b80_7b80_u32);
        }
        w
    }

    fn levels(&self, code: [u32; 4]) -> [u32; 8] {
        let mut c = [0_u32; 8];
        for i in 0..8 {
            c[i] = (code[i / 4] >> (8 * (i % 4))) & 255_u32;
        }
        c
    }

    fn of_levels(&self, levels: [u32; 8]) -> [u32; 4] {
        let mut code = [0_u32; 4];
        for i in 0..8 {
            code[i / 4] = code[i / 4] | (levels[i] << (8 * (i % 4)));
        }
        code
    }

    fn scale(&self, side: [f32; 2]) -> f32 {
        if self.scaled { side[0] } else { 1.0_f32 }
    }
}
