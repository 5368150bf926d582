//! Store of whole tiles: 32 tokens' keys, a step a channel, and values, a step a token and 32 channels.
//!
//! A block takes the keys or the values of a tile of one kv head. A thread codes a group at a time, its digits wait in shared
//! memory, then threads make code words of them as every store does.
//! Cost: reads d elements a row, writes its code and pair bytes; bound by memory.

use super::super::codes::{follow, keep, put_kept, put_quads};
use super::super::place::{place_of, report};
use crate::codec::Codec;
use kernel_dsl::prelude::*;

/// Shape of a kernel that codes whole tiles.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GroupsMeta {
    pub d: usize,
    /// Bytes of an element of k and v.
    pub elem: usize,
    pub page_tokens: usize,
    pub tile_bytes: usize,
    /// First byte of the codes of values, and of the pairs.
    pub values_at: usize,
    pub pairs_at: usize,
    /// Words that wait until values of four tokens can leave side by side.
    pub kept: usize,
    /// The largest digits of keys and of values.
    pub tops: [f32; 2],
}

impl GroupsMeta {
    /// Bytes from a token's digits to the next one's.
    pub fn line(&self) -> usize {
        self.d + 4
    }
}

impl Meta for GroupsMeta {
    fn launch(&self) -> Launch {
        Launch { warps: 4, min_blocks: 4 }
    }
}

/// Step, rounded to f16, and least value of 32 numbers.
#[device]
fn pair_of(x: [f32; 32], top: f32) -> (f32, f32) {
    let (mut least, mut most) = (x[0], x[0]);
    for i in 1..32 {
        least = fmin(least, x[i]);
        most = fmax(most, x[i]);
    }
    (f16::from_f32(fmin((most - least) / top, 65504.0_f32)).to_f32(), f16::from_f32(least + 0.0_f32).to_f32())
}

#[device]
fn digit(x: f32, step: f32, least: f32, top: f32) -> u32 {
    if step > 0.0_f32 { fmin(fmax((x - least) / step, 0.0_f32), top).round_ties_even() as u32 } else { 0_u32 }
}

/// A pair as it is stored.
#[device]
fn word_of(step: f32, least: f32) -> u32 {
    f16::from_f32(step).to_bits() as u32 | ((f16::from_f32(least).to_bits() as u32) << 16)
}

/// Grid: [tokens / 32, kv_heads, 2].
#[kernel]
pub fn store_groups<T: Float>(
    m: GroupsMeta,
    kc: &dyn Codec,
    vc: &dyn Codec,
    k: &Global<T>,            // [tokens, kv_heads, d], strided
    v: &Global<T>,            // likewise
    slots: &Global<i64>,      // [tokens]; of each 32 the first says where their tile is; below 0: nowhere
    cache: &mut Global<u8>,   // [pages, kv_heads, block]
    status: &mut Global<i32>, // bad slot, bad page, bad length, where
    tokens: i32,              // a multiple of 32
    kv_heads: i32,
    slot_count: i64,
    k_token_stride: i64,
    k_head_stride: i64,
    v_token_stride: i64,
    v_head_stride: i64,
) {
    after_previous();
    release_next();
    let (head, values) = (block_id(1), block_id(2));
    let mut digits = shared::<u8>(32 * m.line());
    let mut codes = shared::<u32>(m.kept);
    let mut tiles = shared::<i64>(32);
    let mut places = shared::<u32>(32);
    for r in threads(32) {
        let first = slots.at(block_id(0) * 32_i32);
        // A tile begins where its tokens do.
        let slot = if (first & 31_i64) == 0_i64 { first + r as i64 } else { slot_count };
        let (tile, place) = place_of(if first < 0_i64 { -1_i64 } else { slot }, slot_count, kv_heads, head, m.page_tokens, m.tile_bytes);
        tiles.put(r, tile);
        places.put(r, place);
        if (r == 0_i32) & (first >= 0_i64) {
            report(slot, slot_count, block_id(0) * 32_i32, status);
        }
    }
    let from = (block_id(0) * 32_i32).min(tokens - 32_i32) as i64;
    if values == 0_i32 {
        code_channels::<T>(&m, k, from * k_token_stride + head as i64 * k_head_stride, k_token_stride, cache, &tiles, &mut digits);
        for i in threads(128) {
            let (r, part) = (i >> 2_u32, i & 3_i32);
            let mut words = [0_u32; 8];
            for j in 0..m.d / 32 {
                let block = part * (m.d / 32) as i32 + j as i32;
                words = follow(words, code_at(&m, kc, &digits, r, block), kc.spec().bits);
            }
            if tiles.at(r) >= 0_i64 {
                put_quads(kc, cache, tiles.at(r), places.at(r), (part * (m.d / 32) as i32) as u32, words, m.d);
            }
        }
    } else {
        code_tokens::<T>(&m, v, from * v_token_stride + head as i64 * v_head_stride, v_token_stride, cache, &tiles, &mut digits);
        for i in threads(128) {
            for block in strided(i >> 5_u32, (m.d / 8) as i32, 4) {
                keep(vc, &mut codes, i & 31_i32, block, code_at(&m, vc, &digits, i & 31_i32, block), m.d / 8);
            }
        }
        put_kept(vc, cache, &codes, &tiles, &places, m.values_at, m.d);
    }
}

/// The code word of eight digits that lie side by side.
#[device]
fn code_at(m: &GroupsMeta, c: &dyn Codec, digits: &Shared<u8>, r: i32, block: i32) -> [u32; 4] {
    let at = r * m.line() as i32 + block * 8_i32;
    let (low, high) = (digits.load::<u32>(at), digits.load::<u32>(at + 4_i32));
    c.of_levels([low & 255_u32, (low >> 8) & 255_u32, (low >> 16) & 255_u32, low >> 24, high & 255_u32, (high >> 8) & 255_u32, (high >> 16) & 255_u32, high >> 24])
}

/// Keys: a thread codes a channel's 32 tokens.
#[device]
#[allow(clippy::too_many_arguments)]
fn code_channels<T: Float>(m: &GroupsMeta, k: &Global<T>, from: i64, stride: i64, cache: &mut Global<u8>, tiles: &Shared<i64>, digits: &mut Shared<u8>) {
    for c in threads(m.d) {
        let mut x = [0.0_f32; 32];
        for t in 0..32 {
            x[t] = sanitise(k.at(from + t as i64 * stride + c as i64).to_f32(), 65504.0_f32);
        }
        let (step, least) = pair_of(x, m.tops[0]);
        for t in 0..32 {
            digits.put(c + (t * m.line()) as i32, digit(x[t], step, least, m.tops[0]) as u8);
        }
        let own = (m.d / 8) as i32;
        let at = ((c % own >> 2_u32) * 8_i32 + c / own) * 16_i32 + (c & 3_i32) * 4_i32;
        if tiles.at(0) >= 0_i64 {
            cache.save::<u32>(tiles.at(0) + (at + m.pairs_at as i32) as i64, word_of(step, least));
        }
    }
}

/// Values: a thread codes 32 channels of a token; each of eight lanes of attention has four of them side by side.
#[device]
#[allow(clippy::too_many_arguments)]
fn code_tokens<T: Float>(m: &GroupsMeta, v: &Global<T>, from: i64, stride: i64, cache: &mut Global<u8>, tiles: &Shared<i64>, digits: &mut Shared<u8>) {
    for i in threads(m.d) {
        let (r, band) = (i / (m.d / 32) as i32, i % (m.d / 32) as i32);
        let at = from + r as i64 * stride + (band * 32_i32) as i64;
        let mut x = [0.0_f32; 32];
        for e in 0..32 {
            x[e] = sanitise(v.at(at + e as i64).to_f32(), 65504.0_f32);
        }
        let (step, least) = pair_of(x, m.tops[1]);
        for g in 0..8 {
            let mut word = 0_u32;
            for e in 0..4 {
                word = word | (digit(x[4 * g + e], step, least, m.tops[1]) << (8 * e));
            }
            digits.save::<u32>(r * m.line() as i32 + (m.d / 8 * g) as i32 + band * 4_i32, word);
        }
        if tiles.at(0) >= 0_i64 {
            cache.save::<u32>(tiles.at(0) + (m.pairs_at + 4 * m.d) as i64 + ((band * 32_i32 + r) * 4_i32) as i64, word_of(step, least));
        }
    }
}
