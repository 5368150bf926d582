//! D4 with 2Q + 1 levels a coordinate for those Q whose counted width can be decoded four codes at a time: `d4q10`,
//! `d4q19`, `d4q38` and others. Points and side values are those of `d4q`.
//!
//! A digit is `2^low * h + l`, laid out as in `e8q_bytes`. Four digits have an even sum: the lowest bit of the last one is
//! implied, and its place holds a bit of the parts h.

use kernel_dsl::codec;
use kernel_dsl::math::fmax;

use super::d4::nearest_d4;
use super::digits::{packed_low, unpack4};
use super::e8q::{below, per_step};
use super::quads::{bytes_of, lowered4, rest_of, words_of};
use super::radix::put_bits;
use super::{elevens, fives};
use crate::codec::{Codec, Spec};

#[derive(Debug)]
pub struct D4QBytes {
    q: f32,
    /// Bits of l, and the number of values of h: 5 or 11.
    low: usize,
    radix: usize,
    bits: usize,
    /// Bits by which lanes are decoded higher.
    up: usize,
    /// A lane in units of the norm times the maximum.
    unit: f32,
    /// See `nearest_d4`.
    span: f32,
}

impl D4QBytes {
    /// If digits below 2q + 1 fit one of the layouts in the counted bits.
    pub fn of(q: usize) -> Option<D4QBytes> {
        let levels = 2 * q as u64 + 1;
        let counted = 2 * (64 - (levels.pow(4).div_ceil(2) - 1).leading_zeros() as usize);
        let fits = |(radix, low, bits): (usize, usize, usize)| (radix << low >= levels as usize && bits == counted).then_some((radix, low));
        let (fives, elevens) = ((1..5).map(|low| (5, low, 8 * low + 18)), (1..5).map(|low| (11, low, 8 * low + 26)));
        let (radix, low) = fives.chain(elevens).filter(|p| p.2 < 64).find_map(fits)?;
        let up = if radix == 5 { 5 - low } else { 0 };
        Some(D4QBytes { q: q as f32, low, radix, bits: counted, up, unit: (1.0 / q as f64) as f32, span: below(2 * q) })
    }
}

#[codec]
impl Codec for D4QBytes {
    fn name(&self) -> String {
        format!("d4q{}", self.q)
    }

    fn spec(&self) -> Spec {
        Spec { sides: 2, unit: true, apart: true, bytewise: true, raised: [self.up; 8], ..Spec::integers(self.bits, 2 * self.q as i32) }
    }

    fn side(&self, norm: f32, top: f32) -> [f32; 2] {
        let eps = 1.192_092_9e-7_f32;
        [fmax(norm, eps), fmax(top, eps)]
    }

    fn encode(&self, y: [f32; 8], side: [f32; 2]) -> [u32; 4] {
        self.encode_over(y, side, 1.0_f32)
    }

    fn encode_over(&self, y: [f32; 8], side: [f32; 2], over: f32) -> [u32; 4] {
        // Steps to parts of the box as well: the search asks for no more.
        let by = per_step(side[1], over, self.q) * (self.unit * 0.5_f32);
        let mut d = [0_u32; 2];
        for half in 0..2 {
            d[half] = nearest_d4([y[4 * half], y[4 * half + 1], y[4 * half + 2], y[4 * half + 3]], self.q, self.span, by);
        }
        let lows = ((1_u32 << self.low) - 1_u32) * 0x0101_0101_u32;
        let high = [d[0] & !lows, d[1] & !lows];
        let (rest, kept) = if self.radix == 5 {
            fives::pack20(high, self.low)
        } else {
            let all = elevens::pack28([high[0] >> self.low, high[1] >> self.low]);
            (all & 0x3ff_ffff_u32, [all >> 2, all >> 3])
        };
        let last = 0x0100_0000_u32;
        let fixed = [(d[0] & !last) | (kept[0] & last), (d[1] & !last) | (kept[1] & last)];
        put_bits(packed_low(fixed[0], fixed[1], self.low), rest, 8 * self.low, self.bits - 8 * self.low)
    }

    fn decode(&self, code: [u32; 4]) -> [u32; 4] {
        words_of(self.decode4(bytes_of(code)))
    }

    fn decode4(&self, w: [u32; 8]) -> [u32; 8] {
        lowered4(self.raised4(w), self.spec().raised)
    }

    fn raised4(&self, w: [u32; 8]) -> [u32; 8] {
        let rest = rest_of(w, self.low);
        let mut digits = unpack4(w, self.low, self.up);
        let ones = 0x0101_0101_u32;
        let kept = ((digits[3] >> self.up) & ones) | (((digits[7] >> self.up) & ones) << 1);
        let lowest = ones << self.up;
        digits[3] = (digits[3] & !lowest) | ((digits[0] ^ digits[1] ^ digits[2]) & lowest);
        digits[7] = (digits[7] & !lowest) | ((digits[4] ^ digits[5] ^ digits[6]) & lowest);
        let upper = if self.radix == 5 { fives::unpack20(rest, kept << 3) } else { elevens::unpack28(rest, (rest[3] << 4) | (kept << 6)) };
        let mut out = [0_u32; 8];
        for i in 0..8 {
            out[i] = if self.radix == 5 { (upper[i] & 0xe0e0_e0e0_u32) | digits[i] } else { upper[i].wrapping_mul(1_u32 << self.low).wrapping_add(digits[i]) };
        }
        out
    }

    fn scale(&self, side: [f32; 2]) -> f32 {
        (side[0] * side[1]) * self.unit
    }
}
