//! Store of a calibrated codec whose blocks walk: a head's matrix comes to shared memory once, then group after group of 64 tokens is coded.
//!
//! Tokens are the left operand. Four lanes share two of them from their load to their codes, a quarter of each a lane, in registers: what they tell
//! one another is a number a row and step, so that only their warp waits for them.
//! Cost: reads d elements a row and 2 d^2 bytes of matrix a block; 3 d^2 byte products a row.

use super::super::codes::{follow, put_across, put_quads};
use super::super::place::put_known;
use super::super::rows::{half_of, raw};
use super::super::store::StoreMeta;
use super::store::digits_of;
use super::{matrix_at, mean_at, per_unit, turned, unit_of, worth_at};
use crate::codec::Codec;
use crate::kernels::SEGMENT;
use kernel_dsl::prelude::*;

/// Tokens of a group.
pub const GROUP: usize = 64;

/// Blocks of a large launch: two rounds of those that have a place at once, four on each of 132 multiprocessors, so that they come to be apart.
pub const BLOCKS: usize = 1024;

/// Words from block to block of a warp's codes: neither those who leave them nor those who take four meet at a bank more than twice.
const APART: usize = 20;

/// Floats from quarter to quarter of what columns are worth: those of four lanes meet at no bank.
const WORTHS: usize = 36;

/// The dim of 128 that is place `k` of a row of integers: a lane has every fourth block of eight of what it loads.
pub fn dim_of(k: usize) -> usize {
    8 * (k / 32 + k % 32 / 8 * 4) + k % 8
}

/// Where a thread holds number `e` of 32 of its row `h`: where the tensor core leaves it.
#[device]
fn own(h: usize, e: usize) -> usize {
    e / 2 * 4 + 2 * h + e % 2
}

/// Row `h` of thread `i` among a group's.
#[device]
fn row_of(i: i32, h: usize) -> i32 {
    (i >> 2_u32) * 2_i32 + h as i32
}

/// Its token. Keys of a warp's lanes are written side by side; of values four neighbours are.
#[device]
fn token_of(i: i32, h: i32, values: bool) -> i32 {
    let (w, g) = (i >> 5_u32, (i & 31_i32) >> 2_u32);
    let tile = (w >> 1_u32) << 5_u32;
    if values { tile + ((g >> 1_u32) << 3_u32) + ((w & 1_i32) << 2_u32) + ((g & 1_i32) << 1_u32) + h } else { tile + (g << 2_u32) + ((w & 1_i32) << 1_u32) + h }
}

/// The grid: [`crate::kernels::mapped_grid`].
#[kernel]
pub fn store_walked<T: Float>(
    m: StoreMeta,
    kc: &dyn Codec,
    vc: &dyn Codec,
    k: &Global<T>,            // [tokens, kv_heads, d], strided
    v: &Global<T>,            // likewise
    positions: &Global<i32>,  // [tokens], from the start of a token's sequence
    slots: &Global<i64>,      // [tokens]; below 0: padding
    turns: &Global<f32>,      // [segments, 2, d / 2]: cosines, sines
    maps: &Global<i8>,        // a layer's, as `preset::LayerMaps::packed` has them
    scales: &Global<f32>,     // likewise
    cache: &mut Global<u8>,   // [pages, kv_heads, block]
    status: &mut Global<i32>, // bad slot, bad page, bad length, where
    tokens: i32,
    kv_heads: i32,
    segments: i32,
    blocks: i32, // along the first axis of the grid
    slot_count: i64,
    k_token_stride: i64,
    k_head_stride: i64,
    v_token_stride: i64,
    v_head_stride: i64,
) {
    release_next();
    let (head, kind) = (block_id(1), block_id(2));
    let mut matrix = shared::<i8>(2 * m.d * m.d);
    let mut worths = shared::<f32>(4 * WORTHS);
    let mut means = shared::<f32>(m.d);
    let mut tops = shared::<f32>(4 * GROUP);
    let mut pulls = shared::<f32>(4 * GROUP * kc.spec().searches);
    let mut codes = shared::<u32>(4 * 16 * APART * (vc.spec().bits / 8).div_ceil(4));
    let mut tiles = shared::<i64>(GROUP);
    let mut places = shared::<u32>(GROUP);
    let mut held = by_turn::<f32>(128, 64);
    let mut words = by_turn::<u32>(128, 32);
    let mut units = by_turn::<f32>(128, 2);
    let mut found = by_turn::<f32>(128, 2);
    for i in threads(128) {
        let from = matrix_at(4_i32 + kind, kv_heads, head, 0_i32, m.d);
        for n in 0..m.d * m.d / 1024 {
            let at = i * 16_i32 + (2048 * n) as i32;
            matrix.bring(at, maps, from + at as i64);
        }
        worths.put(i + (i >> 5_u32) * (WORTHS - 32) as i32, scales.at(worth_at(kind, kv_heads, head, m.d) + i as i64));
        means.put(i, scales.at(mean_at(kind, kv_heads, head, m.d) + i as i64));
    }
    // Until here it read what no launch writes.
    after_previous();
    for group in strided(block_id(0), (tokens + (GROUP - 1) as i32) >> 6_u32, blocks) {
        // Rows leave no registers for what could be found anew.
        anew();
        let (head, kind) = (block_id(1), block_id(2));
        let first = group * GROUP as i32;
        for i in warpwise(128) {
            if kind == 0_i32 {
                load::<T>(&m, k, turns, positions, &means, &mut held, &mut tops, false, i, first, head as i64 * k_head_stride, k_token_stride, tokens, segments);
            } else {
                load::<T>(&m, v, turns, positions, &means, &mut held, &mut tops, true, i, first, head as i64 * v_head_stride, v_token_stride, tokens, segments);
            }
        }
        for i in threads(128) {
            integers(&held, &tops, &mut words, &mut units, i);
            let next = first + blocks * GROUP as i32;
            if next < tokens {
                if kind == 0_i32 {
                    ask::<T>(&m, k, i, next, head as i64 * k_head_stride, k_token_stride, tokens);
                } else {
                    ask::<T>(&m, v, i, next, head as i64 * v_head_stride, v_token_stride, tokens);
                }
            }
            brought();
            for_cores();
        }
        for w in warps(4) {
            let (high, low) = (words.left(w, 0, 128), words.left(w, 16, 128));
            let large = mma_shared(&low, &matrix, 0, 8 * m.d, 128, &(mma_shared(&high, &matrix, 0, 8 * m.d, 128, 0_i32) * 128_i32));
            held.put_acc(w, 0, &mma_shared(&high, &matrix, m.d * m.d, 8 * m.d, 128, &large).cast::<f32>());
        }
        for i in warpwise(128) {
            if i & 3_i32 < 2_i32 {
                let token = first + if kind == 0_i32 { token_of(i, i & 1_i32, false) } else { token_of(i, i & 1_i32, true) };
                let inside = token < tokens;
                let token = token.min(tokens - 1_i32);
                let known = is_known(positions.at(token), segments);
                put_known(known, if inside { slots.at(token) } else { -1_i64 }, slot_count, kv_heads, head, m.page_tokens, m.tile_bytes, (i >> 2_u32) * 2_i32 + (i & 1_i32), token, &mut tiles, &mut places, status);
            }
        }
        if kind == 0_i32 {
            search(kc, &mut held, &worths, &units, &mut pulls, &mut found);
            code_keys(&m, kc, cache, &held, &pulls, &found, &tiles, &places);
        } else {
            search(vc, &mut held, &worths, &units, &mut pulls, &mut found);
            code_values(&m, kc, vc, cache, &held, &pulls, &found, &mut codes, &tiles, &places);
        }
    }
}

/// Whether turns are known of a position.
#[device]
fn is_known(position: i32, segments: i32) -> bool {
    (position >= 0_i32) & (position / (SEGMENT as i32) < segments)
}

/// A thread's quarters of its two rows, turned and centred, and their largest magnitudes.
#[device]
#[allow(clippy::too_many_arguments)]
fn load<T: Float>(
    m: &StoreMeta,
    x: &Global<T>,
    turns: &Global<f32>,
    positions: &Global<i32>,
    means: &Shared<f32>,
    held: &mut ByTurn<f32>,
    tops: &mut Shared<f32>,
    values: bool,
    i: i32,
    first: i32,
    base: i64,
    token_stride: i64,
    tokens: i32,
    segments: i32,
) {
    let j = i & 3_i32;
    for h in 0..2 {
        let token = (first + token_of(i, h as i32, values)).min(tokens - 1_i32);
        let row = raw::<T>(x, (base + token as i64 * token_stride) * m.elem as i64, j, m.d, m.elem);
        let mut turn = 0_i64;
        if !values {
            let position = positions.at(token);
            turn = (if is_known(position, segments) { position / SEGMENT as i32 } else { 0_i32 }) as i64 * m.d as i64;
        }
        let row = turned(row, turns, turn, !values, j, m.d);
        let mut top = 1e-20_f32;
        for k in 0..4 {
            for part in 0..2 {
                let mean = means.load4::<f32>(j * 32_i32 + (128 * k + 16 * part) as i32);
                for e in 0..4 {
                    let y = row[8 * k + 4 * part + e] - mean[e];
                    top = farther(top, y);
                    held.put(i, own(h, 8 * k + 4 * part + e), y);
                }
            }
        }
        tops.put(row_of(i, h) * 4_i32 + j, top);
    }
}

/// A line of the rows of 64 tokens from `next` on is to come to the L2 meanwhile.
#[device]
fn ask<T: Float>(m: &StoreMeta, x: &Global<T>, i: i32, next: i32, base: i64, token_stride: i64, tokens: i32) {
    let token = (next + (i & 63_i32)).min(tokens - 1_i32);
    x.prefetch((base + token as i64 * token_stride) * m.elem as i64 + ((i >> 6_u32) * 128_i32) as i64);
}

/// What a thread holds as integers: their high bytes, then their low ones, as words of a left operand.
#[device]
fn integers(held: &ByTurn<f32>, tops: &Shared<f32>, words: &mut ByTurn<u32>, units: &mut ByTurn<f32>, i: i32) {
    for h in 0..2 {
        let t = tops.load4::<f32>(row_of(i, h) * 16_i32);
        let top = fmax(fmax(t[0], t[1]), fmax(t[2], t[3]));
        let by = per_unit(top);
        for q in 0..8 {
            let (high, low) = digits_of([held.at(i, own(h, 4 * q)), held.at(i, own(h, 4 * q + 1)), held.at(i, own(h, 4 * q + 2)), held.at(i, own(h, 4 * q + 3))], by);
            words.put(i, 2 * q + h, high);
            words.put(i, 16 + 2 * q + h, low);
        }
        units.put(i, h, unit_of(top));
    }
}

/// The scales of a block's rows, see [`super::super::search`]; before the first step sums become coordinates.
#[device]
fn search(c: &dyn Codec, held: &mut ByTurn<f32>, worths: &Shared<f32>, units: &ByTurn<f32>, pulls: &mut Shared<f32>, found: &mut ByTurn<f32>) {
    for step in 0..c.spec().searches {
        for i in warpwise(128) {
            if step == 0 {
                for q in 0..8 {
                    let worth = worths.load4::<f32>((i & 3_i32) * (4 * WORTHS) as i32 + (16 * q) as i32);
                    for e in 0..4 {
                        for h in 0..2 {
                            held.put(i, own(h, 4 * q + e), held.at(i, own(h, 4 * q + e)) * worth[e] * units.at(i, h));
                        }
                    }
                }
            }
            for h in 0..2 {
                let scale = if step == 0 { 1.0_f32 } else { next(c, pulls, found.at(i, h), i, h, step - 1) };
                let mut pull = 0.0_f32;
                for j in 0..4 {
                    pull = pull + c.pull(block_of(held, i, h, j), scale);
                }
                pulls.put((4 * GROUP * step) as i32 + row_of(i, h) * 4_i32 + (i & 3_i32), pull);
                found.put(i, h, scale);
            }
        }
    }
}

/// The scale of a row after a step in which it was `scale`.
#[device]
fn next(c: &dyn Codec, pulls: &Shared<f32>, scale: f32, i: i32, h: usize, step: usize) -> f32 {
    let p = pulls.load4::<f32>((16 * GROUP * step) as i32 + row_of(i, h) * 16_i32);
    c.search(scale, (p[0] + p[1]) + (p[2] + p[3]), step)
}

/// The scale that is stored for a row.
#[device]
fn side_of(c: &dyn Codec, pulls: &Shared<f32>, found: &ByTurn<f32>, i: i32, h: usize) -> f32 {
    half_of(next(c, pulls, found.at(i, h), i, h, c.spec().searches - 1))
}

/// The `j`-th block of a thread's row `h`.
#[device]
fn block_of(held: &ByTurn<f32>, i: i32, h: usize, j: usize) -> [f32; 8] {
    let mut y = [0.0_f32; 8];
    for e in 0..8 {
        y[e] = held.at(i, own(h, 8 * j + e));
    }
    y
}

/// Keys become codes in their pages, a quarter of a row in a run.
#[device]
#[allow(clippy::too_many_arguments)]
fn code_keys(m: &StoreMeta, c: &dyn Codec, cache: &mut Global<u8>, held: &ByTurn<f32>, pulls: &Shared<f32>, found: &ByTurn<f32>, tiles: &Shared<i64>, places: &Shared<u32>) {
    for i in warpwise(128) {
        for h in 0..2 {
            let (tile, place, side) = (tiles.at(row_of(i, h)), places.at(row_of(i, h)), side_of(c, pulls, found, i, h));
            let mut words = [0_u32; 8];
            for j in 0..4 {
                words = follow(words, c.encode(block_of(held, i, h, j), [side, 0.0_f32]), c.spec().bits);
            }
            if tile >= 0_i64 {
                put_quads(c, cache, tile + m.keys_at[0] as i64, place, ((i & 3_i32) * 4_i32) as u32, words, m.d);
                if (i & 3_i32) == h as i32 {
                    cache.save::<f16>(tile + (m.sides_at as u32 + place * m.side_stride as u32) as i64, f16::from_f32(side));
                }
            }
        }
    }
}

/// Values likewise, four neighbours in a run: their codes meet in shared memory.
#[device]
#[allow(clippy::too_many_arguments)]
fn code_values(m: &StoreMeta, kc: &dyn Codec, c: &dyn Codec, cache: &mut Global<u8>, held: &ByTurn<f32>, pulls: &Shared<f32>, found: &ByTurn<f32>, codes: &mut Shared<u32>, tiles: &Shared<i64>, places: &Shared<u32>) {
    let planes = (c.spec().bits / 8).div_ceil(4);
    for i in warpwise(128) {
        for h in 0..2 {
            let (tile, place, side) = (tiles.at(row_of(i, h)), places.at(row_of(i, h)), side_of(c, pulls, found, i, h));
            for j in 0..4 {
                let code = c.encode(block_of(held, i, h, j), [side, 0.0_f32]);
                let at = ((i >> 5_u32) * (16 * planes) as i32 + (i & 3_i32) * 4_i32 + j as i32) * APART as i32 + (row_of(i, h) & 15_i32);
                for w in 0..planes {
                    codes.put(at + (16 * APART * w) as i32, code[w]);
                }
            }
            if (tile >= 0_i64) & ((i & 3_i32) == h as i32) {
                let at = m.sides_at + 2 * kc.spec().sides;
                cache.save::<f16>(tile + (at as u32 + place * m.side_stride as u32) as i64, f16::from_f32(side));
            }
        }
    }
    for i in warpwise(128) {
        for part in 0..2 {
            // Of the next four rows a lane has two blocks.
            let (r, block) = ((i & 3_i32) * 4_i32, ((i & 31_i32) >> 2_u32) * 2_i32 + part as i32);
            let at = (((i >> 5_u32) * (16 * planes) as i32 + block) * APART as i32 + r) * 4_i32;
            put_across(c, cache, codes, at, 64 * APART, tiles, places, m.values_at[0], (i >> 5_u32) * 16_i32 + r, block, m.d);
        }
    }
}
