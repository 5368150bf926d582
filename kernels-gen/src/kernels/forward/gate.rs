//! Element-wise steps: the gated activation, and a bias where a model has one behind its output projection.
//!
//! Cost: reads two numbers and writes one; bound by memory.

use super::{THREADS, exponential};
use kernel_dsl::prelude::*;

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GateMeta {
    /// Numbers of a row of the result.
    pub width: usize,
}

impl Meta for GateMeta {
    fn launch(&self) -> Launch {
        Launch { warps: THREADS / 32, min_blocks: 1 }
    }
}

/// x / (1 + e^-x).
#[device]
fn silu(x: f32) -> f32 {
    x / (1.0_f32 + exponential(-x))
}

#[kernel]
pub fn gate(
    m: GateMeta,
    x: &Global<f32>,       // [rows, 2, width]: gate, up
    out: &mut Global<f32>, // [rows, width]
) {
    for i in threads(THREADS) {
        let at = block_id(1) * THREADS as i32 + i;
        if at < m.width as i32 {
            let row = block_id(0) as i64 * m.width as i64;
            let from = row * 2_i64 + at as i64;
            out.put(row + at as i64, silu(x.at(from)) * x.at(from + m.width as i64));
        }
    }
}

#[kernel]
pub fn shift(
    m: GateMeta,
    x: &mut Global<f32>, // [rows, width]
    by: &Global<f32>,    // [width]
) {
    for i in threads(THREADS) {
        let at = block_id(1) * THREADS as i32 + i;
        if at < m.width as i32 {
            let to = block_id(0) as i64 * m.width as i64 + at as i64;
            x.put(to, x.at(to) + by.at(at));
        }
    }
}
