//! Scalar levels on calibrated coordinates, each coordinate of a block with its own width: `intc6442` has 6 bits for the
//! quarter of largest energies, 4, 4 and 2 for the others.
//!
//! A calibrated codec's bands are dealt out so that every block of eight has two coordinates of each: one codec serves the
//! whole row, and unpacking costs a mask a digit, as for one width. Levels are `s (m - (2^w - 1) / 2)` under one scale s a
//! row, one of eight around 1; steps are folded into the maps. A row's squared error is nearly `s^2 / 12` a coordinate plus what
//! lies outside the box, squared: convex in s, so its least value is found in three steps by the sign of its slope.

use kernel_dsl::codec;
use kernel_dsl::math::{farther, saturate};

use super::places::Places;
use crate::codec::{Codec, Spec};

/// Mean squared error of a block of levels inside the box, at scale 1.
const INSIDE: f32 = 8.0 / 12.0;

/// From where on a coordinate is outside, over the distance of its outermost levels: a little within them, for where the box
/// is wide a scale too small costs more than one too large.
const EDGE: f32 = 0.49;

/// The bits of 1.5 * 2^23: a sum with it rounds to an integer, ties to even, which then stands in the low bits.
const MAGIC_BITS: u32 = 0x4b40_0000;

#[derive(Debug)]
pub struct IntC {
    name: String,
    places: Places,
    main: [usize; 8],
    byte: [usize; 8],
    bit: [usize; 8],
    parts: usize,
    part_of: [usize; 8],
    part_bits: [usize; 8],
    part_from: [usize; 8],
    part_byte: [usize; 8],
    part_bit: [usize; 8],
    raised: [usize; 8],
    /// Whether a digit is cut.
    cut: [usize; 8],
    /// What a code starts from, so that digits may be added with the bits that stand above them.
    start: [u32; 2],
    /// The distance of a coordinate's outermost levels, its reciprocal, and from where on it is outside, at scale 1.
    span: [f32; 8],
    inv: [f32; 8],
    edge: [f32; 8],
    /// What a block pulls at scale 1 if all its coordinates lie at their edges.
    inside: f32,
}

impl IntC {
    /// Widths of equally many coordinates each, largest energies first; None where a block fills no bytes.
    pub fn of(widths: &[usize]) -> Option<IntC> {
        let p = Places::of(widths)?;
        let span = p.widths.map(|w| ((1 << w) - 1) as f32);
        let name = format!("intc{}", widths.iter().map(usize::to_string).collect::<String>());
        let Places { main, byte, bit, parts, part_of, part_bits, part_from, part_byte, part_bit, raised, .. } = p;
        let (inv, edge) = (span.map(|s| 1.0 / s), span.map(|s| EDGE * s));
        let inside = edge.iter().fold(INSIDE, |sum, e| e.mul_add(*e, sum));
        let cut: [usize; 8] = std::array::from_fn(|i| usize::from(part_of[..parts].contains(&i)));
        let mut start = [0_u32; 2];
        for i in (0..8).filter(|i| cut[*i] == 0) {
            start[byte[i] / 4] = start[byte[i] / 4].wrapping_sub(MAGIC_BITS << (byte[i] % 4 * 8 + bit[i]));
        }
        Some(IntC { name, places: p, main, byte, bit, parts, part_of, part_bits, part_from, part_byte, part_bit, raised, cut, start, span, inv, edge, inside })
    }
}

#[codec]
impl Codec for IntC {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn spec(&self) -> Spec {
        let halves = self.places.widths.map(|w| w - 1);
        Spec { bytewise: true, raised: self.raised, rotate: false, searches: 3, mixed: true, halves, ..Spec::integers(self.places.bits(), 1) }
    }

    fn side(&self, _norm: f32, _top: f32) -> [f32; 2] {
        [1.0_f32, 0.0_f32]
    }

    /// Half the slope of the error, turned round: of each coordinate what lies beyond its edge, times the edge.
    fn pull(&self, y: [f32; 8], scale: f32) -> f32 {
        let mut pull = scale * -self.inside;
        for i in 0..8 {
            pull = farther(scale * self.edge[i], y[i]).mul_add(self.edge[i], pull);
        }
        pull
    }

    fn encode(&self, y: [f32; 8], side: [f32; 2]) -> [u32; 4] {
        let inverse = 1.0_f32 / side[0];
        let mut code = [self.start[0], self.start[1], 0_u32, 0_u32];
        let mut m = [0_u32; 8];
        for i in 0..8 {
            // The box is [0, 1].
            m[i] = saturate(y[i].mul_add(inverse * self.inv[i], 0.5_f32)).mul_add(self.span[i], 12_582_912.0_f32).to_bits();
            let digit = if self.cut[i] == 1 { m[i] & ((1_u32 << self.main[i]) - 1_u32) } else { m[i] };
            code[self.byte[i] / 4] = code[self.byte[i] / 4].wrapping_add(digit << (self.byte[i] % 4 * 8 + self.bit[i]));
        }
        for p in 0..self.parts {
            let part = (m[self.part_of[p]] >> self.part_from[p]) & ((1_u32 << self.part_bits[p]) - 1_u32);
            code[self.part_byte[p] / 4] = code[self.part_byte[p] / 4].wrapping_add(part << (self.part_byte[p] % 4 * 8 + self.part_bit[p]));
        }
        code
    }

    fn decode(&self, code: [u32; 4]) -> [u32; 4] {
        let mut m = [0_u32; 8];
        for i in 0..8 {
            m[i] = (code[self.byte[i] / 4] >> (self.byte[i] % 4 * 8 + self.bit[i])) & ((1_u32 << self.main[i]) - 1_u32);
        }
        for p in 0..self.parts {
            let part = (code[self.part_byte[p] / 4] >> (self.part_byte[p] % 4 * 8 + self.part_bit[p])) & ((1_u32 << self.part_bits[p]) - 1_u32);
            m[self.part_of[p]] = m[self.part_of[p]] | (part << self.part_from[p]);
        }
        [m[0] | (m[1] << 8) | (m[2] << 16) | (m[3] << 24), m[4] | (m[5] << 8) | (m[6] << 16) | (m[7] << 24), 0_u32, 0_u32]
    }

    fn decode4(&self, w: [u32; 8]) -> [u32; 8] {
        let mut out = [0_u32; 8];
        for i in 0..8 {
            out[i] = (w[self.byte[i]] >> self.bit[i]) & (((1_u32 << self.main[i]) - 1_u32) * 0x0101_0101_u32);
        }
        for p in 0..self.parts {
            let part = (w[self.part_byte[p]] >> self.part_bit[p]) & (((1_u32 << self.part_bits[p]) - 1_u32) * 0x0101_0101_u32);
            out[self.part_of[p]] = out[self.part_of[p]] | (part << self.part_from[p]);
        }
        out
    }

    fn raised4(&self, w: [u32; 8]) -> [u32; 8] {
        let mut out = [0_u32; 8];
        for i in 0..8 {
            // Never left: a digit stands at least as high as it is wanted, or is cut and wanted at 0.
            out[i] = (w[self.byte[i]] >> (self.bit[i] - self.raised[i])) & ((((1_u32 << self.main[i]) - 1_u32) << self.raised[i]) * 0x0101_0101_u32);
        }
        for p in 0..self.parts {
            let part = (w[self.part_byte[p]] >> self.part_bit[p]) & (((1_u32 << self.part_bits[p]) - 1_u32) * 0x0101_0101_u32);
            out[self.part_of[p]] = out[self.part_of[p]] | (part << self.part_from[p]);
        }
        out
    }

    fn scale(&self, side: [f32; 2]) -> f32 {
        side[0]
    }
}
