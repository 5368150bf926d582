//! A calibrated codec's queries: turned back to each segment of their sequence, mapped, quantised to what attention
//! multiplies with. One record a (sequence, kv head, block of query tokens, segment), [`super::record`] bytes.

use super::super::many::lapping;
use super::super::query::{finite, worth_of};
use super::super::rows::{quad_at, raw};
use super::store::split;
use super::{MAGIC, MAGIC_BITS, MapMeta, halves_of, large, matrix_at, mean_at, turned, worth_at};
use crate::codec::Codec;
use kernel_dsl::prelude::*;

/// A block takes 32 rows (segment, query row) of one block of attention, four threads each before and after the product, in which its
/// warps share the columns of the matrix. A sequence without tokens gets the queries of one segment, so that no record is
/// read that was not written. Grid: [blocks << log_parts | part, kv_heads, batch], for the blocks of query tokens from `block` on.
#[kernel]
pub fn map_queries<T: Float>(
    m: MapMeta,
    k: &[&dyn Codec],         // one
    q: &Global<T>,            // [batch, queries, heads, d]
    turns: &Global<f32>,      // [segments, 2, d / 2]: cosines, sines
    maps: &Global<i8>,        // a layer's, as `preset::LayerMaps::packed` has them
    scales: &Global<f32>,     // likewise
    lens: &Global<i32>,       // [batch]
    records: &mut Global<u8>, // [batch, kv_heads, blocks, segments, record]
    kv_heads: i32,
    table_stride: i32,
    segments: i32,
    scale: f32,
    queries: i32, // query tokens a sequence
    block: i32,
    blocks: i32,
    log_parts: i32,
) {
    let (slot, head, seq) = (block_id(0) >> (log_parts & 31_i32), block_id(1), block_id(2));
    // Whose maps they are.
    let (of_heads, of_head) = (kv_heads / m.fold as i32, head / m.fold as i32);
    let first = (block_id(0) - (slot << (log_parts & 31_i32))) * 32_i32;
    let line_of = (seq * kv_heads + head) as i64 * blocks as i64 + slot as i64;
    let len = lens.at(seq);
    let fits = (len >= 0_i32) & (len <= table_stride * m.page_tokens as i32);
    let n = (if fits { (len + (m.segment as i32 - 1_i32)) / m.segment as i32 } else { 0_i32 }).max(1_i32) * m.rows() as i32;
    let live = (n - first).min(32_i32).max(0_i32);
    let line = m.d + 4;
    let mut rows = shared::<u8>(128 * (m.d + 4));
    let mut ints = shared::<u32>(8 * m.line());
    let mut tops = shared::<f32>(32 * 4);
    let mut units = shared::<f32>(32);
    let mut biases = shared::<f32>(32 * 4);
    let mut starts = shared::<i32>(32 * 4);
    let mut held = by_turn::<f32>(128, m.d / 4);
    for i in threads(128) {
        let r = i >> 2_u32;
        // The product takes eight rows at a time.
        if r < ((live + 7_i32) & -8_i32) {
            let row = (first + r).min(n - 1_i32);
            let column = row % m.rows() as i32;
            let token = seq * queries + ((block + slot) * m.queries as i32 + column / m.group as i32).min(queries - 1_i32);
            let of = if m.sharing > 0 { lapping(token, kv_heads, head, column % m.group as i32, m.group as i32, m.fold, m.sharing) } else { (token * kv_heads + head) * m.group as i32 + column % m.group as i32 };
            let at = of as i64 * (m.d * m.elem) as i64;
            turn::<T>(q, at, turns, (row / m.rows() as i32) as i64 * m.d as i64, scales, mean_at(0_i32, of_heads, of_head, m.d), i, &mut held, &mut tops, &mut biases, m.d, m.elem);
        }
    }
    release_next();
    for i in threads(128) {
        if (i >> 2_u32) < ((live + 7_i32) & -8_i32) {
            split(&held, &tops, &mut ints, &mut units, i, m.d);
        }
    }
    for w in warps(m.warps) {
        for column in strided(32_i32 * w, m.d as i32, 32 * m.warps) {
            let at = matrix_at(2_i32, of_heads, of_head, column, m.d);
            // High parts serve all rows before the low ones are loaded: one of them at a time stays in registers.
            let left: Tile<i8> = maps.packed_left::<i8>(at, 32, m.d);
            let mut sums = [acc(32, 8, 0_i32), acc(32, 8, 0_i32), acc(32, 8, 0_i32), acc(32, 8, 0_i32)];
            for part in 0..4 {
                if ((8 * part) as i32) < live {
                    sums[part] = large(&left, &ints.operand::<i8>(8 * part * m.line(), m.line(), 8, m.d), &ints.operand::<i8>(8 * part * m.line() + m.d, m.line(), 8, m.d));
                }
            }
            let small: Tile<i8> = maps.packed_left::<i8>(at + (m.d * m.d) as i64, 32, m.d);
            let worth = scales.rows(worth_at(2_i32, of_heads, of_head, m.d) + column as i64, 1, 32);
            for part in 0..4 {
                if ((8 * part) as i32) < live {
                    let sum = mma(&small, &ints.operand::<i8>(8 * part * m.line(), m.line(), 8, m.d), &sums[part]);
                    let y = (sum.cast::<f32>() * &worth * &units.cols(8 * part, 1, 8)).map(finite);
                    rows.save_acc::<f32>(column * 4_i32 + (8 * part * 4 * line) as i32, 4, 4 * line, 8, &y);
                }
            }
        }
    }
    for i in threads(128) {
        let (r, j) = (i >> 2_u32, i & 3_i32);
        let mut top = 0.0_f32;
        if r < live {
            for quad in 0..m.d / 16 {
                let y = rows.load4::<f32>(quad_at(r, j * 2_i32 + (8 * (quad / 2) + quad % 2) as i32, line));
                top = farther(farther(farther(top, y[0]), farther(y[1], y[2])), y[3]);
            }
        }
        tops.put(i, top);
    }
    for i in threads(128) {
        let (r, j) = (i >> 2_u32, i & 3_i32);
        if r < live {
            let (segment, member) = ((first + r) / m.rows() as i32, (first + r) % m.rows() as i32);
            let record = (line_of * segments as i64 + segment as i64) * m.record() as i64;
            starts.put(i, put_query(k[0], records, record, member, &rows, top_of(&tops, r), j, r, m.cols, m.parts, m.rows(), m.d, line));
        }
    }
    for r in threads(32) {
        if r < live {
            let (segment, member) = ((first + r) / m.rows() as i32, (first + r) % m.rows() as i32);
            let record = (line_of * segments as i64 + segment as i64) * m.record() as i64;
            put_columns(records, record, member, start_of(&starts, r), worth_of(k[0], top_of(&tops, r), scale), bias_of(&biases, r, scale), m.cols, m.parts, m.d);
            // Columns of no head are zero.
            if (m.rows() < m.cols / m.parts) & (member == 0_i32) {
                for c in m.rows()..m.cols / m.parts {
                    put_columns(records, record, c as i32, 0_i32, 0.0_f32, 0.0_f32, m.cols, m.parts, m.d);
                }
            }
        }
    }
}

/// What a row's sums start from, of what four threads found.
#[device]
fn start_of(starts: &Shared<i32>, r: i32) -> i32 {
    let s = starts.load4::<i32>(r * 16_i32);
    ((s[0] + s[1]) + (s[2] + s[3])) * -1_i32
}
/// What the keys' mean adds to a score, in log2 units.
#[device]
fn bias_of(biases: &Shared<f32>, r: i32, scale: f32) -> f32 {
    let b = biases.load4::<f32>(r * 16_i32);
    ((b[0] + b[1]) + (b[2] + b[3])) * (scale * 1.442695_f32)
}

/// The largest magnitude of a row, of what four threads found.
#[device]
fn top_of(tops: &Shared<f32>, r: i32) -> f32 {
    let own = tops.load4::<f32>(r * 16_i32);
    fmax(fmax(fmax(own[0], own[1]), fmax(own[2], own[3])), 1e-20_f32)
}

/// Every fourth block of eight of a query from block `j` on, turned back; its largest magnitude and its part of the product with the
/// keys' mean, a chain over pairs of coordinates.
#[device]
#[allow(clippy::too_many_arguments)]
fn turn<T: Float>(q: &Global<T>, at: i64, turns: &Global<f32>, from: i64, scales: &Global<f32>, mean: i64, i: i32, held: &mut ByTurn<f32>, tops: &mut Shared<f32>, biases: &mut Shared<f32>, d: usize, elem: usize) {
    let j = i & 3_i32;
    let x = turned(raw::<T>(q, at, j, d, elem), turns, from, true, j, d);
    let (mut top, mut bias) = (1e-20_f32, 0.0_f32);
    for k in 0..d / 64 {
        for part in 0..2 {
            let own = (mean + (j * 8_i32 + (32 * k + 4 * part) as i32) as i64) * 4_i64;
            let (low, high) = (scales.load4::<f32>(own), scales.load4::<f32>(own + (2 * d) as i64));
            for e in 0..4 {
                let (a, b) = (x[8 * k + 4 * part + e], x[8 * k + 4 * part + e + d / 8]);
                bias = b.mul_add(high[e], a.mul_add(low[e], bias));
                top = farther(top, farther(a, b));
            }
        }
    }
    for e in 0..d / 4 {
        held.put(i, e, x[e]);
    }
    tops.put(i, top);
    biases.put(i, bias);
}

/// The same blocks of a mapped query as integers, head `member` of a record; the sum of their products with the lanes that stand for zero.
#[device]
#[allow(clippy::too_many_arguments)]
fn put_query(c: &dyn Codec, queries: &mut Global<u8>, record: i64, member: i32, rows: &Shared<u8>, top: f32, j: i32, r: i32, cols: usize, parts: usize, group: usize, d: usize, line: usize) -> i32 {
    let by = c.spec().query_max() / top;
    let mut sum = 0_i32;
    for quad in 0..d / 16 {
        let at = j * 2_i32 + (8 * (quad / 2) + quad % 2) as i32;
        let (high, low, start) = digits_of_query(c, rows.load4::<f32>(quad_at(r, at, line)), by, quad);
        sum = sum + start;
        let byte = record + (member * d as i32 + at * 4_i32) as i64;
        queries.save::<u32>(byte, high);
        queries.save::<u32>(byte + (cols / parts * d) as i64, low);
        if (group < cols / parts) & (member == 0_i32) {
            for other in group..cols / parts {
                queries.save::<u32>(byte + (other * d) as i64, 0_u32);
                queries.save::<u32>(byte + ((other + cols / parts) * d) as i64, 0_u32);
            }
        }
    }
    sum
}

/// High and low bytes of four coordinates, and the sum of their products with the lanes that stand for zero.
#[device]
fn digits_of_query(c: &dyn Codec, y: [f32; 4], by: f32, quad: usize) -> (u32, u32, i32) {
    let mut u = [0_u32; 4];
    let mut sum = 0_i32;
    for e in 0..4 {
        u[e] = (y[e] * by + (MAGIC + 64.0_f32)).to_bits();
        let zero = if c.spec().even() { c.spec().zeros2()[quad % 2 * 4 + e] / 2 } else { c.spec().zeros2()[quad % 2 * 4 + e] };
        sum = sum + u[e].wrapping_sub(MAGIC_BITS + 64_u32) as i32 * zero;
    }
    let (high, low) = halves_of(u);
    (high, low, sum)
}

/// What the sums of head `c` start from, the worth of a step, the bias.
#[device]
#[allow(clippy::too_many_arguments)]
fn put_columns(queries: &mut Global<u8>, record: i64, c: i32, start: i32, unit: f32, bias: f32, cols: usize, parts: usize, d: usize) {
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
    [
        part_of::<T>(queries, at, d / bands, quads, cols, d),
        part_of::<T>(queries, at + (1 % bands * d / bands) as i64, d / bands, quads, cols, d),
        part_of::<T>(queries, at + (2 % bands * d / bands) as i64, d / bands, quads, cols, d),
        part_of::<T>(queries, at + (3 % bands * d / bands) as i64, d / bands, quads, cols, d),
    ]
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
    let (start, worth, bias) = (queries.columns::<i32>(own, 4, cols), queries.columns::<f32>(own + (4 * cols) as i64, 4, cols), queries.columns::<f32>(own + (8 * cols) as i64, 4, cols));
    if parts == 2 { (start.left_halves(), worth.left_halves(), bias.left_halves()) } else { (start, worth, bias) }
}
