//! Lesson 4: two steps of a model in one kernel.
//!
//! Between a projection and attention a model normalises each head's vector (RMSNorm) and turns pairs of
//! its coordinates by an angle that grows with the position (RoPE). As two kernels the vector goes to
//! memory and back in between. Fused, the second step takes the first one's tile: a value that stays in
//! registers is all that fusion is here.
//!
//! RoPE pairs coordinate i with i + d/2, so the vector is loaded as two rows of d/2. A step is a
//! `#[device]` function: it takes and gives tiles, runs on the CPU as written, and is built into every
//! kernel that calls it.
//!
//! Sums have a stated order, division and square root are IEEE, sines come from a table: the same bits.
//!
//! Cost: reads and writes 2 bytes an element, 8 more a pair for the table, which stays in the L2 cache.
//!
//!     cargo run --release --example 04_rmsnorm_rope

#[path = "support/mod.rs"]
mod support;

use kvfuse::kernel_dsl::Source;
use kvfuse::kernel_dsl::prelude::*;
use kvfuse::kernel_dsl::tile::launch;
use support::{Failure, gpu, halves, numbers, same_bits, verdict, within};

#[derive(Clone, Copy)]
pub struct RopeMeta {
    /// Half of a head's coordinates, a multiple of 32.
    pub half: usize,
    /// A warp does one head.
    pub heads: usize,
    pub epsilon: f32,
}

impl Meta for RopeMeta {
    fn launch(&self) -> Launch {
        Launch { warps: self.heads, min_blocks: 1 }
    }
}

/// One over the root of the mean square of a vector in two halves.
#[device]
fn inverse_rms(a: &Tile<f32>, b: &Tile<f32>, half: usize, epsilon: f32) -> f32 {
    let squares = (a * a).sum() + (b * b).sum();
    1.0_f32 / (squares / (2 * half) as f32 + epsilon).sqrt()
}

/// a cos - b sin: one half of the pairs (a, b), turned. The other half is `turned(b, -a, ..)`.
#[device]
fn turned(a: &Tile<f32>, b: &Tile<f32>, cos: &Tile<f32>, sin: &Tile<f32>) -> Tile<f32> {
    a * cos - b * sin
}

#[kernel]
pub fn rmsnorm_rope(
    m: RopeMeta,
    x: &Global<bf16>,       // [tokens, heads, 2 half]
    weight: &Global<f32>,   // [2 half]
    table: &Global<f32>,    // [positions, 2, half]: cosines, sines
    at: &Global<i32>,       // [tokens]: each token's position
    out: &mut Global<bf16>, // as x
) {
    for head in warps(m.heads) {
        let token = block_id(0);
        let first = (token * m.heads as i32 + head) * (2 * m.half) as i32;
        let second = first + m.half as i32;
        let (a, b) = (x.row(first, m.half).to_f32(), x.row(second, m.half).to_f32());
        let scale = inverse_rms(&a, &b, m.half, m.epsilon);
        let a = (a * scale) * &weight.row(0_i32, m.half);
        let b = (b * scale) * &weight.row(m.half, m.half);
        let angle = at.at(token) * (2 * m.half) as i32;
        let (cos, sin) = (table.row(angle, m.half), table.row(angle + m.half as i32, m.half));
        out.put_row(first, &turned(&a, &b, &cos, &sin).to::<bf16>());
        out.put_row(second, &turned(&b, &(&a * -1.0_f32), &cos, &sin).to::<bf16>());
    }
}

/// Both steps in f64, for one head.
fn plain(m: RopeMeta, x: &[bf16], weight: &[f32], table: &[f32], out: &mut Vec<f32>) {
    let x: Vec<f64> = x.iter().map(|v| v.to_f64()).collect();
    let mean = x.iter().map(|v| v * v).sum::<f64>() / x.len() as f64;
    let y: Vec<f64> = x.iter().zip(weight).map(|(v, w)| v * f64::from(*w) / (mean + f64::from(m.epsilon)).sqrt()).collect();
    for i in 0..2 * m.half {
        let (cos, sin) = (f64::from(table[i % m.half]), f64::from(table[m.half + i % m.half]));
        let other = if i < m.half { -y[i + m.half] } else { y[i - m.half] };
        out.push((y[i] * cos + other * sin) as f32);
    }
}

fn lesson() -> Result<(), Failure> {
    let (m, tokens, positions) = (RopeMeta { half: 64, heads: 8, epsilon: 1e-5 }, 40, 1000);
    let (x, weight) = (halves(&numbers(tokens * m.heads * 2 * m.half, 6)), numbers(2 * m.half, 7));
    let angle = |p: usize, i: usize| p as f32 * 10_000_f32.powf(-(i as f32) / m.half as f32);
    let table: Vec<f32> = (0..positions).flat_map(|p| (0..2 * m.half).map(move |i| if i < m.half { angle(p, i).cos() } else { angle(p, i - m.half).sin() })).collect();
    let at: Vec<i32> = (0..tokens as i32).map(|t| t * 7 % positions as i32).collect();
    let grid = [tokens as u32, 1, 1];

    let (gx, gw, gt, ga) = (Global::new(&x), Global::new(&weight), Global::new(&table), Global::new(&at));
    let mut out = Global::<bf16>::zeroed(x.len());
    launch(grid, || rmsnorm_rope(m, &gx, &gw, &gt, &ga, &mut out));
    let mut want = vec![];
    for (i, row) in x.chunks(2 * m.half).enumerate() {
        plain(m, row, &weight, &table[at[i / m.heads] as usize * 2 * m.half..], &mut want);
    }
    let got: Vec<f32> = out.to_vec().iter().map(|v| v.to_f32()).collect();
    // The output is rounded to bf16: half a unit in the last of 8 bits of values below 4.
    within("CPU kernel against f64", &got, &want, 4.0 * 2.0_f32.powi(-9) + 1e-5)?;

    let poison = vec![0xff; out.bytes.len()];
    match gpu(&Source::of(&rmsnorm_rope::build(&m)?)?, grid, &[&gx.bytes, &gw.bytes, &gt.bytes, &ga.bytes, &poison], &[])? {
        Some(back) => same_bits("GPU = CPU", &back[4], &out.bytes),
        None => Ok(()),
    }
}

fn main() -> std::process::ExitCode {
    verdict(lesson())
}
