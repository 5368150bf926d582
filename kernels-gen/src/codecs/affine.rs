//! Uniform levels between a vector's least and largest coordinate, 3 or 4 bits, as they are, not rotated: `affine3`, `affine4`.
//!
//! The values of the `turboquant` presets: step `s = max((max - min) / (2^w - 1), 1e-8)`, code `floor((x - min) / s + 1/2)`,
//! coordinate `min + s * code`. Codes are chosen with s and min in f32; f16 of both is what is stored.
//! Source: vLLM's TurboQuant cache.

use kernel_dsl::math::fmax;
use kernel_dsl::{codec, device};

use super::digits::{heights, pack, raised4_of, unpack, unpack4};
use crate::codec::{Codec, Spec};

#[derive(Debug)]
pub struct Affine {
    width: usize,
    /// The largest code, and the one whose lane is called zero.
    top: f32,
    middle: f32,
    /// One over the largest code.
    inverse: f32,
}

/// `x / by`, rounded once, as the remainder is exact; `inverse` is `1 / by`, rounded. Nothing of this may be below the range of normal numbers.
#[device]
pub fn quotient(x: f32, by: f32, inverse: f32) -> f32 {
    let near = x * inverse;
    (-near).mul_add(by, x).mul_add(inverse, near)
}

impl Affine {
    /// `width`: 2 to 8 bits.
    pub const fn new(width: usize) -> Affine {
        let top = ((1 << width) - 1) as f32;
        Affine { width, top, middle: (1 << (width - 1)) as f32, inverse: 1.0 / top }
    }
}

#[codec]
impl Codec for Affine {
    fn name(&self) -> String {
        format!("affine{}", self.width)
    }

    fn spec(&self) -> Spec {
        Spec { sides: 2, affine: true, rotate: false, bytewise: true, raised: heights(self.width, 0), level_bits: self.width, ..Spec::integers(8 * self.width, 1 << self.width) }
    }

    fn side(&self, least: f32, largest: f32) -> [f32; 2] {
        [fmax(quotient(largest - least, self.top, self.inverse), 1e-8_f32), least]
    }

    fn encode(&self, y: [f32; 8], side: [f32; 2]) -> [u32; 4] {
        let inverse = 1.0_f32 / side[0];
        let mut c = [0_u32; 8];
        for i in 0..8 {
            // Never below 0, so truncation is the floor; never above the last code, as `side` takes no step that is too small by more than its rounding.
            c[i] = (quotient(y[i] - side[1], side[0], inverse) + 0.5_f32) as u32;
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

    fn levels(&self, code: [u32; 4]) -> [u32; 8] {
        let (low, high) = unpack(code, self.width);
        let mut c = [0_u32; 8];
        for i in 0..8 {
            c[i] = (if i < 4 { low } else { high } >> (8 * (i % 4))) & 255_u32;
        }
        c
    }

    fn of_levels(&self, levels: [u32; 8]) -> [u32; 4] {
        pack(levels, self.width)
    }

    fn scale(&self, side: [f32; 2]) -> f32 {
        side[0]
    }

    fn offset(&self, side: [f32; 2]) -> f32 {
        self.middle.mul_add(side[0], side[1])
    }
}
