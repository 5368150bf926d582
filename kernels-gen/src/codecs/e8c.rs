//! E8 in exactly w bits a coordinate on calibrated coordinates, `e8c1` to `e8c7`: a band of a calibrated codec.
//!
//! The rows come in a basis in which every coordinate of a band has the same spread and one step suits them all, so
//! there is no rotation here. A row's only side value is a scale, one of eight around 1: the encoder tries
//! them all over all bands and keeps the one with the least squared error, the first one of equals.
//! A point is `m - 2^(w-1) + c/2 + 1/4`: the quarter centres the box, which matters most for w = 1.

use kernel_dsl::codec;

use super::digits::heights;
use super::e8word::{lanes_of, lanes4_of, raised_lanes4_of, word_of};
use crate::codec::{Codec, Spec};

/// Scales that the encoder tries.
pub const TRIES: usize = 8;

#[derive(Debug)]
pub struct E8C {
    width: usize,
    /// The lowest integer coordinate, the width of the box, and its reciprocal.
    low: f32,
    span: f32,
    inv: f32,
}

impl E8C {
    /// `width`: 1 to 7 bits a coordinate.
    pub const fn new(width: usize) -> E8C {
        let half = (1 << (width - 1)) as f32;
        E8C { width, low: -half, span: 2.0 * half - 1.0, inv: 1.0 / (2.0 * half - 1.0) }
    }
}

#[codec]
impl Codec for E8C {
    fn name(&self) -> String {
        format!("e8c{}", self.width)
    }

    fn spec(&self) -> Spec {
        Spec { bytewise: true, raised: heights(self.width, 1), rotate: false, tries: TRIES, ..Spec::integers(8 * self.width, (2 << self.width) - 1) }
    }

    fn side(&self, _norm: f32, _top: f32) -> [f32; 2] {
        [1.0_f32, 0.0_f32]
    }

    /// The scale `2^(0.6 (2t/7 - 1))`, rounded to f16.
    fn trial(&self, _norm: f32, _top: f32, t: usize) -> [f32; 2] {
        let scales =
            [0.65966797_f32, 0.7431641_f32, 0.83691406_f32, 0.9423828_f32, 1.0615234_f32, 1.1953125_f32, 1.3457031_f32, 1.515625_f32];
        [scales[t], 0.0_f32]
    }

    fn encode(&self, y: [f32; 8], side: [f32; 2]) -> [u32; 4] {
        let inverse = 1.0_f32 / side[0];
        let mut z = [0.0_f32; 8];
        for i in 0..8 {
            z[i] = y[i].mul_add(inverse, -0.25_f32);
        }
        word_of(z, self.low, self.span, self.inv, self.width)
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
