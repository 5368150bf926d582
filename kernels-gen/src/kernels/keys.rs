//! Keys of a tile: their scales, and their exact dots with a query of integers.

use super::decode_attention::DecodeMeta;
use super::softmax::{bounded, sound};
use crate::codec::Codec;
use kernel_dsl::prelude::*;

/// What one lane step of a vector of two side values is worth.
#[device]
pub fn step(c: &dyn Codec, a: f32, b: f32) -> f32 {
    bounded(c.scale([a, b]))
}

/// Likewise of one, made sound, in the lower half of `x`.
#[device]
pub fn only_step(c: &dyn Codec, x: u32) -> f32 {
    c.scale([low_half(x), 0.0_f32])
}

#[device]
pub fn low_half(x: u32) -> f32 {
    f16::from_bits(x as u16).to_f32()
}

#[device]
pub fn high_half(x: u32) -> f32 {
    f16::from_bits((x >> 16) as u16).to_f32()
}

/// The second byte of every lane.
#[device]
pub fn high_bytes(w: [u32; 4]) -> [u32; 4] {
    [w[2], w[3], 0_u32, 0_u32]
}

/// One f16 a token at byte `at`, `stride` bytes a token, as rows or as pairs.
#[device]
pub fn sides(tokens: &Page, at: i32, stride: usize, parts: usize) -> Tile<f32> {
    if parts == 2 { tokens.pairs::<f16>(at, stride).to_f32() } else { tokens.rows::<f16>(at, stride, 32).to_f32() }
}

/// Scales of a tile's keys or values, one a token, from the sides at byte `at`, `stride` bytes a token.
#[device]
pub fn scales(c: &dyn Codec, tokens: &Page, at: i32, stride: usize, parts: usize) -> Tile<f32> {
    if (c.spec().sides == 0) & (c.spec().group > 0) {
        if parts == 2 { acc(16, 8, c.scale([0.0_f32, 0.0_f32])) } else { rows(32, c.scale([0.0_f32, 0.0_f32])) }
    } else if c.spec().sides == 0 {
        if parts == 2 { acc(16, 8, 1.0_f32) } else { rows(32, 1.0_f32) }
    } else {
        if c.spec().sides == 1 {
            (if parts == 2 { tokens.pairs::<u16>(at, stride) } else { tokens.rows::<u16>(at, stride, 32) }).map(|x| only_step(c, sound(x as u32)))
        } else {
            let (a, b) = (sides(tokens, at, stride, parts), sides(tokens, at + 2_i32, stride, parts));
            a.map2(&b, |a, b| step(c, a, b))
        }
    }
}

/// Both sides of each token's key, and of its value, where each has two: loaded once. Likewise where one of them has none.
#[device]
pub fn side_pairs(k: &dyn Codec, v: &dyn Codec, tokens: &Page, at: i32, parts: usize) -> (Tile<u32>, Tile<u32>) {
    if (k.spec().sides == 2) & (v.spec().sides == 2) {
        if parts == 2 { (tokens.pairs::<u32>(at, 8), tokens.pairs::<u32>(at + 4_i32, 8)) } else { (tokens.rows::<u32>(at, 8, 32), tokens.rows::<u32>(at + 4_i32, 8, 32)) }
    } else if (k.spec().sides == 0) & (v.spec().sides == 2) {
        (acc(16, 8, 0_u32), if parts == 2 { tokens.pairs::<u32>(at, 4) } else { tokens.rows::<u32>(at, 4, 32) })
    } else if (k.spec().sides == 2) & (v.spec().sides == 0) {
        (if parts == 2 { tokens.pairs::<u32>(at, 4) } else { tokens.rows::<u32>(at, 4, 32) }, acc(16, 8, 0_u32))
    } else {
        (acc(16, 8, 0_u32), acc(16, 8, 0_u32))
    }
}

/// Scales of keys and of values: one load where each has one side, or both have two.
#[device]
pub fn both_scales(k: &dyn Codec, v: &dyn Codec, tokens: &Page, at: i32, pairs: &(Tile<u32>, Tile<u32>), parts: usize) -> (Tile<f32>, Tile<f32>) {
    if (k.spec().sides == 1) & (v.spec().sides == 1) {
        let both = if parts == 2 { tokens.pairs::<u32>(at, 4) } else { tokens.rows::<u32>(at, 4, 32) };
        let both = both.map(sound);
        (both.map(|x| only_step(k, x)), both.map(|x| only_step(v, x >> 16)))
    } else if (k.spec().sides == 2) & (v.spec().sides == 2) {
        (pairs.0.map(|x| step(k, low_half(x), high_half(x))), pairs.1.map(|x| step(v, low_half(x), high_half(x))))
    } else if (k.spec().sides == 0) & (v.spec().sides == 2) {
        (scales(k, tokens, at, 4, parts), pairs.1.map(|x| step(v, low_half(x), high_half(x))))
    } else {
        let stride = 2 * (k.spec().sides + v.spec().sides);
        (scales(k, tokens, at, stride, parts), scales(v, tokens, at + (2 * k.spec().sides) as i32, stride, parts))
    }
}

/// A band of the query's bytes, from byte `at` on.
#[device]
pub fn query_part(query: &Shared<u8>, at: i32, d: usize, cols: usize, band: usize, quads: bool, twos: bool) -> Tile<i8> {
    let part = query.operand::<i8>(at, d, cols, band);
    if twos { part.twos_order() } else { if quads { part.quad_order() } else { part } }
}

/// Exact dots of a tile's keys with the query, [32, cols] or pairs, band after band; `base`: where in the page the tile begins,
/// `start`: what sums start from, as high as they stand.
#[device]
#[allow(clippy::too_many_arguments)]
pub fn dots(k: &[&dyn Codec], tokens: &Page, q_hi: &[Tile<i8>; 4], q_lo: &[Tile<i8>; 4], start: &Tile<i32>, base: i32, at: [usize; 4], quads: bool, twos: bool, d: usize, cols: usize, parts: usize) -> Tile<f32> {
    let mut hi = acc(32, cols, 0_i32);
    let mut lo = acc(32, cols, 0_i32);
    for i in 0..k.len() {
        if quads & by_height(k, d) {
            let key: Tile<u8> = tokens.key_quads(base + at[i] as i32, k[i].spec().bits, d, 8, |x| k[i].raised_keys4(x));
            hi = mma_raised(&key, &q_hi[i], k[i].spec().raised_keys());
            if parts == 1 {
                lo = mma_raised(&key, &q_lo[i], k[i].spec().raised_keys());
            }
        } else {
            let key: Tile<u8> = if twos {
                tokens.key_twos(base + at[i] as i32, k[i].spec().bits, d, 8, |x| k[i].twos4(x))
            } else {
                if quads { tokens.key_quads(base + at[i] as i32, k[i].spec().bits, d / k.len(), 8, |x| k[i].decode4(x)) } else { tokens.keys(base + at[i] as i32, k[i].spec().bits, d / k.len(), 8, |x| k[i].decode(x)) }
            };
            hi = mma(&key, &q_hi[i], &hi);
            if parts == 1 {
                lo = mma(&key, &q_lo[i], &lo);
            }
        }
        if k[i].spec().wide_lanes() {
            let top: Tile<u8> = tokens.keys(base + at[i] as i32, k[i].spec().bits, d / k.len(), 8, |x| high_bytes(k[i].decode(x)));
            hi = &hi + &(mma(&top, &q_hi[i], 0_i32) * 256_i32);
            lo = &lo + &(mma(&top, &q_lo[i], 0_i32) * 256_i32);
        }
    }
    // With two parts the high bytes' columns stand beside the low ones'.
    let double = if k[0].spec().even() { 1 } else { 2 };
    let s = if parts == 2 {
        hi.fold_onto(128 * double, double, start)
    } else {
        let s = &hi * 128_i32 + &lo;
        if double == 2 { s * 2_i32 + start } else { s + start }
    };
    s.cast::<f32>()
}

/// Bits by which sums of keys and query stand higher than they are.
#[device]
pub fn height_of(k: &[&dyn Codec], quads: bool, d: usize) -> usize {
    if k[0].spec().exact() & quads & by_height(k, d) { k[0].spec().most_raised() } else { 0 }
}

/// 2^-up.
#[device]
pub fn lowering(up: usize) -> f32 {
    f32::from_bits((127_u32 - up as u32) << 23)
}

/// Whether keys are decoded with their dims at different heights: one band, whole words of four blocks.
#[device]
pub fn by_height(k: &[&dyn Codec], d: usize) -> bool {
    (k.len() == 1) & (d >= 128) & (k[0].spec().raised[7] > 0)
}

/// A record's columns for sums that stand `height` bits high.
#[device]
pub fn lifted(of: (Tile<i32>, Tile<f32>, Tile<f32>), height: usize) -> (Tile<i32>, Tile<f32>, Tile<f32>) {
    (of.0 * (1 << height), of.1 * lowering(height), of.2)
}

/// Sums of a tile's keys and the query, as high as they stand.
#[device]
#[allow(clippy::too_many_arguments)]
pub fn steps(m: &DecodeMeta, k: &[&dyn Codec], tokens: &Page, base: i32, q_hi: &[Tile<i8>; 4], q_lo: &[Tile<i8>; 4], q_float: &Tile<bf16>, start: &Tile<i32>) -> Tile<f32> {
    if k[0].spec().exact() {
        dots(k, tokens, q_hi, q_lo, start, base, m.keys_at, m.key_quads, m.key_twos, m.d, m.cols, m.parts)
    } else {
        let s = mma(&tokens.grouped_keys::<bf16>(base, k[0].spec().bits, m.d, 16, k[0].spec().group, k[0].spec().shared, |x| k[0].decode(x)), q_float, 0.0_f32);
        if m.parts == 2 { s.own_halves() } else { s }
    }
}
