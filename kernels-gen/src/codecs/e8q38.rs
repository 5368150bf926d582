//! E8 points with 77 levels a coordinate in 51 bits a block, f16 norm and f16 maximum a vector.
//!
//! Digits `d = v + 38` (integers) or `v - 1/2 + 38` (half integers) have an even sum, so the lowest bit of the last one is
//! implied: stored is that bit plus the coset, and the sum of all lowest bits then is the coset. How digits lie in
//! the code: see `fives`.

use kernel_dsl::codec;
use kernel_dsl::math::fmax;

use super::e8q::{below, scaled};
use super::fives::{bytes_of, doubled, folded, pack51, upper51, words_of};
use super::lattice::nearest_even;
use crate::codec::{Codec, Spec};

#[derive(Debug)]
pub struct E8Q38;

/// See `nearest_even`.
const SPAN: f32 = below(76);

#[codec]
impl Codec for E8Q38 {
    fn name(&self) -> String {
        "e8q38".into()
    }

    fn spec(&self) -> Spec {
        Spec { sides: 2, unit: true, bytewise: true, ..Spec::integers(51, 152) }
    }

    fn side(&self, norm: f32, top: f32) -> [f32; 2] {
        let eps = 1.192_092_9e-7_f32;
        [fmax(norm, eps), fmax(top, eps)]
    }

    fn encode(&self, y: [f32; 8], side: [f32; 2]) -> [u32; 4] {
        let (found, coset) = nearest_even(scaled(y, side[1], 38.0_f32), 38.0_f32, SPAN, 0.013_157_895_f32);
        let mut d = found;
        d[7] = d[7] ^ coset;
        pack51(d)
    }

    fn decode(&self, code: [u32; 4]) -> [u32; 4] {
        words_of(self.decode4(bytes_of(code)))
    }

    fn decode4(&self, w: [u32; 8]) -> [u32; 8] {
        let coset = folded(w[0] ^ w[1] ^ w[2] ^ w[3]) & 0x0101_0101_u32;
        let upper = upper51(w);
        let mut out = [0_u32; 8];
        for i in 0..8 {
            out[i] = if i < 7 { doubled(upper, w, i) | coset } else { doubled(upper, w, i) ^ coset.wrapping_mul(3_u32) };
        }
        out
    }

    fn scale(&self, side: [f32; 2]) -> f32 {
        (side[0] * side[1]) * 0.013_157_895_f32
    }
}
