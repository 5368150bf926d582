//! E4M3 under one scale for 64 numbers, as engines cache it: `fp8_e4m3_64` with f32 scales, `fp8_e4m3_64_e8m0` with powers
//! of two. Not rotated.
//!
//! A group's largest magnitude over 448 is its scale, rounded up to a power of two or to the nearest f32 of 8 significant bits.
//! A number times a power of two is exact in a bf16 lane. So is the other scale, and its product with a number is rounded to 2^-9,
//! far below the number's own error of 2^-4. A scale of more bits would lose them in the lane, for all numbers of the group
//! alike: that adds up over a dot product, where errors of single numbers do not.

use kernel_dsl::math::{e4m3_of, fmax, mul_bf16x2, pick};
use kernel_dsl::{codec, device};

use crate::codec::{Codec, Lane, Spec};

#[derive(Debug)]
pub struct Fp8Group {
    /// Scales are powers of two in a byte.
    power: bool,
}

impl Fp8Group {
    pub const fn new(power: bool) -> Fp8Group {
        Fp8Group { power }
    }
}

/// Two codes of one half of a word: the first where a bf16 of 2^-120 times its value has it, the second in what is left:
/// its sign and its low bits four below their places, its high bits four above.
#[device]
fn pair(a: u32, b: u32) -> u32 {
    let first = ((a & 128_u32) << 8) | ((a & 127_u32) << 4);
    let second = ((b & 128_u32) << 4) | (b & 15_u32) | ((b & 112_u32) << 8);
    first | second
}

/// Four bf16, each 2^-120 of its number.
#[device]
fn spread(w: u32) -> [u32; 2] {
    [w & 0x87f0_87f0_u32, ((w << 4) & 0x80f0_80f0_u32) | ((w >> 4) & 0x0700_0700_u32)]
}

#[codec]
impl Codec for Fp8Group {
    fn name(&self) -> String {
        format!("fp8_e4m3_64{}", if self.power { "_e8m0" } else { "" })
    }

    fn spec(&self) -> Spec {
        let shared = if self.power { 8 } else { 32 };
        Spec { sides: 0, lane: Lane::Bf16, rotate: false, group: 64, shared, ..Spec::integers(64, 0) }
    }

    fn side(&self, _norm: f32, _top: f32) -> [f32; 2] {
        [0.0_f32, 0.0_f32]
    }

    /// Not below 2^-100.
    fn group(&self, top: f32) -> f32 {
        let scale = fmax(top / 448.0_f32, 7.888_609e-31_f32);
        let (more, kept) = if self.power { (0x7f_ffff_u32, 0x7f80_0000_u32) } else { (0x8000_u32, 0xffff_0000_u32) };
        f32::from_bits(scale.to_bits().wrapping_add(more) & kept)
    }

    fn shared(&self, group: f32) -> u32 {
        if self.power { group.to_bits() >> 23 } else { group.to_bits() }
    }

    fn encode(&self, y: [f32; 8], side: [f32; 2]) -> [u32; 4] {
        let inverse = 1.0_f32 / side[0];
        let mut c = [0_u32; 8];
        for i in 0..8 {
            c[i] = e4m3_of(y[i] * inverse);
        }
        let (low, high) = (pair(c[0], c[2]) | (pair(c[1], c[3]) << 16), pair(c[4], c[6]) | (pair(c[5], c[7]) << 16));
        [low, high, 0_u32, 0_u32]
    }

    /// The scale, at most 2^29 and of another writer rounded to its upper half, meets a number 2^96 times up; 2^24 is left for `scale`.
    fn decode(&self, code: [u32; 4]) -> [u32; 4] {
        let sound = (code[2] & 0x7fff_ffff_u32).min(0x4e00_0000_u32).wrapping_add(0x3000_8000_u32);
        let both = if self.power { (code[2].min(156_u32) + 96_u32) * 0x0080_0080_u32 } else { pick(sound, sound, 0x3232_u32) };
        let (low, high) = (spread(code[0]), spread(code[1]));
        [mul_bf16x2(low[0], both), mul_bf16x2(low[1], both), mul_bf16x2(high[0], both), mul_bf16x2(high[1], both)]
    }

    fn scale(&self, _side: [f32; 2]) -> f32 {
        16_777_216.0_f32
    }
}
