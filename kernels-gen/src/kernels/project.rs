//! Affine maps of rows, one matrix a kv head: `out = (x - before) M + after`.
//!
//! A calibrated codec codes keys and values in a basis of its own. Three maps make the basis vanish from the
//! attention loop: rows before the store, queries before decode, outputs after the join. Every product is one
//! fused multiply-add and dims are added in order, so all sides give the same bits.
//! Cost: d^2 multiply-adds a row; reads a matrix once for each 64 rows.

use crate::kernels::query::finite;
use kernel_dsl::prelude::*;

/// Rows that a warp maps together: a matrix row is loaded once for all of them.
pub const ROWS: usize = 8;

/// Shape of a projection.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ProjectMeta {
    pub d: usize,
    pub warps: usize,
}

impl Meta for ProjectMeta {
    fn launch(&self) -> Launch {
        Launch { warps: self.warps, min_blocks: 2 }
    }
}

#[kernel]
pub fn project<T: Float, U: Float>(
    m: ProjectMeta,
    x: &Global<T>,        // [rows, heads, d], strided
    matrix: &Global<f32>, // [matrices, d (in), d (out)]
    before: &Global<f32>, // [matrices, d]
    after: &Global<f32>,  // [matrices, d]
    out: &mut Global<U>,  // [rows, heads, d]
    rows: i32,
    matrices: i32,
    group: i32, // heads of one matrix: heads = matrices * group
    row_stride: i64,
    head_stride: i64,
) {
    let (first, own) = (block_id(0) * (m.warps * ROWS) as i32, block_id(1));
    let head = own * group + block_id(2);
    let mut centred = shared::<f32>(m.warps * ROWS * m.d);
    for w in warps(m.warps) {
        let top = first + w * ROWS as i32;
        let a = before.row(own * m.d as i32, m.d);
        for r in 0..ROWS {
            let row = (top + r as i32).min(rows - 1_i32) as i64;
            let y = x.row(row * row_stride + head as i64 * head_stride, m.d).to_f32().map(finite) - &a;
            centred.put_row((w * ROWS as i32 + r as i32) * m.d as i32, &y);
        }
    }
    for w in warps(m.warps) {
        let top = first + w * ROWS as i32;
        let mut sums = [vector(m.d, 0.0_f32), vector(m.d, 0.0_f32), vector(m.d, 0.0_f32), vector(m.d, 0.0_f32), vector(m.d, 0.0_f32), vector(m.d, 0.0_f32), vector(m.d, 0.0_f32), vector(m.d, 0.0_f32)];
        for i in strided(0_i32, m.d as i32, 1_i32) {
            let line = matrix.row((own * m.d as i32 + i) as i64 * m.d as i64, m.d);
            for r in 0..ROWS {
                sums[r] = line.mul_add(centred.at((w * ROWS as i32 + r as i32) * m.d as i32 + i), &sums[r]);
            }
        }
        let b = after.row(own * m.d as i32, m.d);
        for r in 0..ROWS {
            let row = top + r as i32;
            if row < rows {
                out.put_row((row * (matrices * group) + head) as i64 * m.d as i64, &(&sums[r] + &b).to::<U>());
            }
        }
    }
}
