//! D4 with 2Q + 1 levels a coordinate, `d4q1` to `d4q255`: KakeyaLattice v1.4, really stored.
//!
//! D4 is the integer points of even sum. Two digits make a number with the parity of their sum, so that of the
//! second pair only `n >> 1` is stored: ceil(4 log2(2Q + 1) - 1) bits for four coordinates, two such codes a block.
//! Points and side values are those of the original, except that the search stays in the box.
//! Source: the KakeyaLattice repository.

use kernel_dsl::math::{dot4, fmax};
use kernel_dsl::{codec, device};

use super::d4::{nearest_d4, search_d4};
use super::e8q::{below, scaled};
use super::radix::{Radix, bits_at, lane_words, put_bits};
use crate::codec::{Codec, Lane, Spec};

#[derive(Debug)]
pub struct D4Q {
    q: f32,
    levels: u32,
    radix: u32,
    split: usize,
    field: usize,
    bits: usize,
    /// A lane in units of the norm times the maximum.
    unit: f32,
    wide: bool,
    /// Digits are no bytes.
    large: bool,
    /// See `nearest_d4`.
    span: f32,
}

impl D4Q {
    /// `q`: 1 to 255 levels on each side of zero.
    pub const fn new(q: usize) -> D4Q {
        let pairs = (2 * q as u64 + 1) * (2 * q as u64 + 1);
        let r = Radix::of(&[pairs, pairs.div_ceil(2)]);
        let unit = (1.0 / q as f64) as f32;
        D4Q { q: q as f32, levels: 2 * q as u32 + 1, radix: r.radix, split: r.split, field: r.field, bits: r.bits, unit, wide: q > 127, large: q > 127, span: below(2 * q) }
    }
}

/// Pairs of digits of the nearest point as numbers.
#[device]
fn pairs_of(z: [f32; 4], q: f32, levels: u32, large: bool, span: f32, inv: f32) -> (u32, u32) {
    if !large {
        let d = nearest_d4(z, q, span, inv);
        (dot4(d, levels | 256_u32), dot4(d, (levels | 256_u32) << 16))
    } else {
        let p = search_d4(z, q);
        ((p[0] + q) as u32 * levels + (p[1] + q) as u32, (p[2] + q) as u32 * levels + (p[3] + q) as u32)
    }
}

#[codec]
impl Codec for D4Q {
    fn name(&self) -> String {
        format!("d4q{}", self.q)
    }

    fn spec(&self) -> Spec {
        let lane = if self.wide { Lane::U16 } else { Lane::U8 };
        Spec { sides: 2, unit: true, lane, heavy: true, alone: true, ..Spec::integers(2 * self.bits, 2 * self.q as i32) }
    }

    fn side(&self, norm: f32, top: f32) -> [f32; 2] {
        let eps = 1.192_092_9e-7_f32;
        [fmax(norm, eps), fmax(top, eps)]
    }

    fn encode(&self, y: [f32; 8], side: [f32; 2]) -> [u32; 4] {
        let scaled = scaled(y, side[1], self.q);
        let mut code = [0_u32; 4];
        for half in 0..2 {
            let mut z = [0.0_f32; 4];
            for i in 0..4 {
                z[i] = scaled[4 * half + i];
            }
            // The digits sum to 4 Q + an even number: even.
            let (a, last) = pairs_of(z, self.q, self.levels, self.large, self.span, self.unit * 0.5_f32);
            let b = last >> 1;
            let field = (b >> self.split) * self.radix + (a >> self.split);
            let at = half * self.bits;
            code = put_bits(code, field, at, self.field);
            if self.split > 0 {
                let mask = (1_u32 << self.split) - 1_u32;
                code = put_bits(code, a & mask, at + self.field, self.split);
                code = put_bits(code, b & mask, at + self.field + self.split, self.split);
            }
        }
        code
    }

    fn decode(&self, code: [u32; 4]) -> [u32; 4] {
        let mut lanes = [0_u32; 8];
        for half in 0..2 {
            let at = half * self.bits;
            let field = bits_at(code, at, self.field);
            let mut high = field / self.radix;
            let mut low = field - high * self.radix;
            if self.split > 0 {
                low = (low << self.split) | bits_at(code, at + self.field, self.split);
                high = (high << self.split) | bits_at(code, at + self.field + self.split, self.split);
            }
            let last = high * 2_u32 + (low & 1_u32);
            let (a, b) = (low / self.levels, last / self.levels);
            lanes[4 * half] = a;
            lanes[4 * half + 1] = low - a * self.levels;
            lanes[4 * half + 2] = b;
            lanes[4 * half + 3] = last - b * self.levels;
        }
        lane_words(lanes, self.wide)
    }

    fn scale(&self, side: [f32; 2]) -> f32 {
        (side[0] * side[1]) * self.unit
    }
}
