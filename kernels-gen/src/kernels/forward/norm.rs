//! RMSNorm: a warp a row. A lane adds the squares of every 32nd run of its own, in order; a butterfly joins the lanes.
//!
//! Cost: reads a row twice, the second time from the cache, and writes it once; bound by memory.

use super::WARPS;
use kernel_dsl::prelude::*;

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NormMeta {
    /// Numbers of a row.
    pub width: usize,
    /// Numbers that a warp takes at a time.
    pub run: usize,
}

impl NormMeta {
    pub fn of(width: usize) -> NormMeta {
        NormMeta { width, run: if width.is_multiple_of(128) { 128 } else { 32 } }
    }
}

impl Meta for NormMeta {
    fn launch(&self) -> Launch {
        Launch { warps: WARPS, min_blocks: 1 }
    }
}

#[kernel]
pub fn rms_norm(
    m: NormMeta,
    x: &Global<f32>,       // [rows, width]
    weight: &Global<f32>,  // [width]
    out: &mut Global<f32>, // [rows, width]
    rows: i32,
    epsilon: f32,
) {
    for w in warps(WARPS) {
        let row = block_id(0) * WARPS as i32 + w;
        if row < rows {
            let first = row as i64 * m.width as i64;
            let mut squares = vector(m.run, 0.0_f32);
            for at in strided(0_i32, m.width as i32, m.run) {
                let part = x.row(first + at as i64, m.run);
                squares = squares + &part * &part;
            }
            let scale = 1.0_f32 / (squares.sum() / m.width as f32 + epsilon).sqrt();
            for at in strided(0_i32, m.width as i32, m.run) {
                out.put_row(first + at as i64, &(x.row(first + at as i64, m.run) * &(weight.row(at, m.run) * scale)));
            }
        }
    }
}
