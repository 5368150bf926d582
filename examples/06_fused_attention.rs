//! Lesson 6: attention in one pass, the scores never in memory.
//!
//! Softmax wants the largest score before the first weight, which would mean two passes over the keys.
//! Online softmax takes one: keep the largest score so far, and when a tile of keys raises it, scale what
//! was summed until then down by 2^(old - new). Scores, weights and sums live and die in registers.
//!
//! A warp has eight queries, the columns of every tile. Keys come as the left operand of a first product,
//! [tokens, d] times [d, queries]; its result, rounded to bf16 by `to_operand`, is the right operand of a
//! second one, [d, tokens] times [tokens, queries]. So values lie as [d, tokens] here. The shipped decode
//! kernel has the same loop, with keys and values decoded from a packed page in place of `left`.
//!
//! A float sum down an accumulator's rows has no stated order, so weights are added as integers.
//!
//! Cost: reads 4 tokens d bytes a block, 4 tokens d flops a query. The weights' rounding to bf16 is
//! the error: 2^-8 of the largest value is the bound stated.
//!
//!     cargo run --release --example 06_fused_attention

#[path = "support/mod.rs"]
mod support;

use kvfuse::kernel_dsl::Source;
use kvfuse::kernel_dsl::prelude::*;
use kvfuse::kernel_dsl::tile::launch;
use kvfuse::runtime::Arg;
use support::{Failure, floats, gpu, halves, numbers, verdict, within};

/// Queries of a warp, and the tokens it takes at a time.
const QUERIES: usize = 8;
const STEP: usize = 32;

#[derive(Clone, Copy)]
pub struct AttentionMeta {
    pub d: usize,
    /// A multiple of 32: values lie this far apart.
    pub tokens: usize,
    pub warps: usize,
}

impl Meta for AttentionMeta {
    fn launch(&self) -> Launch {
        Launch { warps: self.warps, min_blocks: 1 }
    }
}

/// 2^(x - top); 0 while there is no maximum yet.
#[device]
fn weight(x: f32, top: f32) -> f32 {
    exp2_or_zero(x - top)
}

/// A weight in units of 2^-24: 32 of them fit an i32.
#[device]
fn fixed(p: f32) -> i32 {
    (p * 16777216.0_f32) as i32
}

/// The faded sum and what a tile adds to it.
#[device]
fn grown(sum: f32, fade: f32, more: i32) -> f32 {
    sum.mul_add(fade, more as f32 * 5.9604645e-8_f32)
}

#[device]
fn divided(o: f32, sum: f32) -> f32 {
    o / sum
}

#[kernel]
pub fn attention(
    m: AttentionMeta,
    q: &Global<bf16>,      // [queries, d]
    k: &Global<bf16>,      // [tokens, d]
    v: &Global<bf16>,      // [d, tokens]
    out: &mut Global<f32>, // [queries, d]
    scale: f32,            // on the dots, in log2 units
) {
    for w in warps(m.warps) {
        let first = (block_id(0) * m.warps as i32 + w) * (QUERIES * m.d) as i32;
        let query = q.operand::<bf16>(first * 2_i32, 2 * m.d, QUERIES, m.d);
        let mut top = cols(QUERIES, f32::NEG_INFINITY);
        let mut sum = cols(QUERIES, 0.0_f32);
        let mut o = acc(m.d, QUERIES, 0.0_f32);
        for t in strided(0_i32, m.tokens as i32, STEP) {
            let keys = k.left(t * m.d as i32, m.d, STEP, m.d);
            let x = mma(&keys, &query, 0.0_f32) * scale;
            // A new maximum fades what was summed under the old one.
            let next = top.map2(&x.max_rows(), fmax);
            let fade = top.map2(&next, weight);
            let p = x.map2(&next, weight);
            sum = sum.map3(&fade, &p.map(fixed).sum_rows(), grown);
            let values = v.left(t, m.tokens, m.d, STEP);
            o = mma(&values, &p.to_operand(), &(&o * &fade));
            top = next;
        }
        out.put_acc(first, 1, m.d, QUERIES, &o.map2(&sum, divided));
    }
}

/// The textbook's three steps in f64.
fn plain(m: AttentionMeta, q: &[bf16], k: &[bf16], v: &[bf16], scale: f32) -> Vec<f32> {
    let mut out = vec![];
    for q in q.chunks(m.d) {
        let dot = |k: &[bf16]| q.iter().zip(k).map(|(a, b)| a.to_f64() * b.to_f64()).sum::<f64>() * f64::from(scale);
        let scores: Vec<f64> = k.chunks(m.d).map(dot).collect();
        let top = scores.iter().fold(f64::NEG_INFINITY, |a, b| a.max(*b));
        let p: Vec<f64> = scores.iter().map(|x| (x - top).exp2()).collect();
        let sum: f64 = p.iter().sum();
        out.extend(v.chunks(m.tokens).map(|v| (v.iter().zip(&p).map(|(v, p)| v.to_f64() * p).sum::<f64>() / sum) as f32));
    }
    out
}

fn lesson() -> Result<(), Failure> {
    let (m, queries) = (AttentionMeta { d: 64, tokens: 320, warps: 2 }, 48);
    let wide: Vec<f32> = numbers(queries * m.d, 11).iter().map(|x| x * 4.0).collect();
    let (q, k, v) = (halves(&wide), halves(&numbers(m.tokens * m.d, 12)), halves(&numbers(m.d * m.tokens, 13)));
    let scale = std::f32::consts::LOG2_E / (m.d as f32).sqrt();
    let grid = [(queries / (QUERIES * m.warps)) as u32, 1, 1];

    let (gq, gk, gv, mut out) = (Global::new(&q), Global::new(&k), Global::new(&v), Global::<f32>::zeroed(queries * m.d));
    launch(grid, || attention(m, &gq, &gk, &gv, &mut out, scale));
    // Values are below 1.
    let bound = 2.0_f32.powi(-8);
    within("CPU kernel against f64", &floats(&out.bytes), &plain(m, &q, &k, &v, scale), bound)?;

    let poison = vec![0xff; out.bytes.len()];
    let source = Source::of(&attention::build(&m)?)?;
    match gpu(&source, grid, &[&gq.bytes, &gk.bytes, &gv.bytes, &poison], &[Arg::F32(scale)])? {
        Some(back) => within("GPU against the CPU", &floats(&back[3]), &floats(&out.bytes), bound),
        None => Ok(()),
    }
}

fn main() -> std::process::ExitCode {
    verdict(lesson())
}
