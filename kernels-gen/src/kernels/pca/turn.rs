//! Queries for keys before RoPE: `q R(t) k = (R(-t0) q) (R(t - t0) k)`, t0 the first token of a tile. A tile's queries are turned back to it, each
//! pair times what the block's numbers are worth there, and become 15-bit integers under their largest magnitude.
//! Cost: reads d numbers a head, writes 8 d + 32 bytes a tile, twice the first with more than four heads.

use super::super::maps::{per_unit, unit_of};
use super::super::query::{finite, shown_worth};
use super::queries::{FoldMeta, digits, largest, page_of, top_of};
use kernel_dsl::math::{angle_of, turned};
use kernel_dsl::prelude::*;

/// As [`super::queries::fold_queries`]; a record has 16 tiles.
#[kernel]
pub fn turn_queries<T: Float>(
    m: FoldMeta,
    q: &Global<T>,            // [batch, heads, d]
    cache: &Global<u8>,       // [pages, kv_heads, page]
    table: &Global<i32>,      // [batch, table_stride]
    lens: &Global<i32>,       // [batch]
    records: &mut Global<u8>, // [batch, kv_heads, table_stride, record]
    kv_heads: i32,
    pages: i32,
    table_stride: i32,
    scale: f32,
) {
    after_previous();
    release_next();
    let (entry, head, seq) = (block_id(0), block_id(1), block_id(2));
    let len = lens.at(seq);
    let most = if m.behind.lead > 0 { table_stride - 1_i32 } else { table_stride };
    let first_token = entry * m.page_tokens as i32;
    let live = (len <= most * m.page_tokens as i32) & (first_token < len);
    let tiles = if live { ((len - first_token + 31_i32) >> 5_u32).min((m.page_tokens / 32) as i32) } else { 0_i32 };
    let at = if m.behind.lead > 0 { (entry + 1_i32).min(table_stride - 1_i32) } else { entry };
    let behind = page_of(m.page_bytes, table.at(seq * table_stride + at), pages, kv_heads, head) + (m.behind.frames_at[0] + m.rank * m.d) as i64;
    let record = ((seq * kv_heads + head) as i64 * table_stride as i64 + entry as i64) * m.record() as i64;
    let first = ((seq * kv_heads + head) * m.group as i32) as i64 * m.d as i64;
    let mut cosines = shared::<f32>(m.page_tokens / 64 * m.d);
    let mut sines = shared::<f32>(m.page_tokens / 64 * m.d);
    let mut tops = shared::<f32>(m.page_tokens * 2);
    for i in threads(tiles * (m.d / 2) as i32) {
        let (tile, pair) = (i / (m.d / 2) as i32, i % (m.d / 2) as i32);
        let speed = behind + (m.behind.speeds_at as i32 + pair * 4_i32) as i64;
        let (cos, sin) = turned(angle_of(first_token + tile * 32_i32, cache.load::<u32>(speed), cache.load::<u32>(speed + (2 * m.d) as i64)));
        cosines.put(i, cos);
        sines.put(i, sin);
    }
    let factors = behind + m.behind.factors_at as i64;
    for i in threads(tiles * (8 * m.heads()) as i32) {
        let (tile, c, a) = (i / (8 * m.heads()) as i32, (i >> 3_u32) & (m.heads() as i32 - 1_i32), i & 7_i32);
        let mut top = 0.0_f32;
        for u in 0..m.d / 64 {
            let (low, high) = turned_fours::<T>(q, cache, &cosines, &sines, first, factors, tile, c, a * (m.d / 64) as i32 + u as i32, m.group, m.d);
            top = fmax(top, fmax(largest(low), largest(high)));
        }
        tops.put(i, top);
    }
    for i in threads(tiles * (8 * m.heads()) as i32) {
        let (tile, c, a) = (i / (8 * m.heads()) as i32, (i >> 3_u32) & (m.heads() as i32 - 1_i32), i & 7_i32);
        let top = top_of(&tops, i >> 3_u32);
        let to = record + (tile * m.turned_tile() as i32 + c * m.d as i32) as i64;
        for u in 0..m.d / 64 {
            let four = a * (m.d / 64) as i32 + u as i32;
            let (low, high) = turned_fours::<T>(q, cache, &cosines, &sines, first, factors, tile, c, four, m.group, m.d);
            for half in 0..2 {
                let (upper, lower, _sum) = digits(if half == 0 { low } else { high }, per_unit(top));
                let at = to + (four * 8_i32 + (4 * half) as i32) as i64;
                records.save::<u32>(at, upper);
                records.save::<u32>(at + (m.heads() * m.d) as i64, lower);
            }
        }
        if a == 0_i32 {
            let worth = shown_worth(unit_of(top) * (scale * 1.442695_f32));
            for part in 0..m.parts {
                let column = c + (part * m.heads()) as i32;
                records.save::<f32>(record + (tile * m.turned_tile() as i32 + (16 / m.parts * m.d) as i32 + column * 4_i32) as i64, worth);
            }
        }
    }
}

/// The `four`-th four pairs of query row `c`, turned back to a tile's first token: of those that stand side by side in a word of the bytes that keys
/// become, see [`kernel_dsl::pack::beside`]. Rows past the last one are 0.
#[device]
#[allow(clippy::too_many_arguments)]
fn turned_fours<T: Float>(q: &Global<T>, cache: &Global<u8>, cosines: &Shared<f32>, sines: &Shared<f32>, first: i64, factors: i64, tile: i32, c: i32, four: i32, group: usize, d: usize) -> ([f32; 4], [f32; 4]) {
    let row = first + (c.min(group as i32 - 1_i32) * d as i32) as i64;
    let (mut low, mut high) = ([0.0_f32; 4], [0.0_f32; 4]);
    for e in 0..4 {
        let pair = (four >> 2_u32) * 16_i32 + (four & 3_i32) * 2_i32 + (e / 2 * 8 + e % 2) as i32;
        let (cos, sin) = (cosines.at(tile * (d / 2) as i32 + pair), sines.at(tile * (d / 2) as i32 + pair));
        let factor = cache.load::<f32>(factors + (pair * 4_i32) as i64);
        let by = if c < group as i32 { factor } else { 0.0_f32 };
        let (x, y) = (finite(q.at(row + pair as i64).to_f32()), finite(q.at(row + (pair + (d / 2) as i32) as i64).to_f32()));
        low[e] = turned_back(x, y, cos, sin) * by;
        high[e] = turned_back(y, -x, cos, sin) * by;
    }
    (low, high)
}

/// A coordinate turned back, `other`: the one that turns with it.
#[device]
pub fn turned_back(x: f32, other: f32, cos: f32, sin: f32) -> f32 {
    x.mul_add(cos, other * sin)
}
