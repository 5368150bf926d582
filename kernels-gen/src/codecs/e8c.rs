//! E8 in exactly w bits a coordinate on calibrated coordinates, `e8c1` to `e8c7`: a band of a calibrated codec.
//!
//! The rows come in a basis in which every coordinate of a band has the same spread and one step suits them all, so
//! there is no rotation here. A row's only side value is a scale, one of eight around 1. Its squared error is nearly
//! `8 g s^2` a block plus what coordinates lie outside the box, squared: convex in the scale s, so its least value is
//! found in three steps by the sign of its slope, without coding anything. All eight tried lose 0.6 % less.
//! A point is `m - 2^(w-1) + c/2 + 1/4`: the quarter centres the box, which matters most for w = 1.

use kernel_dsl::codec;
use kernel_dsl::math::fmax;

use super::e8word::{lanes_of, lanes4_of, raised, raised_lanes4_of, word_of};
use super::fractions::{middle, reach};
use crate::codec::{Codec, Spec};

/// Mean squared error of a block of E8 inside the box, at scale 1.
const INSIDE: f32 = 8.0 * 0.0717;

/// Of half the box, as `pull` counts it: the points of a coset end a little before it does. Where the box is wide, a scale
/// too small costs more than one too large: hence 2 % less.
const MARGIN: f32 = 0.4;

#[derive(Debug)]
pub struct E8C {
    width: usize,
    /// See `nearest_by_bytes`.
    reach: f32,
    middle: f32,
    inverse: f32,
    /// From where on a coordinate is outside, at scale 1.
    edge: f32,
}

impl E8C {
    /// `width`: 1 to 7 bits a coordinate.
    pub const fn new(width: usize) -> E8C {
        let half = (1 << (width - 1)) as f32;
        E8C { width, reach: reach(width), middle: middle(width), inverse: 256.0 / reach(width), edge: 0.98 * (half - MARGIN) }
    }
}

#[codec]
impl Codec for E8C {
    fn name(&self) -> String {
        format!("e8c{}", self.width)
    }

    fn spec(&self) -> Spec {
        Spec { bytewise: true, raised: raised(self.width), rotate: false, searches: 3, ..Spec::integers(8 * self.width, (2 << self.width) - 1) }
    }

    fn side(&self, _norm: f32, _top: f32) -> [f32; 2] {
        [1.0_f32, 0.0_f32]
    }

    /// Half the slope of the error, turned round.
    fn pull(&self, y: [f32; 8], scale: f32) -> f32 {
        let edge = self.edge * scale;
        let mut outside = 0.0_f32;
        for i in 0..8 {
            outside = outside + fmax(y[i].abs() - edge, 0.0_f32);
        }
        outside.mul_add(self.edge, scale * -INSIDE)
    }

    fn encode(&self, y: [f32; 8], side: [f32; 2]) -> [u32; 4] {
        let inverse = 1.0_f32 / side[0];
        let mut z = [0.0_f32; 8];
        for i in 0..8 {
            z[i] = y[i].mul_add(inverse, -0.25_f32);
        }
        word_of(z, 1.0_f32, self.width, self.reach, self.middle, self.inverse)
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
