//! E8 with 2Q + 1 levels a coordinate for those Q whose counted width can be decoded four codes at a time:
//! `e8q7`, `e8q10`, `e8q15`, `e8q38` and others. Side values are those of `e8q`, and points but for near ties: see `fractions`.
//!
//! A digit is `2^low * h + l`. The parts l lie as in `e8w`; the parts h, below 5 or 11, as in `fives` and `elevens`; or there
//! are none. The digits' sum being even, the lowest bit of the last one is stored plus the coset, as in `e8w`.

use kernel_dsl::codec;
use kernel_dsl::math::fmax;

use super::digits::{heights, packed_low, unpack4};
use super::e8q::per_step;
use super::e8word::{cosets4, raised_lanes4_of, with_coset};
use super::fractions::{between, nearest_between};
use super::quads::{bytes_of, lowered4, rest_of, words_of};
use super::radix::put_bits;
use super::{elevens, fives};
use crate::codec::{Codec, Spec};

#[derive(Debug)]
pub struct E8QBytes {
    q: usize,
    /// Bits of l, and the number of values of h: 1, 5 or 11.
    low: usize,
    radix: usize,
    bits: usize,
    /// Bits by which lanes are decoded higher where they have an h.
    up: usize,
    /// A lane in units of the norm times the maximum.
    unit: f32,
    /// See `nearest_between`.
    box_of: [f32; 3],
}

impl E8QBytes {
    /// If digits below 2q + 1 fit one of the layouts in the counted bits.
    pub fn of(q: usize) -> Option<E8QBytes> {
        let levels = 2 * q as u128 + 1;
        let counted = 128 - (levels.pow(8) - 1).leading_zeros() as usize;
        let fits = |(radix, low, bits): (usize, usize, usize)| (radix << low >= levels as usize && bits == counted).then_some((radix, low));
        let whole = (4..8).map(|low| (1, low, 8 * low));
        let (fives, elevens) = ((1..5).map(|low| (5, low, 8 * low + 19)), (1..5).map(|low| (11, low, 8 * low + 28)));
        let (radix, low) = whole.chain(fives).chain(elevens).filter(|p| p.2 < 64).find_map(fits)?;
        let up = if radix == 5 { 4 - low } else { 0 };
        (q < 64).then_some(E8QBytes { q, low, radix, bits: counted, up, unit: (0.5 / q as f64) as f32, box_of: between(q) })
    }
}

#[codec]
impl Codec for E8QBytes {
    fn name(&self) -> String {
        format!("e8q{}", self.q)
    }

    fn spec(&self) -> Spec {
        let raised = if self.radix > 1 { [self.up; 8] } else { heights(self.low, 1) };
        Spec { sides: 2, unit: true, apart: true, bytewise: true, raised, ..Spec::integers(self.bits, 4 * self.q as i32) }
    }

    fn side(&self, norm: f32, top: f32) -> [f32; 2] {
        let eps = 1.192_092_9e-7_f32;
        [fmax(norm, eps), fmax(top, eps)]
    }

    fn encode(&self, y: [f32; 8], side: [f32; 2]) -> [u32; 4] {
        self.encode_over(y, side, 1.0_f32)
    }

    fn encode_over(&self, y: [f32; 8], side: [f32; 2], over: f32) -> [u32; 4] {
        let (found, coset) = nearest_between(y, per_step(side[1], over, self.q as f32), self.q, self.box_of);
        let d = [found[0], found[1] ^ (coset & 0x0100_0000_u32)];
        let lows = ((1_u32 << self.low) - 1_u32) * 0x0101_0101_u32;
        let code = packed_low(d[0], d[1], self.low);
        let high = [d[0] & !lows, d[1] & !lows];
        if self.radix == 5 {
            put_bits(code, fives::pack19(high, self.low), 8 * self.low, 19)
        } else if self.radix == 11 {
            put_bits(code, elevens::pack28([high[0] >> self.low, high[1] >> self.low]), 8 * self.low, 28)
        } else {
            code
        }
    }

    fn decode(&self, code: [u32; 4]) -> [u32; 4] {
        words_of(self.decode4(bytes_of(code)))
    }

    fn decode4(&self, w: [u32; 8]) -> [u32; 8] {
        lowered4(self.raised4(w), self.spec().raised)
    }

    fn raised4(&self, w: [u32; 8]) -> [u32; 8] {
        if self.radix == 1 {
            raised_lanes4_of(w, self.low)
        } else {
            let rest = rest_of(w, self.low);
            let digits = unpack4(w, self.low, self.up + 1);
            let coset = cosets4(w, self.low);
            let upper = if self.radix == 5 { fives::unpack19(rest) } else { elevens::unpack28(rest, rest[3] << 4) };
            let mut out = [0_u32; 8];
            for i in 0..8 {
                let low = with_coset(digits, coset, i, self.up);
                out[i] = if self.radix == 5 { (upper[i] & 0xe0e0_e0e0_u32) | low } else { upper[i].wrapping_mul(2_u32 << self.low).wrapping_add(low) };
            }
            out
        }
    }

    fn scale(&self, side: [f32; 2]) -> f32 {
        (side[0] * side[1]) * self.unit
    }
}
