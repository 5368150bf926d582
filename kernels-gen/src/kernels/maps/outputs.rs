//! A calibrated codec's outputs, back to values where they come to be: `o B + mu`. A row becomes integers in its block's shared memory,
//! then the block's warps take 32 columns of the matrix each. A row without tokens stays 0.
//!
//! Cost: reads 2 d^2 bytes of matrix a block.

use super::super::decode_attention::DecodeMeta;
use super::super::many::row_of;
use super::super::query::{finite, high_part, low_part, magnitude};
use super::{int_line, integer, mapped, matrix_at, mean_at, per_unit, unit_of, worth_at};
use kernel_dsl::prelude::*;

/// Row `c`, all of a head's output, and whether it has tokens.
#[device]
pub fn settle(y: &Tile<f32>, good: bool, c: i32, ints: &mut Shared<u8>, units: &mut Shared<f32>, some: &mut Shared<i32>, d: usize) {
    let x = y.map(finite);
    let top = fmax(x.map(magnitude).max(), 1e-20_f32);
    let by = per_unit(top);
    let v = x.map(|x| integer(x, by));
    ints.save_row::<i8>(c * int_line(d) as i32, &v.map(high_part).cast::<i8>());
    ints.save_row::<i8>(c * int_line(d) as i32 + d as i32, &v.map(low_part).cast::<i8>());
    units.put(c, unit_of(top));
    some.put(c, if good { 1_i32 } else { 0_i32 });
}

/// Maps a block's rows and writes them, if the block is to; `values` has room for them.
#[device]
#[allow(clippy::too_many_arguments)]
pub fn put_values<T: Float>(
    m: &DecodeMeta,
    maps: &Global<i8>,
    scales: &Global<f32>,
    ints: &Shared<u8>,
    units: &Shared<f32>,
    some: &Shared<i32>,
    values: &mut Shared<f32>,
    out: &mut Global<T>,
    kv_heads: i32,
    head: i32,
    seq: i32,
    queries: i32,
    first: i32,
    on: bool,
) {
    for w in warps(m.warps) {
        for column in strided(32_i32 * w, if on { m.d as i32 } else { 0_i32 }, 32 * m.warps) {
            for part in 0..m.settled() / 8 {
                let y = values_at(maps, scales, ints, units, kv_heads / m.fold as i32, head / m.fold as i32, column, 8 * part, 8, m.d);
                values.put_acc(column + (8 * part * m.d) as i32, 1, m.d, m.rows() - 8 * part, &y);
            }
        }
    }
    put_rows::<T>(m, values, some, out, kv_heads, head, seq, queries, first, on);
}

/// A block's rows of values where they belong, 0 for those without tokens.
#[device]
#[allow(clippy::too_many_arguments)]
pub fn put_rows<T: Float>(m: &DecodeMeta, values: &Shared<f32>, some: &Shared<i32>, out: &mut Global<T>, kv_heads: i32, head: i32, seq: i32, queries: i32, first: i32, on: bool) {
    for e in threads(if on { (m.rows() * m.d) as i32 } else { 0_i32 }) {
        let c = e / m.d as i32;
        if if m.many { first + c / (m.group as i32) < queries } else { true } {
            let to = row_of(m, seq, kv_heads, head, queries, first, c) as i64 * m.d as i64 + (e % m.d as i32) as i64;
            out.put(to, T::from_f32(where_some(values.at(e), some.at(c))));
        }
    }
}

/// Values of 32 coordinates from `column` on, of eight rows from `first` on, or of one row eight times.
#[device]
#[allow(clippy::too_many_arguments)]
pub fn values_at(maps: &Global<i8>, scales: &Global<f32>, ints: &Shared<u8>, units: &Shared<f32>, kv_heads: i32, head: i32, column: i32, first: usize, rows: usize, d: usize) -> Tile<f32> {
    let (line, step) = (if rows > 1 { int_line(d) } else { 0 }, if rows > 1 { 1 } else { 0 });
    let (high, low) = (ints.operand::<i8>(first * int_line(d), line, 8, d), ints.operand::<i8>(first * int_line(d) + d, line, 8, d));
    let worth = scales.rows(worth_at(3_i32, kv_heads, head, d) + column as i64, 1, 32);
    let mean = scales.rows(mean_at(1_i32, kv_heads, head, d) + column as i64, 1, 32);
    mapped(maps, matrix_at(3_i32, kv_heads, head, column, d), &high, &low, d) * &worth * &units.cols(first, step, 8) + &mean
}

/// Likewise of eight rows from `row` on, which the device knows.
#[device]
#[allow(clippy::too_many_arguments)]
pub fn values_of_rows(maps: &Global<i8>, scales: &Global<f32>, ints: &Shared<u8>, units: &Shared<f32>, kv_heads: i32, head: i32, column: i32, row: i32, d: usize) -> Tile<f32> {
    let at = row * int_line(d) as i32;
    let (high, low) = (ints.operand::<i8>(at, int_line(d), 8, d), ints.operand::<i8>(at + d as i32, int_line(d), 8, d));
    let worth = scales.rows(worth_at(3_i32, kv_heads, head, d) + column as i64, 1, 32);
    let mean = scales.rows(mean_at(1_i32, kv_heads, head, d) + column as i64, 1, 32);
    mapped(maps, matrix_at(3_i32, kv_heads, head, column, d), &high, &low, d) * &worth * &units.cols(row, 1, 8) + &mean
}

/// `y` where a row has tokens.
#[device]
pub fn where_some(y: f32, some: i32) -> f32 {
    if some > 0_i32 { y } else { 0.0_f32 }
}
