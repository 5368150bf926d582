//! A calibrated codec's queries: turned back to each segment of their sequence, mapped, quantised to what the decode
//! kernel multiplies with. One record a (sequence, kv head, segment), [`super::record`] bytes.

use super::super::query::{finite, high_part, integers, low_part, zeros_of};
use super::super::softmax::fused;
use super::{MapMeta, integer, large, larger_of, matrix_at, mean_at, per_unit, unit_of, worth_at};
use crate::codec::Codec;
use kernel_dsl::prelude::*;

/// A block takes rows (segment, head) of one (sequence, kv head). Its warps share the rows before and after the product,
/// `m.rows` each, and the columns of the matrix in it. A sequence without tokens gets the
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
    let mut values = shared::<f32>(m.rows * m.warps * (m.d + 4));
    let mut units = shared::<f32>(m.rows * m.warps);
    let mut biases = shared::<f32>(m.rows * m.warps);
    let mut zeros = shared::<i32>(m.d);
    zeros_of(k, &mut zeros, m.d);
    for w in warps(m.warps) {
        let (half, mean) = ((m.d / 2) as i64, mean_at(0_i32, kv_heads, head, m.d));
        let (mean_a, mean_b) = (scales.row(mean, m.d / 2), scales.row(mean + half, m.d / 2));
        let end = if w * (m.rows as i32) < live { (w + 1_i32) * m.rows as i32 } else { 0_i32 };
        for top in strided(w * m.rows as i32, end, 4) {
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
        for column in strided(32_i32 * w, m.d as i32, 32 * m.warps) {
            let at = matrix_at(2_i32, kv_heads, head, column, m.d);
            // High parts serve all rows before the low ones are loaded: one of them at a time stays in registers.
            let left: Tile<i8> = maps.packed_left::<i8>(at, 32, m.d);
            let mut sums = [acc(32, 8, 0_i32), acc(32, 8, 0_i32), acc(32, 8, 0_i32), acc(32, 8, 0_i32)];
            for part in 0..m.warps {
                if ((8 * part) as i32) < live {
                    sums[part] = large(&left, &rows.operand::<i8>(8 * part * m.line(), m.line(), 8, m.d), &rows.operand::<i8>(8 * part * m.line() + m.d, m.line(), 8, m.d));
                }
            }
            let small: Tile<i8> = maps.packed_left::<i8>(at + (m.d * m.d) as i64, 32, m.d);
            let worth = scales.rows(worth_at(2_i32, kv_heads, head, m.d) + column as i64, 1, 32);
            for part in 0..m.warps {
                if ((8 * part) as i32) < live {
                    let sum = mma(&small, &rows.operand::<i8>(8 * part * m.line(), m.line(), 8, m.d), &sums[part]);
                    let y = (sum.cast::<f32>() * &worth * &units.cols(8 * part, 1, 8)).map(finite);
                    values.put_acc(column + (8 * part * (m.d + 4)) as i32, 1, m.d + 4, 8, &y);
                }
            }
        }
    }
    for w in warps(m.warps) {
        let end = if w * (m.rows as i32) < live { (w + 1_i32) * m.rows as i32 } else { 0_i32 };
        for top in strided(w * m.rows as i32, end, 4) {
            for i in 0..4 {
                let r = (top + i as i32).min(live - 1_i32);
                let (segment, member) = ((first + r) / m.group as i32, (first + r) % m.group as i32);
                let record = ((seq * kv_heads + head) as i64 * segments as i64 + segment as i64) * m.record() as i64;
                let (ints, start, worth) = integers(k, &zeros, values.row(r * (m.d + 4) as i32, m.d), 1_i32, m.d, scale);
                put_query(queries, record, member, &ints, start, worth, biases.at(r), m.cols, m.parts, m.d);
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

/// A row of integers, its first and second half: high bytes, then low ones.
#[device]
fn put_halves(rows: &mut Shared<i8>, at: i32, a: &Tile<i32>, b: &Tile<i32>, d: usize) {
    rows.save_row::<i8>(at, &a.map(high_part).cast::<i8>());
    rows.save_row::<i8>(at + (d / 2) as i32, &b.map(high_part).cast::<i8>());
    rows.save_row::<i8>(at + d as i32, &a.map(low_part).cast::<i8>());
    rows.save_row::<i8>(at + (d + d / 2) as i32, &b.map(low_part).cast::<i8>());
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
