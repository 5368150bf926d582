//! Joins a sequence's segments, divides, rotates back: one block a (sequence, head).
//!
//! All under one maximum: eight segments at a time are summed in index order by one warp, then those sums one by
//! one: a fixed tree, whoever computed the segments and however many warps join them. Cost: reads (d + 2) * 4 bytes a segment, writes d elements.

use super::softmax::weight;
use crate::codec::Codec;
use kernel_dsl::prelude::*;

/// Segments that one warp joins in order.
pub const BUNDLE: usize = 8;

/// Segments that the two warps of a narrow join take in one round.
pub const NARROW: usize = 2 * BUNDLE;

/// Shape of a join kernel.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct JoinMeta {
    pub d: usize,
    pub segment: usize,
    pub page_tokens: usize,
    pub warps: usize,
    /// Query heads of a kv head and query tokens of a block: of the join of many queries.
    pub group: usize,
    pub queries: usize,
    pub inv_sqrt_d: f32,
}

impl JoinMeta {
    /// For rows of up to `NARROW` segments: small blocks, so that more rows are joined at once.
    pub fn narrow(self) -> JoinMeta {
        JoinMeta { warps: 2, ..self }
    }
}

impl Meta for JoinMeta {
    fn launch(&self) -> Launch {
        Launch { warps: self.warps, min_blocks: 32 / self.warps }
    }
}

/// Joins a query row, head `member` of query token `token`, from column `column` of `rows` of the partial results from
/// `base` on. `len` is what the row sees of sequence `seq`.
#[device]
#[allow(clippy::too_many_arguments)]
pub fn join<T: Float>(
    m: &JoinMeta,
    v: &dyn Codec,
    part: &Global<f32>,
    stat: &Global<f32>,
    table: &Global<i32>,
    out: &mut Global<T>,
    lse: &mut Global<f32>,
    status: &mut Global<i32>,
    kv_heads: i32,
    group: i32,
    pages: i32,
    table_stride: i32,
    base: i64,
    rows: i32,
    column: i32,
    len: i32,
    fits: bool,
    member: i32,
    head: i32,
    seq: i32,
    token: i32,
) {
    let n = if fits { (len + (m.segment as i32 - 1_i32)) / m.segment as i32 } else { 0_i32 };
    // A page that does not exist drops the whole row.
    let mut fault = shared::<i32>(1);
    for _ in threads(1) {
        fault.put(0, 0_i32);
    }
    for i in threads(if fits { (len + (m.page_tokens as i32 - 1_i32)) / m.page_tokens as i32 } else { 0_i32 }) {
        let page = table.at(seq * table_stride + i);
        if (page < 0_i32) | (page >= pages) {
            fault.put(0, 1_i32);
            status.put(1, 1_i32);
            status.put(3, seq);
        }
    }
    after_previous();
    // The maximum over all segments: every weight is under it, so that no sum is ever rescaled.
    let mut tops = shared::<f32>(m.warps * 32);
    for i in threads(m.warps * 32) {
        let mut top = f32::NEG_INFINITY;
        for s in strided(i, n, m.warps * 32) {
            top = fmax(top, stat.at(((base + s as i64) * rows as i64 + column as i64) * 2_i64));
        }
        tops.put(i, top);
    }
    let mut best = shared::<f32>(m.warps);
    let mut sums = shared::<f32>(m.warps);
    let mut outs = shared::<f32>(m.warps * m.d);
    let mut l = 0.0_f32;
    let mut total = shared::<f32>(m.d);
    for e in threads(m.d) {
        total.put(e, 0.0_f32);
    }
    // A round sums one bundle a warp, then adds the bundles in order.
    for round in strided(0_i32, n, (m.warps * BUNDLE) as i32) {
        for w in warps(m.warps) {
            let first = round + w * BUNDLE as i32;
            let top = tops.row(0, m.warps * 32).max();
            best.put(w, top);
            if first < n {
                let mut o = vector(m.d, 0.0_f32);
                let mut sum = 0.0_f32;
                for i in 0..BUNDLE {
                    let row = (base + (first + i as i32).min(n - 1_i32) as i64) * rows as i64 + column as i64;
                    let fade = if first + (i as i32) < n { weight(stat.at(row * 2_i64), top) } else { 0.0_f32 };
                    sum = stat.at(row * 2_i64 + 1_i64).mul_add(fade, sum);
                    o = part.row(row * m.d as i64, m.d).mul_add(fade, &o);
                }
                sums.put(w, sum);
                outs.put_row(w * m.d as i32, &o);
            }
        }
        let bundles = ((n - round + (BUNDLE as i32 - 1_i32)) / BUNDLE as i32).min(m.warps as i32);
        for w in 0..bundles {
            l = l + sums.at(w);
        }
        for e in threads(m.d) {
            let mut o = total.at(e);
            for w in 0..bundles {
                o = o + outs.at(e + w * m.d as i32);
            }
            total.put(e, o);
        }
    }
    let some = (fault.at(0) == 0_i32) & (l > 0.0_f32);
    for _ in warps(1) {
        let y = total.row(0, m.d) / (if some { l } else { 1.0_f32 });
        let back = if v.spec().rotate { y.hadamard() * m.inv_sqrt_d } else { y };
        let kept = if some { back } else { vector(m.d, 0.0_f32) };
        let row = (token * kv_heads + head) * group + member;
        out.put_row(row as i64 * m.d as i64, &kept.to::<T>());
        lse.put(row, if some { (best.at(0) + log2(if some { l } else { 1.0_f32 })) * 0.6931472_f32 } else { f32::NEG_INFINITY });
    }
}

#[kernel]
pub fn join_splits<T: Float>(
    m: JoinMeta,
    v: &dyn Codec,
    part: &Global<f32>,    // [batch, kv_heads, segments, group, d]
    stat: &Global<f32>,    // [batch, kv_heads, segments, group, 2]: maximum, sum
    table: &Global<i32>,   // [batch, table_stride]
    lens: &Global<i32>,    // [batch]
    out: &mut Global<T>,   // [batch, heads, d]
    lse: &mut Global<f32>, // [batch, heads], natural logarithm
    status: &mut Global<i32>, // bad slot, bad page, bad length, where
    kv_heads: i32,
    group: i32,
    segments: i32,
    pages: i32,
    table_stride: i32,
) {
    let (member, head, seq) = (block_id(0), block_id(1), block_id(2));
    let base = (seq * kv_heads + head) as i64 * segments as i64;
    let len = lens.at(seq);
    let fits = (len >= 0_i32) & (len <= table_stride * m.page_tokens as i32);
    join::<T>(&m, v, part, stat, table, out, lse, status, kv_heads, group, pages, table_stride, base, group, member, len, fits, member, head, seq, seq);
}
