//! A calibrated codec's queries: turned back to each segment of their sequence, mapped, quantised to what the decode
//! kernel multiplies with. One record a (sequence, kv head, segment), [`super::record`] bytes.

use super::super::query::{finite, high_part, integers, low_part, zeros_of};
use super::{MapMeta, back, products};
use crate::codec::Codec;
use kernel_dsl::prelude::*;

/// Pairs of coordinates that a thread turns at once.
const PAIRS: usize = 8;

/// A block takes rows (segment, head) of one (sequence, kv head). A sequence without tokens gets the queries of one
/// segment, so that no record is read that was not written.
#[kernel]
pub fn map_queries<T: Float>(
    m: MapMeta,
    k: &[&dyn Codec],         // one a band
    q: &Global<T>,            // [batch, heads, d]
    turns: &Global<f32>,      // [segments, d / 2, 2]: cosine, sine
    maps: &Global<f32>,       // a layer's, as `preset::LayerMaps::packed` has them
    lens: &Global<i32>,       // [batch]
    queries: &mut Global<u8>, // [batch, kv_heads, segments, record]
    kv_heads: i32,
    table_stride: i32,
    segments: i32,
    scale: f32,
) {
    let (first, head, seq) = (block_id(0) * m.block() as i32, block_id(1), block_id(2));
    let len = lens.at(seq);
    let fits = (len >= 0_i32) & (len <= table_stride * m.page_tokens as i32);
    let n = (if fits { (len + (m.segment as i32 - 1_i32)) / m.segment as i32 } else { 0_i32 }).max(1_i32) * m.group as i32;
    let live = (n - first).min(m.block() as i32).max(0_i32);
    let (half, size) = ((m.d / 2) as i32, (m.d * m.d) as i32);
    release_next();
    let mut turned = shared::<f32>(m.block() * m.d);
    let mut mapped = shared::<f32>(m.block() * m.d);
    let mut zeros = shared::<i32>(m.d);
    zeros_of(k, &mut zeros, m.d);
    // Several pairs a thread at once: their loads are on their way together.
    for e in threads(if live > 0_i32 { (m.block() * m.d / 2 / PAIRS) as i32 } else { 0_i32 }) {
        for pair in 0..PAIRS {
            let (r, i) = ((e + (pair * m.block() * m.d / 2 / PAIRS) as i32) / half, e % half);
            let row = (first + r).min(n - 1_i32);
            let turn = row / m.group as i32 * m.d as i32 + 2_i32 * i;
            let at = ((seq * kv_heads + head) * m.group as i32 + row % m.group as i32) as i64 * m.d as i64 + i as i64;
            let (a, b) = back(finite(q.at(at).to_f32()), finite(q.at(at + half as i64).to_f32()), turns.at(turn), turns.at(turn + 1_i32));
            turned.put(r * m.d as i32 + i, a);
            turned.put(r * m.d as i32 + i + half, b);
        }
    }
    for t in threads(128) {
        let (c, own) = (t % (m.d / 4) as i32, t / (m.d / 4) as i32 * m.rows as i32);
        if own < live {
            let sums = products(maps, ((2_i32 * kv_heads + head) as i64 * size as i64 + (4_i32 * c) as i64) * 4_i64, &turned, own, m.rows, m.d);
            for r in 0..m.rows {
                mapped.save4::<f32>((own + r as i32) * (4 * m.d) as i32 + c * 16_i32, [sums[4 * r], sums[4 * r + 1], sums[4 * r + 2], sums[4 * r + 3]]);
            }
        }
    }
    let mean = 4_i64 * kv_heads as i64 * size as i64 + (head * m.d as i32) as i64;
    for w in warps(4) {
        for top in strided(4_i32 * w, live, 16) {
            // Four rows a turn: one's sums over lanes wait during the others'.
            for i in 0..4 {
                let r = (top + i as i32).min(live - 1_i32);
                let (segment, member) = ((first + r) / m.group as i32, (first + r) % m.group as i32);
                let record = ((seq * kv_heads + head) as i64 * segments as i64 + segment as i64) * m.record() as i64;
                let (ints, start, unit) = integers(k, &zeros, mapped.row(r * m.d as i32, m.d).map(finite), 1_i32, m.d, scale);
                let bias = (maps.row(mean, m.d) * &turned.row(r * m.d as i32, m.d)).sum() * (scale * 1.442695_f32);
                put_query(queries, record, member, &ints, start, unit, bias, m.cols, m.parts, m.d);
                // Columns of no head are zero.
                if (m.group < m.cols / m.parts) & (member == 0_i32) {
                    for c in m.group..m.cols / m.parts {
                        put_query(queries, record, c as i32, &(&ints * 0_i32), 0_i32, 0.0_f32, 0.0_f32, m.cols, m.parts, m.d);
                    }
                }
            }
        }
    }
}

/// Head `c` of a record.
#[device]
fn put_query(queries: &mut Global<u8>, record: i64, c: i32, ints: &Tile<i32>, start: i32, unit: f32, bias: f32, cols: usize, parts: usize, d: usize) {
    queries.save_row::<i8>(record + (c * d as i32) as i64, &ints.map(high_part).cast::<i8>());
    queries.save_row::<i8>(record + ((c + (cols / parts) as i32) * d as i32) as i64, &ints.map(low_part).cast::<i8>());
    for part in 0..parts {
        let at = record + (2 * cols / parts * d) as i64 + (4_i32 * (c + (part * cols / parts) as i32)) as i64;
        queries.save::<i32>(at, start);
        queries.save::<f32>(at + (4 * cols) as i64, unit);
        queries.save::<f32>(at + (8 * cols) as i64, bias);
    }
}

/// The bands' right operands in the record at byte `at`, as the decode kernel takes them from shared memory: high
/// bytes (with two parts both), low bytes.
#[device]
pub fn operands<T: Float>(queries: &Global<T>, at: i64, bands: usize, quads: bool, cols: usize, parts: usize, d: usize) -> ([Tile<i8>; 4], [Tile<i8>; 4]) {
    let low = at + ((2 - parts) * cols * d) as i64;
    (parts_of::<T>(queries, at, bands, quads, cols, d), parts_of::<T>(queries, low, bands, quads, cols, d))
}

#[device]
fn parts_of<T: Float>(queries: &Global<T>, at: i64, bands: usize, quads: bool, cols: usize, d: usize) -> [Tile<i8>; 4] {
    [part_of::<T>(queries, at, d / bands, quads, cols, d), part_of::<T>(queries, at + (1 % bands * d / bands) as i64, d / bands, quads, cols, d), part_of::<T>(queries, at + (2 % bands * d / bands) as i64, d / bands, quads, cols, d), part_of::<T>(queries, at + (3 % bands * d / bands) as i64, d / bands, quads, cols, d)]
}

/// A band of `width` dims.
#[device]
fn part_of<T: Float>(queries: &Global<T>, at: i64, width: usize, quads: bool, cols: usize, d: usize) -> Tile<i8> {
    let part = queries.operand::<i8>(at, d, cols, width);
    if quads { part.quad_order() } else { part }
}

/// What the columns' sums start from, what a step of them is worth, and the bias in log2 units.
#[device]
pub fn columns<T: Float>(queries: &Global<T>, at: i64, cols: usize, parts: usize, d: usize) -> (Tile<i32>, Tile<f32>, Tile<f32>) {
    let own = at + (2 * cols / parts * d) as i64;
    (queries.columns::<i32>(own, 4, cols), queries.columns::<f32>(own + (4 * cols) as i64, 4, cols), queries.columns::<f32>(own + (8 * cols) as i64, 4, cols))
}
