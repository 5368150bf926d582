//! The affine maps around the kernels of a calibrated codec: `out = (x - before) M + after`, one matrix a kv head.
//!
//! Rows before the store, queries before decode, outputs after the join. Every product is one fused multiply-add and
//! dims are added in order, so all sides give the same bits. A thread takes four columns of several rows: what it
//! reads of a matrix serves them all, and a row is read by all its threads at once.
//! Cost: d^2 multiply-adds a row; a block reads a matrix once.

pub mod outputs;
pub mod queries;
pub mod rows;

use super::query::finite;
use kernel_dsl::prelude::*;

/// Shape of the kernels that map.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MapMeta {
    pub d: usize,
    /// Query heads of a kv head.
    pub group: usize,
    /// Columns of the decode kernel and those of one head's weights, as [`super::decode_attention::DecodeMeta`] has them.
    pub cols: usize,
    pub parts: usize,
    pub page_tokens: usize,
    /// Tokens of a segment.
    pub segment: usize,
    /// Rows of a thread, 1 to 16.
    pub rows: usize,
}

/// Warps of a block.
const WARPS: usize = 4;

impl MapMeta {
    /// Rows of a block.
    pub fn block(&self) -> usize {
        self.rows * 128 * WARPS / self.d
    }

    /// Bytes of the queries of one (sequence, kv head, segment): see [`queries`].
    pub fn record(&self) -> usize {
        record(self.d, self.cols, self.parts)
    }
}

/// Operand bytes `[high | low, heads, d]`, then for each column the start of its sums, the worth of a step, the bias.
pub const fn record(d: usize, cols: usize, parts: usize) -> usize {
    2 * cols / parts * d + 12 * cols
}

impl Meta for MapMeta {
    fn launch(&self) -> Launch {
        Launch { warps: WARPS, min_blocks: if self.rows > 8 { 2 } else if self.rows > 2 { 4 } else { 2 } }
    }
}

/// A pair of coordinates turned back: `(a cos + b sin, b cos - a sin)`, the second product of each rounded first.
#[device]
fn back(a: f32, b: f32, cos: f32, sin: f32) -> (f32, f32) {
    (finite(a.mul_add(cos, b * sin)), finite(b.mul_add(cos, -(a * sin))))
}

/// `n` lines of a matrix, at most 16, four columns of each, from byte `at` on.
#[device]
fn lines(maps: &Global<f32>, at: i64, n: usize, d: usize) -> [[f32; 4]; 16] {
    let mut all = [[0.0_f32; 4]; 16];
    for i in 0..n {
        all[i] = maps.load4::<f32>(at + (4 * d * i) as i64);
    }
    all
}

/// `n` rows from row `first` on times four columns of the matrix whose first line has them at byte `at`: four sums a row.
/// Few rows leave a thread waiting for the matrix: it then asks for more lines at once.
#[device]
fn products(maps: &Global<f32>, at: i64, rows: &Shared<f32>, first: i32, n: usize, d: usize) -> [f32; 64] {
    let turn = if n > 2 { 4 } else { 16 };
    let mut sums = [0.0_f32; 64];
    let mut next = lines(maps, at, turn, d);
    for i in strided(0_i32, (d / turn) as i32, 1) {
        // The lines of the next turn are on their way during this one.
        let line = next;
        next = lines(maps, at + ((i + 1_i32).min((d / turn) as i32 - 1_i32) * (4 * turn * d) as i32) as i64, turn, d);
        for part in 0..turn / 4 {
            let mut x = [[0.0_f32; 4]; 16];
            for r in 0..n {
                x[r] = rows.load4::<f32>((first + r as i32) * (4 * d) as i32 + i * (4 * turn) as i32 + (16 * part) as i32);
            }
            for k in 0..4 {
                for r in 0..n {
                    for j in 0..4 {
                        sums[4 * r + j] = line[4 * part + k][j].mul_add(x[r][k], sums[4 * r + j]);
                    }
                }
            }
        }
    }
    sums
}
