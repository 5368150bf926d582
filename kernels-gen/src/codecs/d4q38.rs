//! D4 points with 77 levels a coordinate in 25 bits for four of them, two such codes a block: `d4q38`.
//!
//! As `d4q`, in the layout of `fives`: the lowest bits of the last digits are implied by the others'.

use kernel_dsl::codec;
use kernel_dsl::math::fmax;

use super::d4q::nearest_d4;
use super::e8q::scaled;
use super::fives::{bytes_of, doubled, pack50, upper50, words_of};
use crate::codec::{Codec, Spec};

#[derive(Debug)]
pub struct D4Q38;

#[codec]
impl Codec for D4Q38 {
    fn name(&self) -> String {
        "d4q38".into()
    }

    fn spec(&self) -> Spec {
        Spec { sides: 2, unit: true, bytewise: true, raised: [1; 8], ..Spec::integers(50, 76) }
    }

    fn side(&self, norm: f32, top: f32) -> [f32; 2] {
        let eps = 1.192_092_9e-7_f32;
        [fmax(norm, eps), fmax(top, eps)]
    }

    fn encode(&self, y: [f32; 8], side: [f32; 2]) -> [u32; 4] {
        let scaled = scaled(y, side[1], 38.0_f32);
        let mut d = [0_u32; 8];
        for half in 0..2 {
            let p = nearest_d4([scaled[4 * half], scaled[4 * half + 1], scaled[4 * half + 2], scaled[4 * half + 3]], 38.0_f32);
            for i in 0..4 {
                d[4 * half + i] = (p[i] + 38.0_f32) as u32;
            }
        }
        pack50(d)
    }

    fn decode(&self, code: [u32; 4]) -> [u32; 4] {
        words_of(self.decode4(bytes_of(code)))
    }

    fn decode4(&self, w: [u32; 8]) -> [u32; 8] {
        let high = self.raised4(w);
        let mut out = [0_u32; 8];
        for i in 0..8 {
            out[i] = (high[i] >> 1) & 0x7f7f_7f7f_u32;
        }
        out
    }

    fn raised4(&self, w: [u32; 8]) -> [u32; 8] {
        // Digits of even sum: the lowest bit of the fourth is that of the sum of the others.
        let odd = w[0] ^ w[1] ^ w[2];
        let upper = upper50(w);
        let mut own = w;
        own[3] = (w[3] & 0xeeee_eeee_u32) | (odd & 0x1111_1111_u32);
        let mut out = [0_u32; 8];
        for i in 0..8 {
            out[i] = doubled(upper, own, i);
        }
        out
    }

    fn scale(&self, side: [f32; 2]) -> f32 {
        (side[0] * side[1]) * 0.026_315_79_f32
    }
}
