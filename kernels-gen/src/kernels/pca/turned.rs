//! Scores of a tile's keys before RoPE: keys leave their block's coordinates on the tensor core, 16 coordinates and those that turn with them at a
//! time, are turned from the tile's first token to their own, and meet queries that the warp has turned back to that one (from [`super::turn`]).
//!
//! Sums of bytes are exact, and so are those of the mean and a length along a centre, which f16 holds as integers; what is turned is rounded to integers
//! of 16 bits by an addition, and their two bytes meet both bytes of queries.
//! Cost: reads (rank + 32) d bytes of matrices a block into shared memory, as many a tile out of it, 4 d bytes of turns a token out of shared memory.

use super::super::decode_attention::DecodeMeta;
use super::super::keys::low_half;
use super::super::softmax::{bits_of, fused, sound};
use super::scores::outliers_of;
use super::turn::turned_back;
use crate::codec::Codec;
use crate::pca::pages::{MAGIC, STEP, WAYS};
use kernel_dsl::math::{angle_of, turned};
use kernel_dsl::prelude::*;

/// Numbers from one pair's turns to the next: 32 tokens, and what keeps lanes from one bank.
pub const LINE: usize = 36;

/// The bits of [`MAGIC`].
const BITS: i32 = 0x4b40_0000;

/// [`MAGIC`] and 128: the second byte of an integer is then that of its nearest multiple of 256.
const AND_128: f32 = 12_583_040.0;

/// Cosines of all pairs, 32 tokens each, then sines, in steps of what is turned, by the speeds of page `page`; those too, both words of a pair.
#[device]
pub fn put_turns(m: &DecodeMeta, cache: &Global<u8>, turns: &mut Shared<f32>, pairs: &mut Shared<u32>, page: i64) {
    let speeds = page + (m.behind.frames_at[0] + m.ranks[0] * m.d + m.behind.speeds_at) as i64;
    // Memory is waited for once: what turns are made of comes out of shared memory.
    for i in threads(m.d / 2) {
        let at = speeds + (i * 4_i32) as i64;
        pairs.put(2_i32 * i, cache.load::<u32>(at));
        pairs.put(2_i32 * i + 1_i32, cache.load::<u32>(at + (2 * m.d) as i64));
    }
    for i in threads(16 * m.d) {
        let (pair, token) = (i >> 5_u32, i & 31_i32);
        let (cos, sin) = turned(angle_of(token, pairs.at(2_i32 * pair), pairs.at(2_i32 * pair + 1_i32)));
        turns.put(pair * LINE as i32 + token, cos * STEP);
        turns.put((pair + (m.d / 2) as i32) * LINE as i32 + token, sin * STEP);
    }
}

/// A block's matrices, means and units are on their way to the warp's place in shared memory.
#[device]
pub fn keep(m: &DecodeMeta, cache: &Global<u8>, kept: &mut Shared<u8>, w: i32, page: i64) {
    let (at, frame, ways) = (w * m.kept() as i32, page + m.behind.frames_at[0] as i64, page + m.behind.ways_at[0] as i64);
    sync_warp();
    for i in lanes(32) {
        for u in 0..(m.ranks[0] + 16) * m.d / 512 {
            let from = i * 16_i32 + (512 * u) as i32;
            kept.bring(at + from, cache, frame + from as i64);
        }
        for u in 0..WAYS * m.d / 512 {
            let from = i * 16_i32 + (512 * u) as i32;
            kept.bring(at + (m.kept() - WAYS * m.d) as i32 + from, cache, ways + from as i64);
        }
    }
    for _ in lanes(1) {
        kept.bring(at + (m.kept() - WAYS * m.d - 16) as i32, cache, frame + (m.ranks[0] * m.d + m.behind.units_at) as i64);
    }
}

/// They will be asked for.
#[device]
pub fn foresee(m: &DecodeMeta, cache: &Global<u8>, page: i64) {
    for i in lanes(32) {
        for u in 0..((m.ranks[0] + 16) * m.d).div_ceil(4096) {
            cache.prefetch(page + m.behind.frames_at[0] as i64 + ((i + (32 * u) as i32).min(((m.ranks[0] + 16) * m.d / 128) as i32 - 1_i32) * 128_i32) as i64);
        }
        for u in 0..(WAYS * m.d).div_ceil(4096) {
            cache.prefetch(page + m.behind.ways_at[0] as i64 + ((i + (32 * u) as i32).min((WAYS * m.d / 128) as i32 - 1_i32) * 128_i32) as i64);
        }
    }
}

/// A block's queries at `at` turned back to the first token of tile `t`, both bytes of each number, those of [`kernel_dsl::pack::beside`] side by side.
#[device]
#[allow(clippy::too_many_arguments)]
fn turn_back<T: Float>(m: &DecodeMeta, records: &Global<T>, pairs: &Shared<u32>, queries: &mut Shared<i8>, at: i64, own: i32, t: i32) {
    sync_warp();
    for i in lanes(m.d / 4) {
        let speeds = pairs.load4::<u32>(i * 16_i32);
        let (one, next) = (turned(angle_of(t * 32_i32, speeds[0], speeds[1])), turned(angle_of(t * 32_i32, speeds[2], speeds[3])));
        let to = own + (i >> 3_u32) * 32_i32 + (i & 3_i32) * 8_i32 + ((i >> 2_u32) & 1_i32) * 4_i32;
        for c in 0..8 / m.parts {
            let x = records.load4::<f32>(at + (4 * c * m.d) as i64 + (i * 16_i32) as i64);
            let low = pick(turned_back(x[0], x[2], one.0, one.1, AND_128).to_bits(), turned_back(x[1], x[3], next.0, next.1, AND_128).to_bits(), 0x5140_u32);
            let high = pick(turned_back(x[2], -x[0], one.0, one.1, AND_128).to_bits(), turned_back(x[3], -x[1], next.0, next.1, AND_128).to_bits(), 0x5140_u32);
            queries.save::<u32>(to + (c * m.queries_line()) as i32, pick(low, high, 0x7632_u32));
            queries.save::<u32>(to + ((c + 8 / m.parts) * m.queries_line()) as i32, pick(low, high, 0x5410_u32) ^ 0x8080_8080_u32);
        }
    }
    sync_warp();
}

/// Scores in log2 units, without those past the end; `at`: the block's queries, `kept`: what it keeps, `t`: number of the tile.
#[device]
#[allow(clippy::too_many_arguments)]
pub fn turned_scores<T: Float>(
    m: &DecodeMeta,
    k: &dyn Codec,
    records: &Global<T>,
    tokens: &Page,
    more: &mut Shared<u8>,
    turns: &Shared<f32>,
    pairs: &Shared<u32>,
    kept: &Shared<u8>,
    queries: &mut Shared<i8>,
    at: i64,
    w: i32,
    t: i32,
) -> Tile<f32> {
    let (own, back) = (w * m.kept() as i32, w * m.turned_back() as i32);
    turn_back::<T>(m, records, pairs, queries, at, back, t);
    let norms = tokens.rows::<u32>(m.sides_at, 4, 32).map(sound).map(low_half) * kept.load::<f32>(own + (m.kept() - WAYS * m.d - 16) as i32);
    let key: Tile<u8> = tokens.keys(m.keys_at[0], k.spec().bits, m.ranks[0], 8, |x| k.decode(x));
    let lengths = tokens.key_lengths(m.sides_at + 256, m.sides_at);
    // Without outliers nobody asks.
    let beyond = if m.behind.outliers[0] > 0 { outliers_of(m, tokens, more, w) } else { left_full(32, m.ranks[0], 0_i8) };
    let (mut upper, mut lower) = (acc(32, 8, 0_i32), acc(32, 8, 0_i32));
    for c in 0..m.d / 32 {
        let column = (32 * c) as i32;
        let x = unprojected(m, kept, &key, &beyond, &lengths, &norms, own, column);
        let y = unprojected(m, kept, &key, &beyond, &lengths, &norms, own, column + 16_i32);
        let turn = (column >> 1_u32) * LINE as i32;
        let (cos, sin) = (turns.acc(turn, LINE, 16, 32, 16), turns.acc(turn + (m.d / 2 * LINE) as i32, LINE, 16, 32, 16));
        let (low, high) = (x.map3(&cos, &y.map2(&sin, less), fused).map(bits_of), y.map3(&cos, &x.map2(&sin, plus), fused).map(bits_of));
        let bytes = low.bytes_beside(&high);
        let q: Tile<i8> = queries.operand::<i8>(back + column, m.queries_line(), 8, 32);
        if m.parts == 2 {
            upper = mma(&bytes.1, &q, &upper);
            lower = mma(&bytes.0, &q, &lower);
        } else {
            let q_low: Tile<i8> = queries.operand::<i8>(back + (8 * m.queries_line()) as i32 + column, m.queries_line(), 8, 32);
            upper = &upper + &(mma(&bytes.1, &q, 0_i32) * 256_i32 + &mma(&bytes.1, &q_low, 0_i32));
            lower = &lower + &(mma(&bytes.0, &q, 0_i32) * 256_i32 + &mma(&bytes.0, &q_low, 0_i32));
        }
    }
    let worth = records.columns::<f32>(at + (32 / m.parts * m.d) as i64, 4, 8);
    if m.parts == 2 { upper.fold_halves(256).cast::<f32>().mul_add(256.0_f32, &lower.fold_halves(256).cast::<f32>()) * &worth } else { upper.cast::<f32>().mul_add(256.0_f32, &lower.cast::<f32>()) * &worth }
}

/// Sixteen coordinates of a tile's keys, from the frame's column `column` on, in steps of the grid.
#[device]
#[allow(clippy::too_many_arguments)]
fn unprojected(m: &DecodeMeta, kept: &Shared<u8>, key: &Tile<u8>, beyond: &Tile<i8>, lengths: &Tile<f16>, norms: &Tile<f32>, own: i32, column: i32) -> Tile<f32> {
    let behind = own + (m.ranks[0] * m.d) as i32;
    let matrix: Tile<i8> = kept.packed_right::<i8>(own + column * m.ranks[0] as i32, m.ranks[0], 16);
    let centres: Tile<f16> = kept.packed_right::<f16>(own + (m.kept() - WAYS * m.d) as i32 + column * WAYS as i32, 16, 16);
    let along = mma(lengths, &centres, &kept.alike::<f32>(behind + column * 8_i32, 32, 16));
    let mut sum = mma(key, &matrix, &acc(32, 16, BITS));
    if m.behind.outliers[0] > 0 {
        sum = mma(beyond, &matrix, &sum);
    }
    (sum.map(float_of) - &kept.columns::<f32>(behind + m.behind.zeros_at as i32 + column * 4_i32, 4, 16)).map3(norms, &along, fused)
}

#[device]
fn float_of(x: i32) -> f32 {
    f32::from_bits(x as u32)
}

#[device]
fn less(x: f32, by: f32) -> f32 {
    (-x).mul_add(by, MAGIC)
}

#[device]
fn plus(x: f32, by: f32) -> f32 {
    x.mul_add(by, MAGIC)
}
