//! Lesson 2: a row in a warp's registers.
//!
//! A softmax made of separate steps reads its row three times: for the maximum, the sum, the quotient.
//! Here a warp holds the whole row as one tile, so it is read once and written once.
//!
//! `x.row(at, n)` spreads n neighbours over the 32 lanes of a warp. Operators work element by element;
//! `.max()` and `.sum()` fold the row, and a float sum has a stated order (each lane left to right, then
//! lanes 16, 8, 4, 2, 1 apart), so its bits are the same on every side. So are those of `exp2`: it is a
//! polynomial of the language, not the GPU's approximate unit.
//!
//! Cost: reads 4 bytes and writes 4 an element, about 15 flops: bound by memory.
//!
//!     cargo run --release --example 02_fused_softmax

#[path = "support/mod.rs"]
mod support;

use kvfuse::kernel_dsl::Source;
use kvfuse::kernel_dsl::prelude::*;
use kvfuse::kernel_dsl::tile::launch;
use kvfuse::runtime::Arg;
use support::{Failure, floats, gpu, numbers, same_bits, verdict, within};

#[derive(Clone, Copy)]
pub struct SoftmaxMeta {
    /// Elements of a row, a multiple of 32.
    pub n: usize,
    pub warps: usize,
}

impl Meta for SoftmaxMeta {
    fn launch(&self) -> Launch {
        Launch { warps: self.warps, min_blocks: 1 }
    }
}

/// e^x, through the exact 2^x.
#[device]
fn exponential(x: f32) -> f32 {
    exp2_or_zero(x * 1.442695_f32)
}

#[kernel]
pub fn softmax(
    m: SoftmaxMeta,
    x: &Global<f32>,       // [rows, n]
    out: &mut Global<f32>, // [rows, n]
    rows: i32,
) {
    for w in warps(m.warps) {
        let r = block_id(0) * m.warps as i32 + w;
        if r < rows {
            let row = x.row(r * m.n as i32, m.n);
            let top = row.max();
            let p = (row - top).map(exponential);
            let total = p.sum();
            out.put_row(r * m.n as i32, &(p / total));
        }
    }
}

/// The same in f64, one step after another.
fn plain(x: &[f32], n: usize) -> Vec<f32> {
    let mut out = vec![];
    for row in x.chunks(n) {
        let top = row.iter().fold(f32::NEG_INFINITY, |a, b| a.max(*b));
        let p: Vec<f64> = row.iter().map(|v| f64::from(v - top).exp()).collect();
        let total: f64 = p.iter().sum();
        out.extend(p.iter().map(|v| (v / total) as f32));
    }
    out
}

fn lesson() -> Result<(), Failure> {
    let (m, rows) = (SoftmaxMeta { n: 512, warps: 4 }, 333);
    let x: Vec<f32> = numbers(rows * m.n, 3).iter().map(|v| v * 10.0).collect();
    let grid = [rows.div_ceil(m.warps) as u32, 1, 1];

    let (gx, mut out) = (Global::new(&x), Global::zeroed(x.len()));
    launch(grid, || softmax(m, &gx, &mut out, rows as i32));
    within("CPU kernel against f64", &floats(&out.bytes), &plain(&x, m.n), 1e-6)?;

    let poison = vec![0xff; out.bytes.len()];
    match gpu(&Source::of(&softmax::build(&m)?)?, grid, &[&gx.bytes, &poison], &[Arg::I32(rows as i32)])? {
        Some(back) => same_bits("GPU = CPU", &back[1], &out.bytes),
        None => Ok(()),
    }
}

fn main() -> std::process::ExitCode {
    verdict(lesson())
}
