//! E8 in exactly w bits a dimension, `e8w2` to `e8w7`: the gain of the lattice at the cost of integers.
//!
//! The step is `f * top / (2^(w-1) - 1/2)`, so that the outermost coordinates are clipped. Relative squared error on
//! Gaussian rows at w = 4, D = 128: f = 0.80 9.76e-3, 0.85 8.97e-3, 0.875 8.87e-3, 0.90 8.95e-3, 1.00 1.04e-2
//! (int4: 1.08e-2). The best f at w = 4 is 0.925 at D = 64 and 0.825 at D = 256.

use kernel_dsl::codec;

use super::e8word::{lanes_of, lanes4_of, raised, raised_lanes4_of, word_of};
use super::fractions::{middle, reach};
use crate::codec::{Codec, Spec};

/// Steps that `e8wW_tried` tries.
pub const TRIES: usize = 3;

#[derive(Debug)]
pub struct E8W {
    width: usize,
    tries: usize,
    /// The steps that are tried over the row's largest magnitude.
    steps: [f32; TRIES],
    /// See `nearest_by_bytes`.
    reach: f32,
    middle: f32,
    inverse: f32,
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
        E8W { width, tries, steps, reach: reach(width), middle: middle(width), inverse: 256.0 / reach(width) }
    }
}

#[codec]
impl Codec for E8W {
    fn name(&self) -> String {
        format!("e8w{}{}", self.width, if self.tries > 1 { "_tried" } else { "" })
    }

    fn spec(&self) -> Spec {
        Spec { apart: self.tries == 1, bytewise: true, raised: raised(self.width), tries: self.tries, ..Spec::integers(8 * self.width, 2 << self.width) }
    }

    fn side(&self, _norm: f32, top: f32) -> [f32; 2] {
        [top * self.steps[0], 0.0_f32]
    }

    fn trial(&self, _norm: f32, top: f32, t: usize) -> [f32; 2] {
        [top * self.steps[t], 0.0_f32]
    }

    fn encode(&self, y: [f32; 8], side: [f32; 2]) -> [u32; 4] {
        self.encode_over(y, side, 1.0_f32)
    }

    fn encode_over(&self, y: [f32; 8], side: [f32; 2], over: f32) -> [u32; 4] {
        let by = if side[0] > 0.0_f32 { 1.0_f32 / (side[0] * over) } else { 0.0_f32 };
        word_of(y, by, self.width, self.reach, self.middle, self.inverse)
    }

    fn decode(&self, code: [u32; 4]) -> [u32; 4] {
        lanes_of(code, self.width)
    }

    fn decode4(&self, w: [u32; 8]) -> [u32; 8] {
        lanes4_of(w, self.width)
    }

    fn raised4(&self, w: [u32; 8]) -> [u32; 8] {
        raised_lanes4_of(w, self.width)
    }

    fn scale(&self, side: [f32; 2]) -> f32 {
        side[0] * 0.5_f32
    }
}
