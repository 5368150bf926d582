//! How far rows are from what they became, and how many bytes of two memories are the same: what a measurement asks of a
//! cache, answered where the cache lies.
//!
//! A warp adds up its rows in order, a block its warps; the sums of blocks come back. Cost: reads each number once;
//! bound by memory.

use super::{THREADS, WARPS};
use kernel_dsl::prelude::*;

/// Rows of a block.
pub const ROWS: usize = 16 * WARPS;

/// Numbers of a block of rows: squared error, energy, cosines.
pub const SUMS: usize = 3;

/// Bytes of a block of memory.
pub const BYTES: usize = 16 * 16 * THREADS;

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DistancesMeta {
    /// Numbers of a row.
    pub d: usize,
}

impl Meta for DistancesMeta {
    fn launch(&self) -> Launch {
        Launch { warps: WARPS, min_blocks: 1 }
    }
}

#[kernel]
pub fn distances(
    m: DistancesMeta,
    x: &Global<f32>,       // [rows, d]
    y: &Global<f32>,       // [rows, d]: what they became
    out: &mut Global<f32>, // [blocks, SUMS]
    rows: i32,
) {
    let mut parts = shared::<f32>(SUMS * WARPS);
    for w in warps(WARPS) {
        let (mut error, mut energy, mut cosines) = (0.0_f32, 0.0_f32, 0.0_f32);
        let first = block_id(0) * ROWS as i32;
        for row in strided(first + w, rows.min(first + ROWS as i32), WARPS) {
            let at = row as i64 * m.d as i64;
            let (a, b) = (x.row(at, m.d), y.row(at, m.d));
            let off = &a - &b;
            let (own, square, other, dot) = ((&off * &off).sum(), (&a * &a).sum(), (&b * &b).sum(), (&a * &b).sum());
            error = error + own;
            energy = energy + square;
            // A row that stayed has a cosine of 1, zeros too.
            cosines = cosines + if own == 0.0_f32 { 1.0_f32 } else { dot / fmax(square.sqrt() * other.sqrt(), 1e-12_f32) };
        }
        parts.put(w, error);
        parts.put(w + WARPS as i32, energy);
        parts.put(w + (2 * WARPS) as i32, cosines);
    }
    for i in threads(SUMS) {
        let mut sum = 0.0_f32;
        for w in 0..WARPS {
            sum = sum + parts.at(i * WARPS as i32 + w as i32);
        }
        out.put(block_id(0) as i64 * SUMS as i64 + i as i64, sum);
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SameMeta;

impl Meta for SameMeta {
    fn launch(&self) -> Launch {
        Launch { warps: THREADS / 32, min_blocks: 1 }
    }
}

/// Bytes that two memories have in common, place by place, a multiple of 4 bytes each.
#[kernel]
pub fn same_bytes(
    _m: SameMeta,
    a: &Global<u32>,
    b: &Global<u32>,
    out: &mut Global<i32>, // [blocks]
    words: i32,
) {
    let mut counts = shared::<i32>(THREADS);
    for i in threads(THREADS) {
        let mut count = 0_i32;
        let first = block_id(0) * (BYTES / 4) as i32;
        for word in strided(first + i, words.min(first + (BYTES / 4) as i32), THREADS) {
            let off = a.at(word) ^ b.at(word);
            for byte in 0..4 {
                count = count + if (off >> (8 * byte)) & 255_u32 == 0_u32 { 1_i32 } else { 0_i32 };
            }
        }
        counts.put(i, count);
    }
    for _ in warps(1) {
        let total = counts.row(0, THREADS).sum();
        out.put(block_id(0), total);
    }
}
