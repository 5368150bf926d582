//! A calibrated codec's outputs after the join, back to values: `o B + mu`. A row without tokens stays 0.

use super::super::query::{finite, high_part, low_part, magnitude};
use super::{MapMeta, integer, mapped, matrix_at, mean_at, per_unit, unit_of, worth_at};
use kernel_dsl::prelude::*;

/// A block takes rows (sequence, head) of one kv head, its warps 32 columns each.
#[kernel]
pub fn map_outputs<T: Float>(
    m: MapMeta,
    joined: &Global<f32>, // [batch, heads, d]
    lse: &Global<f32>,    // [batch, heads]; -inf: no tokens
    maps: &Global<i8>,    // a layer's, as `preset::LayerMaps::packed` has them
    scales: &Global<f32>, // likewise
    out: &mut Global<T>,  // [batch, heads, d]
    batch: i32,
    kv_heads: i32,
) {
    let (first, head, n) = (block_id(0) * m.rows as i32, block_id(1), batch * m.group as i32);
    let mut rows = shared::<i8>(m.rows * m.line());
    let mut units = shared::<f32>(m.rows);
    let mut values = shared::<f32>(m.rows * m.d);
    after_previous();
    for w in warps(m.warps) {
        for r in strided(w, m.rows as i32, m.warps) {
            let x = joined.row(row_of((first + r).min(n - 1_i32), head, kv_heads, m.group) * m.d as i64, m.d).map(finite);
            let top = fmax(x.map(magnitude).max(), 1e-20_f32);
            let by = per_unit(top);
            let ints = x.map(|x| integer(x, by));
            rows.save_row::<i8>(r * m.line() as i32, &ints.map(high_part).cast::<i8>());
            rows.save_row::<i8>(r * m.line() as i32 + m.d as i32, &ints.map(low_part).cast::<i8>());
            units.put(r, unit_of(top));
        }
    }
    for w in warps(m.warps) {
        let (high, low) = (rows.operand::<i8>(0, m.line(), m.rows, m.d), rows.operand::<i8>(m.d, m.line(), m.rows, m.d));
        for column in strided(32_i32 * w, m.d as i32, 32 * m.warps) {
            let worth = scales.rows(worth_at(3_i32, kv_heads, head, m.d) + column as i64, 1, 32);
            let mean = scales.rows(mean_at(1_i32, kv_heads, head, m.d) + column as i64, 1, 32);
            let y = mapped(maps, matrix_at(3_i32, kv_heads, head, column, m.d), &high, &low, m.d);
            values.put_acc(column, 1, m.d, m.rows, &(y * &worth * &units.cols(0, 1, m.rows) + &mean));
        }
    }
    for e in threads(m.rows * m.d) {
        if first + e / (m.d as i32) < n {
            let row = row_of(first + e / m.d as i32, head, kv_heads, m.group);
            let some = lse.at(row) > f32::NEG_INFINITY;
            out.put(row * m.d as i64 + (e % m.d as i32) as i64, T::from_f32(if some { values.at(e) } else { 0.0_f32 }));
        }
    }
}

/// Row of q and of the output of the `i`-th (sequence, head) of a kv head.
#[device]
fn row_of(i: i32, head: i32, kv_heads: i32, group: usize) -> i64 {
    ((i / group as i32 * kv_heads + head) * group as i32 + i % group as i32) as i64
}
