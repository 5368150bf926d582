//! Joins a sequence's segments in index order, divides, rotates back: one warp a (sequence, head).
//!
//! Cost: reads (d + 2) * 4 bytes a segment, writes d elements and one log-sum-exp.

use super::softmax::weight;
use crate::codec::Codec;
use kernel_dsl::prelude::*;

/// Shape of a join kernel.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct JoinMeta {
    pub d: usize,
    pub segment: usize,
    pub inv_sqrt_d: f32,
}

impl Meta for JoinMeta {
    fn launch(&self) -> Launch {
        Launch { warps: 1, min_blocks: 16 }
    }
}

#[kernel]
pub fn join_splits<C: Codec, T: Float>(
    m: JoinMeta,
    part: &Global<f32>,    // [batch, heads, segments, d]
    stat: &Global<f32>,    // [batch, heads, segments, 2]
    lens: &Global<i32>,    // [batch]
    out: &mut Global<T>,   // [batch, heads, d]
    lse: &mut Global<f32>, // [batch, heads], natural logarithm
    heads: i32,
    segments: i32,
    capacity: i32,
) {
    let (head, seq) = (block_id(0), block_id(1));
    let row = seq * heads + head;
    let len = lens.at(seq);
    let fits = (len >= 0_i32) & (len <= capacity);
    let n = if fits { (len + (m.segment as i32 - 1_i32)) / m.segment as i32 } else { 0_i32 };
    for _ in warps(1) {
        let mut best = f32::NEG_INFINITY;
        let mut good = true;
        for s in 0_i32..n {
            let at = (row as i64 * segments as i64 + s as i64) * 2_i64;
            best = fmax(best, stat.at(at));
            good = good & (stat.at(at + 1_i64) >= 0.0_f32);
        }
        let mut o = vector(m.d, 0.0_f32);
        let mut l = 0.0_f32;
        for s in 0_i32..n {
            let at = row as i64 * segments as i64 + s as i64;
            let fade = weight(stat.at(at * 2_i64), best);
            l = stat.at(at * 2_i64 + 1_i64).mul_add(fade, l);
            o = part.row(at * m.d as i64, m.d).mul_add(fade, &o);
        }
        let some = good & (l > 0.0_f32);
        let y = o / (if some { l } else { 1.0_f32 });
        let back = if C::ROTATE { y.hadamard() * m.inv_sqrt_d } else { y };
        let kept = if some { back } else { vector(m.d, 0.0_f32) };
        out.put_row(row as i64 * m.d as i64, &kept.to::<T>());
        lse.put(row, if some { (best + log2(if some { l } else { 1.0_f32 })) * 0.6931472_f32 } else { f32::NEG_INFINITY });
    }
}
