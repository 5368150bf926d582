//! E8 in exactly w bits a dimension, `e8w2` to `e8w7`: the gain of the lattice at the cost of integers.
//!
//! A point is `m - 2^(w-1) + c/2` with digits m of even sum and one coset bit c a block. The sum being
//! even, the lowest bit of `m[7]` is implied by the other seven, and its slot holds c.
//!
//! The step is `f * top / (2^(w-1) - 1/2)`, so that the outermost coordinates are clipped. Relative squared error on
//! Gaussian rows at w = 4, D = 128: f = 0.80 9.76e-3, 0.85 8.97e-3, 0.875 8.87e-3, 0.90 8.95e-3, 1.00 1.04e-2
//! (int4: 1.08e-2). The best f at w = 4 is 0.925 at D = 64 and 0.825 at D = 256.

use kernel_dsl::math::mul_hi;
use kernel_dsl::{codec, device};

use super::digits::{pack, unpack4, upper};
use super::lattice::nearest_wide;
use crate::codec::{Codec, Spec};

/// Steps that `e8wW_tried` tries.
pub const TRIES: usize = 3;

#[derive(Debug)]
pub struct E8W {
    width: usize,
    tries: usize,
    /// The steps that are tried over the row's largest magnitude.
    steps: [f32; TRIES],
    /// The lowest integer coordinate, the width of the box, and its reciprocal.
    low: f32,
    span: f32,
    inv: f32,
}

impl E8W {
    /// `width`: 2 to 7 bits a dimension.
    pub const fn new(width: usize) -> E8W {
        // The factor with the least error on Gaussian rows at D = 128.
        let clip = match width {
            2 => 0.54,
            3 => 0.72,
            4 => 0.875,
            5 => 0.96,
            6 => 0.98,
            _ => 1.0,
        };
        E8W::with(width, 1, [clip; TRIES])
    }

    /// The best of several steps for each row, `width` 2 to 5: 3.7, 3.7, 2.9 and 1.5 % less squared error than one.
    pub const fn tried(width: usize) -> E8W {
        let clips = match width {
            2 => [0.52, 0.456, 0.593],
            3 => [0.72, 0.655, 0.792],
            4 => [0.88, 0.83, 0.933],
            _ => [0.96, 0.906, 1.018],
        };
        E8W::with(width, TRIES, clips)
    }

    /// Steps so that `clips` of the largest magnitude is the outermost level.
    pub const fn with(width: usize, tries: usize, clips: [f32; TRIES]) -> E8W {
        let half = (1 << (width - 1)) as f32;
        let steps = [clips[0] / (half - 0.5), clips[1] / (half - 0.5), clips[2] / (half - 0.5)];
        E8W { width, tries, steps, low: -half, span: 2.0 * half - 1.0, inv: 1.0 / (2.0 * half - 1.0) }
    }
}

/// Lanes 2m + c of the low nibbles of four bytes.
#[device]
fn low_lanes(w: u32, coset: u32) -> u32 {
    ((w << 1) & 0x1e1e_1e1e_u32) | coset
}

/// Of the high nibbles.
#[device]
fn high_lanes(w: u32, coset: u32) -> u32 {
    ((w >> 3) & 0x1e1e_1e1e_u32) | coset
}

/// Lanes of eight nibbles of even sum and a coset bit in 32 bits: the coset stands where the lowest bit of
/// the last nibble is implied. The product sums the eight low bits into the top nibble: odd means that bit
/// 28 must flip.
#[device]
pub fn nibbles(w: u32) -> (u32, u32) {
    let fixed = w ^ ((w & 0x1111_1111_u32).wrapping_mul(0x1111_1111_u32) & 0x1000_0000_u32);
    // 2^28 * 0x10101010 / 2^32 = 0x01010101
    let coset = mul_hi(w & 0x1000_0000_u32, 0x1010_1010_u32);
    (low_lanes(fixed, coset), high_lanes(fixed, coset))
}

/// Lanes of digits in bytes, the coset in the place of the implied bit.
#[device]
fn lanes(low: u32, high: u32) -> (u32, u32) {
    let coset = (high >> 24) & 1_u32;
    let x = (low ^ high) & 0x0101_0101_u32;
    let odd = x.wrapping_mul(0x0101_0101_u32) & 0x0100_0000_u32;
    let all = coset.wrapping_mul(0x0101_0101_u32);
    ((low << 1) + all, ((high ^ odd) << 1) + all)
}

#[device]
fn folded(x: u32, by: usize) -> u32 {
    x ^ (x >> by)
}

#[codec]
impl Codec for E8W {
    fn name(&self) -> String {
        format!("e8w{}{}", self.width, if self.tries > 1 { "_tried" } else { "" })
    }

    fn spec(&self) -> Spec {
        Spec { bytewise: true, tries: self.tries, ..Spec::integers(8 * self.width, 2 << self.width) }
    }

    fn side(&self, _norm: f32, top: f32) -> [f32; 2] {
        [top * self.steps[0], 0.0_f32]
    }

    fn trial(&self, _norm: f32, top: f32, t: usize) -> [f32; 2] {
        [top * self.steps[t], 0.0_f32]
    }

    fn encode(&self, y: [f32; 8], side: [f32; 2]) -> [u32; 4] {
        let inverse = if side[0] > 0.0_f32 { 1.0_f32 / side[0] } else { 0.0_f32 };
        let mut z = [0.0_f32; 8];
        for i in 0..8 {
            z[i] = y[i] * inverse;
        }
        let (found, coset) = nearest_wide(z, self.low, self.span, self.inv);
        let mut m = found;
        m[7] = (m[7] & 0xfffe_u32) | coset;
        pack(m, self.width)
    }

    fn decode(&self, code: [u32; 4]) -> [u32; 4] {
        if self.width >= 4 {
            let (low, high) = nibbles(code[0]);
            if self.width > 4 {
                let (a, b) = upper(code, self.width);
                [low + (a << 5), high + (b << 5), 0_u32, 0_u32]
            } else {
                [low, high, 0_u32, 0_u32]
            }
        } else {
            let (a, b) = upper(code, self.width);
            let (low, high) = lanes(a, b);
            [low, high, 0_u32, 0_u32]
        }
    }

    /// The parity folds across the words that hold lowest bits.
    fn decode4(&self, w: [u32; 8]) -> [u32; 8] {
        let mut out = unpack4(w, self.width, 1);
        let (x, last) = if self.width >= 4 { (w[0] ^ w[1] ^ w[2] ^ w[3], w[3] >> 4) } else { (folded(w[0] ^ w[1], 2), w[1] >> 6) };
        let x = folded(x, 4);
        let coset = last & 0x0101_0101_u32;
        for i in 0..7 {
            out[i] = out[i] | coset;
        }
        // Flipping twice the coset's bit as well turns the slot of the coset into the implied bit.
        out[7] = (out[7] ^ ((x & 0x0101_0101_u32) << 1)) | coset;
        out
    }

    fn scale(&self, side: [f32; 2]) -> f32 {
        side[0] * 0.5_f32
    }
}
