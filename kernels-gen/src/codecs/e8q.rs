//! E8 with 2Q + 1 levels a coordinate, `e8q1` to `e8q255`: KakeyaLattice v1.5, really stored.
//!
//! Points and side values are those of the original, except that the search stays in the box. Digits
//! `d = v + Q` (integers) or `v - 1/2 + Q` (half integers) have an even sum. Two digits make a number `p` below
//! (2Q + 1)^2 with the parity of their sum; the parity of the last pair is implied, and its lowest bit holds the
//! coset. The four pairs take ceil(8 log2(2Q + 1)) bits (one more at Q = 139). `e8q38` has a faster layout of its own.
//! Source: the KakeyaLattice repository.

use kernel_dsl::math::{dot4, fmax};
use kernel_dsl::{codec, device};

use super::lattice::{nearest_even, search_e8};
use super::radix::{Radix, bits_at, lane_words, put_bits};
use crate::codec::{Codec, Lane, Spec};

#[derive(Debug)]
pub struct E8Q {
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
    /// See `nearest_even`.
    span: f32,
    inv: f32,
}

impl E8Q {
    /// `q`: 1 to 255 levels on each side of zero.
    pub const fn new(q: usize) -> E8Q {
        let levels = 2 * q as u64 + 1;
        let r = Radix::of(&[levels * levels; 4]);
        let unit = (0.5 / q as f64) as f32;
        E8Q { q: q as f32, levels: levels as u32, radix: r.radix, split: r.split, field: r.field, bits: r.bits, unit, wide: q > 63, large: q > 127, span: below(2 * q), inv: unit }
    }
}

/// The f32 before `n`.
pub const fn below(n: usize) -> f32 {
    f32::from_bits((n as f32).to_bits() - 1)
}

/// What turns coordinates `y / over` into steps of `top / q`. A maximum that f16 hardly resolves, that of a row whose norm
/// is far below the smallest one stored, gives zeros.
#[device]
pub fn per_step(top: f32, over: f32, q: f32) -> f32 {
    if top >= 6.2e-5_f32 { q / (top * over) } else { 0.0_f32 }
}

/// Coordinates in such steps.
#[device]
pub fn scaled(y: [f32; 8], top: f32, q: f32) -> [f32; 8] {
    let inverse = per_step(top, 1.0_f32, q);
    let mut z = [0.0_f32; 8];
    for i in 0..8 {
        z[i] = y[i] * inverse;
    }
    z
}

/// Pairs of digits of the nearest point as numbers, and its coset.
#[device]
fn pairs_of(z: [f32; 8], q: f32, levels: u32, large: bool, span: f32, inv: f32) -> ([u32; 4], u32) {
    if !large {
        let (d, coset) = nearest_even(z, q, span, inv);
        let mut pairs = [0_u32; 4];
        for i in 0..4 {
            pairs[i] = dot4(d[i / 2], (levels | 256_u32) << (16 * (i % 2)));
        }
        (pairs, coset)
    } else {
        let (d, coset) = search_e8(z, -q, q, q - 1.0_f32);
        let mut pairs = [0_u32; 4];
        for i in 0..4 {
            pairs[i] = d[2 * i] * levels + d[2 * i + 1];
        }
        (pairs, coset)
    }
}

#[codec]
impl Codec for E8Q {
    fn name(&self) -> String {
        format!("e8q{}", self.q)
    }

    fn spec(&self) -> Spec {
        let lane = if self.wide { Lane::U16 } else { Lane::U8 };
        Spec { sides: 2, unit: true, lane, heavy: true, alone: true, ..Spec::integers(self.bits, 4 * self.q as i32) }
    }

    fn side(&self, norm: f32, top: f32) -> [f32; 2] {
        let eps = 1.192_092_9e-7_f32;
        [fmax(norm, eps), fmax(top, eps)]
    }

    fn encode(&self, y: [f32; 8], side: [f32; 2]) -> [u32; 4] {
        let z = scaled(y, side[1], self.q);
        let (pairs, coset) = pairs_of(z, self.q, self.levels, self.large, self.span, self.inv);
        let mut code = [0_u32; 4];
        let mut field = 0_u32;
        for k in 0..4 {
            let i = 3 - k;
            let pair = if i == 3 { (pairs[i] & 0xffff_fffe_u32) | coset } else { pairs[i] };
            field = field * self.radix + (pair >> self.split);
            if self.split > 0 {
                code = put_bits(code, pair & ((1_u32 << self.split) - 1_u32), self.field + i * self.split, self.split);
            }
        }
        code[0] = code[0] | field;
        code
    }

    fn decode(&self, code: [u32; 4]) -> [u32; 4] {
        let mut field = bits_at(code, 0, self.field);
        let mut pairs = [0_u32; 4];
        let mut parity = 0_u32;
        for i in 0..4 {
            let rest = field / self.radix;
            pairs[i] = (field - rest * self.radix) << self.split;
            if self.split > 0 {
                pairs[i] = pairs[i] | bits_at(code, self.field + i * self.split, self.split);
            }
            field = rest;
        }
        for i in 0..3 {
            parity = parity ^ pairs[i];
        }
        let coset = pairs[3] & 1_u32;
        pairs[3] = (pairs[3] & 0xffff_fffe_u32) | (parity & 1_u32);
        let mut lanes = [0_u32; 8];
        for i in 0..4 {
            let high = pairs[i] / self.levels;
            lanes[2 * i] = high * 2_u32 + coset;
            lanes[2 * i + 1] = (pairs[i] - high * self.levels) * 2_u32 + coset;
        }
        lane_words(lanes, self.wide)
    }

    fn scale(&self, side: [f32; 2]) -> f32 {
        (side[0] * side[1]) * self.unit
    }
}
