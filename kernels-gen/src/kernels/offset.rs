//! Keys and values with an offset: coordinates `scale * (lane - zero) + offset`, one scale and one offset a token.
//!
//! A key's offset adds to its score what the query's coordinates sum to, times the offset. The values' share of an output is one number a head, sum(p * offset), the same for every coordinate. A lane adds its
//! four tokens' products in f32, in order, then truncates once to an integer in units of 2^-36; where units stay, those of its two tokens
//! of each tile of a leaf, and truncates at the leaf's end. 512 tokens of offsets up to 1e5 stay below 2^63, and the order of lanes is free.

use super::decode_attention::DecodeMeta;
use super::keys::{high_half, low_half, sides};
use super::softmax::lane_sums;
use crate::codec::Codec;
use kernel_dsl::prelude::*;

/// A stored offset made safe: a slot that nobody wrote may hold anything.
#[device]
pub fn within(offset: f32) -> f32 {
    fmin(fmax(-1.0e5_f32, offset), 1.0e5_f32)
}

/// Weights times offsets as an integer in units of 2^-36.
#[device]
pub fn fixed_offset(po: f32) -> i64 {
    (po * 68719476736.0_f32) as i64
}

/// Likewise of weights 2^26 times as large.
#[device]
pub fn fixed_raised(po: f32) -> i64 {
    (po * 1024.0_f32) as i64
}

/// The offset that two sides stand for.
#[device]
fn offset_of(c: &dyn Codec, a: f32, b: f32) -> f32 {
    within(c.offset([a, b]))
}

/// Offsets of a tile's keys or values, one a token, from the sides at byte `at`, `stride` bytes a token; of 8 bytes, and of 4 where only one of both has sides, they are in `pair`.
#[device]
pub fn offsets(c: &dyn Codec, tokens: &Page, at: i32, stride: usize, pair: &Tile<u32>, parts: usize) -> Tile<f32> {
    if (stride == 8) | (stride == 4) {
        pair.map(|x| offset_of(c, low_half(x), high_half(x)))
    } else {
        let (a, b) = (sides(tokens, at, stride, parts), sides(tokens, at + 2_i32, stride, parts));
        a.map2(&b, |a, b| offset_of(c, a, b))
    }
}

/// What a tile's weights and the offsets of its values come to in each lane; its sides are at byte `at`.
#[device]
pub fn offset_sums(m: &DecodeMeta, k: &dyn Codec, v: &dyn Codec, tokens: &Page, at: i32, pair: &Tile<u32>, p: &Tile<f32>) -> Tile<f32> {
    let leans = p * &offsets(v, tokens, at + (2 * k.spec().sides) as i32, 2 * (k.spec().sides + v.spec().sides), pair, m.parts);
    lane_sums(m, &leans)
}
