//! Lesson 3: tiles on the tensor core.
//!
//! A warp owns a tile of the product, `acc(m, n)`, and walks along k: each turn takes a left operand
//! [m, k], a right operand [k, n], and adds their product. `left` reads rows of A. `operand` reads the
//! right side from rows too, n rows of k neighbours, so B lies as [n, k], as weights usually do.
//!
//! A tile's type says which part it can play: a left operand cannot be added to an accumulator, and the
//! builder refuses sizes that the tensor core has no instruction for. Which lane holds which element is
//! the compiler's business.
//!
//! Products of bf16 are exact in f32, their sums round. The CPU adds k in ascending order, the tensor
//! core in an order of its own, so this lesson states a bound: k roundings of a partial sum.
//!
//! Cost: 2 n m k flops; every block reads (32 + 64) k * 2 bytes. Big tiles staged through shared memory
//! would read less, and are not this lesson.
//!
//!     cargo run --release --example 03_matmul

#[path = "support/mod.rs"]
mod support;

use kvfuse::kernel_dsl::Source;
use kvfuse::kernel_dsl::prelude::*;
use kvfuse::kernel_dsl::tile::launch;
use support::{Failure, floats, gpu, halves, numbers, verdict, within};

/// Tile of a warp, and how far along k it goes in one turn.
const ROWS: usize = 32;
const COLS: usize = 16;
const STEP: usize = 32;

#[derive(Clone, Copy)]
pub struct MatmulMeta {
    /// Length of the rows of A and of B, a multiple of 32.
    pub k: usize,
    /// Columns of the product.
    pub n: usize,
    /// A block's warps lie side by side.
    pub warps: usize,
}

impl Meta for MatmulMeta {
    fn launch(&self) -> Launch {
        Launch { warps: self.warps, min_blocks: 1 }
    }
}

#[kernel]
pub fn matmul(
    m: MatmulMeta,
    a: &Global<bf16>,    // [rows, k]
    b: &Global<bf16>,    // [n, k]
    c: &mut Global<f32>, // [rows, n]
) {
    let row = block_id(1) * ROWS as i32;
    for w in warps(m.warps) {
        let col = (block_id(0) * m.warps as i32 + w) * COLS as i32;
        let mut sum = acc(ROWS, COLS, 0.0_f32);
        for k in strided(0_i32, m.k as i32, STEP) {
            let left = a.left(row * m.k as i32 + k, m.k, ROWS, STEP);
            // Offsets and strides of an operand count bytes.
            let right = b.operand::<bf16>((col * m.k as i32 + k) * 2_i32, 2 * m.k, COLS, STEP);
            sum = mma(&left, &right, &sum);
        }
        c.put_acc(row * m.n as i32 + col, m.n, 1, COLS, &sum);
    }
}

/// The product in f64, and the largest sum of magnitudes that a bound can be scaled by.
fn plain(a: &[bf16], b: &[bf16], k: usize) -> (Vec<f32>, f32) {
    let (mut out, mut most) = (vec![], 0.0_f64);
    for x in a.chunks(k) {
        for y in b.chunks(k) {
            let terms = x.iter().zip(y).map(|(x, y)| x.to_f64() * y.to_f64());
            most = most.max(terms.clone().map(f64::abs).sum());
            out.push(terms.sum::<f64>() as f32);
        }
    }
    (out, most as f32)
}

fn lesson() -> Result<(), Failure> {
    let (m, rows) = (MatmulMeta { k: 256, n: 192, warps: 4 }, 96);
    let (a, b) = (halves(&numbers(rows * m.k, 4)), halves(&numbers(m.n * m.k, 5)));
    let grid = [(m.n / (COLS * m.warps)) as u32, (rows / ROWS) as u32, 1];

    let (ga, gb, mut c) = (Global::new(&a), Global::new(&b), Global::<f32>::zeroed(rows * m.n));
    launch(grid, || matmul(m, &ga, &gb, &mut c));
    let (want, most) = plain(&a, &b, m.k);
    let bound = most * m.k as f32 * f32::EPSILON;
    within("CPU kernel against f64", &floats(&c.bytes), &want, bound)?;

    let poison = vec![0xff; c.bytes.len()];
    match gpu(&Source::of(&matmul::build(&m)?)?, grid, &[&ga.bytes, &gb.bytes, &poison], &[])? {
        Some(back) => within("GPU against the CPU", &floats(&back[2]), &floats(&c.bytes), 2.0 * bound),
        None => Ok(()),
    }
}

fn main() -> std::process::ExitCode {
    verdict(lesson())
}
