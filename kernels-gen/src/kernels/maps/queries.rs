//! A calibrated codec's queries: turned back to each segment of their sequence, mapped, quantised to what the decode
//! kernel multiplies with. One record a (sequence, kv head, segment), [`super::record`] bytes.

use super::super::query::{finite, high_part, low_part, nearest};
use super::super::softmax::fused;
use super::{MapMeta, integer, larger_of, mapped, matrix_at, mean_at, per_unit, unit_of, worth_at};
use crate::codec::Codec;
use kernel_dsl::prelude::*;

/// A block takes rows (segment, head) of one (sequence, kv head), `m.rows` a warp. A sequence without tokens gets the
/// queries of one segment, so that no record is read that was not written.
#[kernel]
pub fn map_queries<T: Float>(
    m: MapMeta,
    k: &[&dyn Codec],         // one a band
    q: &Global<T>,            // [batch, heads, d]
    turns: &Global<f32>,      // [segments, 2, d / 2]: cosines, sines
    maps: &Global<i8>,        // a layer's, as `preset::LayerMaps::packed` has them
    scales: &Global<f32>,     // likewise
    lens: &Global<i32>,       // [batch]
    queries: &mut Global<u8>, // [batch, kv_heads, segments, record]
    kv_heads: i32,
    table_stride: i32,
    segments: i32,
    scale: f32,
) {
    let (first, head, seq) = (block_id(0) * (m.rows * m.warps) as i32, block_id(1), block_id(2));
    let len = lens.at(seq);
    let fits = (len >= 0_i32) & (len <= table_stride * m.page_tokens as i32);
    let n = (if fits { (len + (m.segment as i32 - 1_i32)) / m.segment as i32 } else { 0_i32 }).max(1_i32) * m.group as i32;
    let live = (n - first).min((m.rows * m.warps) as i32).max(0_i32);
    release_next();
    let mut rows = shared::<i8>(m.rows * m.warps * m.line());
    let mut coded = shared::<i8>(m.rows * m.warps * m.line());
    let mut units = shared::<f32>(m.rows * m.warps);
    // What each row's sums start from, the worth of a step, the bias.
    let mut starts = shared::<i32>(m.rows * m.warps);
    let mut worths = shared::<f32>(m.rows * m.warps);
    let mut biases = shared::<f32>(m.rows * m.warps);
    let mut zeros = shared::<i32>(m.d);
    for i in threads(m.d) {
        zeros.put(i, zero_at(k, i, m.d));
    }
    for w in warps(m.warps) {
        let (half, mean) = ((m.d / 2) as i64, mean_at(0_i32, kv_heads, head, m.d));
        let (mean_a, mean_b) = (scales.row(mean, m.d / 2), scales.row(mean + half, m.d / 2));
        for top in strided(w * m.rows as i32, live.min((w + 1_i32) * m.rows as i32), 4) {
            // Four rows a turn: one's loads and sums over lanes wait during the others'.
            for i in 0..4 {
                let r = top + i as i32;
                let row = (first + r).min(n - 1_i32);
                let turn = (row / m.group as i32) as i64 * m.d as i64;
                let at = ((seq * kv_heads + head) * m.group as i32 + row % m.group as i32) as i64 * m.d as i64;
                let (x, y) = (q.row(at, m.d / 2).to_f32().map(finite), q.row(at + half, m.d / 2).to_f32().map(finite));
                let (cos, sin) = (turns.row(turn, m.d / 2), turns.row(turn + half, m.d / 2));
                let a = x.map3(&cos, &(&y * &sin), fused);
                let b = y.map3(&cos, &(&x * &sin * -1.0_f32), fused);
                let top = fmax(a.map2(&b, larger_of).max(), 1e-20_f32);
                let by = per_unit(top);
                let (low, high) = (a.map(|x| integer(x, by)), b.map(|x| integer(x, by)));
                put_halves(&mut rows, r * m.line() as i32, &low, &high, m.d);
                units.put(r, unit_of(top));
                biases.put(r, a.map3(&mean_a, &(&b * &mean_b), fused).sum() * (scale * 1.442695_f32));
            }
        }
    }
    for w in warps(m.warps) {
        let own = w * m.rows as i32;
        if own < live {
            let byte = own * m.line() as i32;
            let (high, low) = (rows.operand::<i8>(byte, m.line(), m.rows, m.d), rows.operand::<i8>(byte + m.d as i32, m.line(), m.rows, m.d));
            let unit = units.cols(own, 1, m.rows);
            let mut y = [acc(32, m.rows, 0.0_f32), acc(32, m.rows, 0.0_f32), acc(32, m.rows, 0.0_f32), acc(32, m.rows, 0.0_f32), acc(32, m.rows, 0.0_f32), acc(32, m.rows, 0.0_f32), acc(32, m.rows, 0.0_f32), acc(32, m.rows, 0.0_f32)];
            for b in 0..m.d / 32 {
                y[b] = mapped(maps, matrix_at(2_i32, kv_heads, head, (32 * b) as i32, m.d), &high, &low, m.d);
            }
            let mut peak = acc(32, m.rows, 1e-20_f32);
            for b in 0..m.d / 32 {
                let worth = scales.rows(worth_at(2_i32, kv_heads, head, m.d) + (32 * b) as i64, 1, 32);
                y[b] = (&y[b] * &worth * &unit).map(finite);
                peak = peak.map2(&y[b], larger_of);
            }
            let top = peak.max_rows();
            let by = top.map(|top| k[0].spec().query_max() / top);
            let mut start = acc(32, m.rows, 0_i32);
            for b in 0..m.d / 32 {
                let ints = (&y[b] * &by).map(nearest);
                start = &start + &(&ints * &zeros.rows(32 * b, 1, 32));
                coded.put_acc(byte + (32 * b) as i32, 1, m.line(), m.rows, &ints.map(high_part).cast::<i8>());
                coded.put_acc(byte + (m.d + 32 * b) as i32, 1, m.line(), m.rows, &ints.map(low_part).cast::<i8>());
            }
            starts.put_cols(own, 1, m.rows, &(start.sum_rows() * -1_i32));
            worths.put_cols(own, 1, m.rows, &top.map(|top| (top * (1.0_f32 / k[0].spec().query_max())) * (scale * (if k[0].spec().even() { 1.442695_f32 } else { 0.7213475_f32 }))));
        }
    }
    let (records, heads) = ((seq * kv_heads + head) as i64 * segments as i64, m.cols / m.parts);
    for e in threads(live * (m.d / 8) as i32) {
        let (r, part) = (e / (m.d / 8) as i32, e % (m.d / 8) as i32);
        let record = (records + ((first + r) / m.group as i32) as i64) * m.record() as i64;
        // High bytes, then low ones, 16 at a time.
        let (side, at) = (part / (m.d / 16) as i32, part % (m.d / 16) as i32 * 16_i32);
        let c = (first + r) % m.group as i32 + side * heads as i32;
        queries.save4::<u32>(record + (c * m.d as i32 + at) as i64, coded.load4::<u32>(r * m.line() as i32 + side * m.d as i32 + at));
        if part == 0_i32 {
            put_column(queries, record, (first + r) % m.group as i32, starts.at(r), worths.at(r), biases.at(r), m.cols, m.parts, m.d);
        }
    }
    // Columns of no head are zero.
    if m.group < heads {
        for r in threads(live) {
            if (first + r) % (m.group as i32) == 0_i32 {
                let record = (records + ((first + r) / m.group as i32) as i64) * m.record() as i64;
                for c in m.group..heads {
                    for at in strided(0_i32, m.d as i32, 16) {
                        queries.save4::<u32>(record + (c * m.d) as i64 + at as i64, [0_u32; 4]);
                        queries.save4::<u32>(record + ((heads + c) * m.d) as i64 + at as i64, [0_u32; 4]);
                    }
                    put_column(queries, record, c as i32, 0_i32, 0.0_f32, 0.0_f32, m.cols, m.parts, m.d);
                }
            }
        }
    }
}

/// The lane that stands for zero at dim i, as the sums' start takes it.
#[device]
fn zero_at(k: &[&dyn Codec], i: i32, d: usize) -> i32 {
    let mut z = k[0].spec().zero2;
    for band in 1..k.len() {
        z = if i < (band * d / k.len()) as i32 { z } else { k[band].spec().zero2 };
    }
    if k[0].spec().even() { z / 2_i32 } else { z }
}

/// A row of integers, its first and second half: high bytes, then low ones.
#[device]
fn put_halves(rows: &mut Shared<i8>, at: i32, a: &Tile<i32>, b: &Tile<i32>, d: usize) {
    rows.save_row::<i8>(at, &a.map(high_part).cast::<i8>());
    rows.save_row::<i8>(at + (d / 2) as i32, &b.map(high_part).cast::<i8>());
    rows.save_row::<i8>(at + d as i32, &a.map(low_part).cast::<i8>());
    rows.save_row::<i8>(at + (d + d / 2) as i32, &b.map(low_part).cast::<i8>());
}

/// What goes with head `c` of a record.
#[device]
fn put_column(queries: &mut Global<u8>, record: i64, c: i32, start: i32, unit: f32, bias: f32, cols: usize, parts: usize, d: usize) {
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
