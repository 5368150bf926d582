//! Parts of outputs, left to right, become outputs: eight heads of a token a block.
//!
//! Cost: reads every part once; bound by memory.

use kernel_dsl::prelude::*;

use super::LINE;
use super::finish::settle;
use crate::kernels::softmax::{left_worth, right_worth};
use crate::latent::softmax::inverse_of;

/// Heads of a block.
pub const OWN: usize = 8;

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct JoinMeta {
    /// Of a part.
    pub heads: usize,
}

impl Meta for JoinMeta {
    fn launch(&self) -> Launch {
        Launch { warps: 8, min_blocks: 2 }
    }
}

#[kernel]
pub fn latent_join(
    m: JoinMeta,
    part: &Global<f32>,     // [tokens, heads / m.heads, splits, m.heads, 512]
    stat: &Global<f32>,     // [tokens, heads / m.heads, splits, m.heads, 2]
    sinks: &Global<f32>,    // [heads]
    out: &mut Global<bf16>, // [tokens, heads, 512]
    lse: &mut Global<f32>,  // [tokens, heads]
    heads: i32,
    splits: i32,
) {
    let (token, first) = (block_id(0), block_id(1) * OWN as i32);
    let mut room = shared::<i8>(OWN * 8 * LINE);
    let mut inverses = shared::<f32>(OWN);
    after_previous();
    release_next();
    let own = (token as i64 * (heads / m.heads as i32) as i64 + (first / m.heads as i32) as i64) * splits as i64 * m.heads as i64 + (first % m.heads as i32) as i64;
    for i in threads(256) {
        for n in 0..4 {
            let piece = i + (256 * n) as i32;
            let head = piece >> 7_u32;
            let at = own + head as i64;
            let (mut top, mut sum) = (stat.at(at * 2_i64), stat.at(at * 2_i64 + 1_i64));
            let mut o = part.load4::<f32>(at * 2048_i64 + (piece & 127_i32) as i64 * 16_i64);
            for split in strided(1_i32, splits, 1) {
                let next = at + split as i64 * m.heads as i64;
                let (its_top, its_sum) = (stat.at(next * 2_i64), stat.at(next * 2_i64 + 1_i64));
                let (left, right) = (left_worth(top, its_top), right_worth(top, its_top));
                let x = part.load4::<f32>(next * 2048_i64 + (piece & 127_i32) as i64 * 16_i64);
                for k in 0..4 {
                    o[k] = x[k].mul_add(right, o[k] * left);
                }
                sum = its_sum.mul_add(right, sum * left);
                top = fmax(top, its_top);
            }
            room.save4::<f32>((piece >> 4_u32) * LINE as i32 + (piece & 15_i32) * 16_i32, o);
            if (piece & 127_i32) == 0_i32 {
                let full = sum > 0.0_f32;
                inverses.put(head, if full { inverse_of(top, sum, sinks.at(first + head)) } else { 0.0_f32 });
                lse.put(token as i64 * heads as i64 + (first + head) as i64, if full { (top + log2(sum)) * 0.693_147_2_f32 } else { f32::NEG_INFINITY });
            }
        }
    }
    for i in threads(OWN * 8) {
        settle(&mut room, i, inverses.at(i >> 3_u32));
    }
    let to = (token as i64 * heads as i64 + first as i64) * 1024_i64;
    for i in threads(256) {
        for n in 0..2 {
            let piece = i + (256 * n) as i32;
            let w = room.load4::<u32>((piece >> 3_u32) * LINE as i32 + (piece & 7_i32) * 16_i32);
            out.save4::<u32>(to + piece as i64 * 16_i64, w);
        }
    }
}
