//! The affine maps around the kernels of a calibrated codec: `out = (x - before) M + after`, one matrix a kv head.
//!
//! Rows in the store, queries before decode, outputs where they come to be. A row becomes 15-bit integers under its own largest
//! magnitude, a matrix is of 15-bit integers with a step a column: sums of products are exact, so the tensor core makes
//! them in whatever order. Rows are its right operand, 8 at a time; 32 columns of the matrix its left one.
//! Cost: 3 d^2 byte products a row; 2 d^2 bytes of matrix a block.

pub mod outputs;
pub mod queries;
pub mod store;
pub mod walk;

use super::query::finite;
use crate::reference::LARGEST;
use kernel_dsl::prelude::*;

/// Shape of the kernel that maps queries.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MapMeta {
    pub d: usize,
    /// Query heads of a kv head, and query tokens of a block of attention.
    pub group: usize,
    pub fold: usize,
    /// Query heads of a kv head where its parts overlap, else 0.
    pub sharing: usize,
    pub queries: usize,
    /// Columns of the decode kernel and those of one head's weights, as [`super::decode_attention::DecodeMeta`] has them.
    pub cols: usize,
    pub parts: usize,
    pub page_tokens: usize,
    /// Tokens of a segment.
    pub segment: usize,
    /// Bytes of a number of the queries.
    pub elem: usize,
    pub warps: usize,
    pub min_blocks: usize,
}

impl MapMeta {
    /// Query rows of a block of attention.
    pub fn rows(&self) -> usize {
        self.queries * self.group
    }

    /// Bytes of the queries of one (block of attention, segment): see [`queries`].
    pub fn record(&self) -> usize {
        record(self.d, self.cols, self.parts)
    }

    /// Bytes of a row of integers in shared memory.
    pub fn line(&self) -> usize {
        2 * self.d + 16
    }
}

/// Bytes of a row of integers in shared memory, high bytes and low bytes: rows four apart meet at no bank.
#[device]
pub fn int_line(d: usize) -> usize {
    2 * d + 16
}

/// Operand bytes `[high | low, heads, d]`, then for each column the start of its sums, the worth of a step, the bias.
pub const fn record(d: usize, cols: usize, parts: usize) -> usize {
    2 * cols / parts * d + 12 * cols
}

impl Meta for MapMeta {
    fn launch(&self) -> Launch {
        Launch { warps: self.warps, min_blocks: self.min_blocks }
    }
}

/// 1.5 * 2^23: a sum with it rounds to an integer, ties to even, which then stands in the low bits.
const MAGIC: f32 = 12_582_912.0;
const MAGIC_BITS: u32 = 0x4b40_0000;

/// `x by` as an integer, rounded once.
#[device]
pub fn integer(x: f32, by: f32) -> i32 {
    x.mul_add(by, MAGIC).to_bits().wrapping_sub(MAGIC_BITS) as i32
}

/// What makes a row of largest magnitude `top` integers.
#[device]
pub fn per_unit(top: f32) -> f32 {
    LARGEST / top
}

/// What a step of such a row is worth.
#[device]
pub fn unit_of(top: f32) -> f32 {
    top * (1.0_f32 / LARGEST)
}

/// High and low bytes of four integers; `u` has the bits of [`MAGIC`] plus 64 plus the integer: bits 7 on are the high byte, the seven
/// below the low one plus 64.
#[device]
pub fn halves_of(u: [u32; 4]) -> (u32, u32) {
    let (a, b) = (pick(u[0], u[1], 0x5410_u32), pick(u[2], u[3], 0x5410_u32));
    let seven = (pick(a, b, 0x6420_u32) & 0x7f7f_7f7f_u32) | 0x8080_8080_u32;
    // Less 64, and no byte borrows.
    (pick(a << 1, b << 1, 0x7531_u32), seven.wrapping_sub(0x4040_4040_u32) ^ 0x8080_8080_u32)
}

/// Every fourth block of eight of a row, from block `j` on, sanitised; `back` to the start of the segment whose turn begins at element `from`.
#[device]
pub fn turned(x: [f32; 128], turns: &Global<f32>, from: i64, back: bool, j: i32, d: usize) -> [f32; 128] {
    let mut x = x;
    // Magnitudes that sum to little need no care.
    let mut all = [0.0_f32; 4];
    for i in 0..d / 4 {
        all[i % 4] = all[i % 4] + x[i].abs();
    }
    let clean = (all[0] + all[1]) + (all[2] + all[3]) <= 65504.0_f32;
    if !clean {
        for i in 0..d / 4 {
            x[i] = finite(x[i]);
        }
    }
    if back {
        for k in 0..d / 64 {
            let at = (from + (j * 8_i32 + (32 * k) as i32) as i64) * 4_i64;
            for part in 0..2 {
                let cos = turns.load4::<f32>(at + (16 * part) as i64);
                let sin = turns.load4::<f32>(at + (16 * part + 2 * d) as i64);
                for e in 0..4 {
                    let low = 8 * k + 4 * part + e;
                    let (a, b) = (x[low], x[low + d / 8]);
                    x[low] = a.mul_add(cos[e], b * sin[e]);
                    x[low + d / 8] = b.mul_add(cos[e], -(a * sin[e]));
                }
            }
        }
    }
    x
}

/// What the high parts of 32 columns of a matrix make of rows of integers, see [`crate::reference::project`].
#[device]
pub fn large(left: &Tile<i8>, high: &Tile<i8>, low: &Tile<i8>) -> Tile<i32> {
    mma(left, low, &(mma(left, high, 0_i32) * 128_i32))
}

/// Rows of integers, both bytes as right operands, times the 32 columns whose high parts lie at byte `at`.
#[device]
pub fn mapped(maps: &Global<i8>, at: i64, high: &Tile<i8>, low: &Tile<i8>, d: usize) -> Tile<f32> {
    let sum = large(&maps.packed_left::<i8>(at, 32, d), high, low);
    mma(&maps.packed_left::<i8>(at + (d * d) as i64, 32, d), high, &sum).cast::<f32>()
}

/// First byte of 32 columns from `column` on: map 0 to 3 is of keys, values, queries, outputs.
#[device]
pub fn matrix_at(map: i32, kv_heads: i32, head: i32, column: i32, d: usize) -> i64 {
    (map * kv_heads + head) as i64 * (2 * d * d) as i64 + (column * d as i32) as i64
}

/// Element of the worth of a map's first column.
#[device]
pub fn worth_at(map: i32, kv_heads: i32, head: i32, d: usize) -> i64 {
    ((map * kv_heads + head) * d as i32) as i64
}

/// Element of a mean: 0 of keys, 1 of values.
#[device]
pub fn mean_at(kind: i32, kv_heads: i32, head: i32, d: usize) -> i64 {
    (((4_i32 + kind) * kv_heads + head) * d as i32) as i64
}
