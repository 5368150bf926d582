//! A calibrated codec's outputs after the join, back to values: `o B + mu`. A row without tokens stays 0.

use super::super::query::finite;
use super::{MapMeta, products};
use kernel_dsl::prelude::*;

/// A block takes rows (sequence, head) of one kv head.
#[kernel]
pub fn map_outputs<T: Float>(
    m: MapMeta,
    joined: &Global<f32>, // [batch, heads, d]
    lse: &Global<f32>,    // [batch, heads]; -inf: no tokens
    maps: &Global<f32>,   // a layer's, as `preset::LayerMaps::packed` has them
    out: &mut Global<T>,  // [batch, heads, d]
    batch: i32,
    kv_heads: i32,
) {
    let (first, head, n) = (block_id(0) * m.block() as i32, block_id(1), batch * m.group as i32);
    let size = (m.d * m.d) as i32;
    let mut rows = shared::<f32>(m.block() * m.d);
    after_previous();
    for e in threads(m.block() * m.d) {
        let row = row_of((first + e / m.d as i32).min(n - 1_i32), head, kv_heads, m.group);
        rows.put(e, finite(joined.at(row * m.d as i64 + (e % m.d as i32) as i64)));
    }
    for t in threads(128) {
        let (c, own) = (t % (m.d / 4) as i32, t / (m.d / 4) as i32 * m.rows as i32);
        let sums = products(maps, ((3_i32 * kv_heads + head) as i64 * size as i64 + (4_i32 * c) as i64) * 4_i64, &rows, own, m.rows, m.d);
        let mean = maps.load4::<f32>((4_i64 * kv_heads as i64 * size as i64 + ((kv_heads + head) * m.d as i32 + 4_i32 * c) as i64) * 4_i64);
        for r in 0..m.rows {
            if first + own + (r as i32) < n {
                let row = row_of(first + own + r as i32, head, kv_heads, m.group);
                let some = lse.at(row) > f32::NEG_INFINITY;
                for j in 0..4 {
                    out.put(row * m.d as i64 + (4_i32 * c + j as i32) as i64, T::from_f32(if some { sums[4 * r + j] + mean[j] } else { 0.0_f32 }));
                }
            }
        }
    }
}

/// Row of q and of the output of the `i`-th (sequence, head) of a kv head.
#[device]
fn row_of(i: i32, head: i32, kv_heads: i32, group: usize) -> i64 {
    ((i / group as i32 * kv_heads + head) * group as i32 + i % group as i32) as i64
}
