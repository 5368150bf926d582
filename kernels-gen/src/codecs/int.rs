//! Scalar levels of 2 to 8 bits, half way around zero, with one f16 step a vector: `int4`, `int4_plain`, ...
//!
//! Levels are `s * (c - (2^w - 1) / 2)`. At 4 bits and more the largest coordinate overshoots the outermost
//! level by half a step, the same error as anywhere else; below, clipping more of a Gaussian's tail is better.

use kernel_dsl::codec;
use kernel_dsl::math::saturate;

use super::digits::{heights, pack, paired4_of, raised4_of, unpack, unpack4};
use crate::codec::{Codec, Spec};

/// Steps that `intW_tried` tries.
pub const TRIES: usize = 3;

#[derive(Debug)]
pub struct Int {
    width: usize,
    rotate: bool,
    /// The steps that are tried over the row's largest magnitude, and half the distance of the outermost levels in steps.
    steps: [f32; TRIES],
    tries: usize,
    edge: f32,
    /// The reciprocal of the distance of the outermost levels.
    inv: f32,
}

impl Int {
    /// `width`: 2 to 8 bits; `rotate` by the Hadamard matrix first, or code the row as it is.
    pub const fn new(width: usize, rotate: bool) -> Int {
        // Least squared error on rotated rows of 128; rows as they are keep their outliers.
        let clip = match (width, rotate) {
            (2, true) => 0.7,
            (3, true) => 0.84,
            _ => 1.0,
        };
        Int::with(width, rotate, 1, [clip; TRIES])
    }

    /// The best of several steps for each row, `width` 2 to 4: about 4 % less squared error than one.
    pub const fn tried(width: usize) -> Int {
        let clips = match width {
            2 => [0.7, 0.614, 0.798],
            3 => [0.82, 0.745, 0.902],
            _ => [0.94, 0.887, 0.996],
        };
        Int::with(width, true, TRIES, clips)
    }

    /// Steps so that half a step past the outermost level is `clips` of the largest magnitude.
    pub const fn with(width: usize, rotate: bool, tries: usize, clips: [f32; TRIES]) -> Int {
        let half = (1 << (width - 1)) as f32;
        let steps = [clips[0] / half, clips[1] / half, clips[2] / half];
        Int { width, rotate, tries, steps, edge: half - 0.5, inv: 1.0 / (2.0 * half - 1.0) }
    }
}

#[codec]
impl Codec for Int {
    fn name(&self) -> String {
        format!(
            "int{}{}",
            self.width,
            if self.tries > 1 {
                "_tried"
            } else if self.rotate {
                ""
            } else {
                "_plain"
            }
        )
    }

    fn spec(&self) -> Spec {
        Spec { bytewise: true, raised: heights(self.width, 0), paired: self.width == 2, tries: self.tries, rotate: self.rotate, ..Spec::integers(8 * self.width, (1 << self.width) - 1) }
    }

    fn side(&self, _norm: f32, top: f32) -> [f32; 2] {
        [top * self.steps[0], 0.0_f32]
    }

    fn trial(&self, _norm: f32, top: f32, t: usize) -> [f32; 2] {
        [top * self.steps[t], 0.0_f32]
    }

    fn encode(&self, y: [f32; 8], side: [f32; 2]) -> [u32; 4] {
        let inverse = if side[0] > 0.0_f32 { self.inv / side[0] } else { 0.0_f32 };
        let mut c = [0_u32; 8];
        for i in 0..8 {
            // The box is [0, 1]; a sum with 1.5 * 2^23 rounds, ties to even, and has the level in its lowest byte.
            c[i] = saturate(y[i].mul_add(inverse, 0.5_f32)).mul_add(self.edge * 2.0_f32, 12_582_912.0_f32).to_bits();
        }
        pack(c, self.width)
    }

    fn decode(&self, code: [u32; 4]) -> [u32; 4] {
        let (low, high) = unpack(code, self.width);
        [low, high, 0_u32, 0_u32]
    }

    fn decode4(&self, w: [u32; 8]) -> [u32; 8] {
        unpack4(w, self.width, 0)
    }

    fn raised4(&self, w: [u32; 8]) -> [u32; 8] {
        raised4_of(w, self.width, 0)
    }

    fn raised_keys4(&self, w: [u32; 8]) -> [u32; 8] {
        if self.width == 2 { paired4_of(w) } else { raised4_of(w, self.width, 0) }
    }

    fn scale(&self, side: [f32; 2]) -> f32 {
        side[0]
    }
}
