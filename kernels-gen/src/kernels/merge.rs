//! Joins two attention states of the same query rows over different tokens: `(out, lse)` of each, as decode leaves them. A prefix
//! that sequences share and what each has of its own; coded tokens and raw ones.
//!
//! With m the larger lse: `a = 2^((lse_a - m) log2 e)`, b likewise; `out = fma(out_b, b, out_a a) / (a + b)`, `lse = m + ln 2
//! log2(a + b)`. A state of lse -inf has no tokens: the other one passes unchanged. Two such: 0 and -inf. The output may be
//! one of the states. Cost: reads two rows and writes one; bound by memory.

use kernel_dsl::prelude::*;

use super::Elem;
use kernel_dsl::dtype::bf16;
use kernel_dsl::ir::Program;
use kernel_dsl::{Report, Source};

/// Shape of a merge kernel.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MergeMeta {
    pub d: usize,
    /// Rows of a block, a warp each.
    pub warps: usize,
}

impl Meta for MergeMeta {
    fn launch(&self) -> Launch {
        Launch { warps: self.warps, min_blocks: 2 }
    }
}

/// What a state of log-sum-exp `lse` is worth beside the larger one.
#[device]
pub fn worth(lse: f32, top: f32) -> f32 {
    if lse < top { exp2_or_zero((lse - top) * 1.442695_f32) } else { 1.0_f32 }
}

/// The log-sum-exp of both, of worths that come to `sum`.
#[device]
pub fn both(top: f32, sum: f32) -> f32 {
    if top > f32::NEG_INFINITY { log2(sum) * 0.6931472_f32 + top } else { f32::NEG_INFINITY }
}

/// Grid: [rows / warps].
#[kernel]
pub fn merge_states<T: Float>(
    m: MergeMeta,
    a: &Global<T>,       // [rows, d]
    a_lse: &Global<f32>, // [rows], natural logarithm
    b: &Global<T>,       // likewise
    b_lse: &Global<f32>,
    out: &mut Global<T>,   // [rows, d]
    lse: &mut Global<f32>, // [rows]
    rows: i32,
) {
    after_previous();
    release_next();
    for w in warps(m.warps) {
        let row = block_id(0) * m.warps as i32 + w;
        if row < rows {
            let (x, y) = (a_lse.at(row), b_lse.at(row));
            let top = fmax(x, y);
            let (own, its) = (worth(x, top), worth(y, top));
            let (left, right) = (a.row(row as i64 * m.d as i64, m.d).to_f32(), b.row(row as i64 * m.d as i64, m.d).to_f32());
            // What has no weight may hold anything.
            let left = if own > 0.0_f32 { left } else { vector(m.d, 0.0_f32) };
            let right = if its > 0.0_f32 { right } else { vector(m.d, 0.0_f32) };
            let o = right.mul_add(its, &(left * own)) / (own + its);
            let kept = if top > f32::NEG_INFINITY { o } else { vector(m.d, 0.0_f32) };
            // The output may be one of the states: all lanes have read it.
            sync_warp();
            out.put_row(row as i64 * m.d as i64, &kept.to::<T>());
            lse.put(row, both(top, own + its));
        }
    }
}

/// Meta value. `d`: a multiple of 32, up to 512.
pub fn merge_meta(d: usize) -> MergeMeta {
    MergeMeta { d, warps: 8 }
}

/// Tile IR of the kernel.
pub fn merge_ir(m: &MergeMeta, elem: Elem) -> Result<Program, Report> {
    match elem {
        Elem::Bf16 => merge_states::build::<bf16>(m),
        Elem::F32 => merge_states::build::<f32>(m),
    }
}

/// The kernel.
pub fn merge(d: usize, elem: Elem) -> Result<Source, Report> {
    Source::of(&merge_ir(&merge_meta(d), elem)?)
}

/// Its grid for so many rows.
pub fn merge_grid(m: &MergeMeta, rows: usize) -> [u32; 3] {
    [rows.div_ceil(m.warps) as u32, 1, 1]
}
