//! Joins what the blocks of a sequence leave, divides, rotates back: one block a (sequence, head).
//!
//! Parts are folded along the tree of [`super::leaves`]: eight neighbours by a warp, then those of eight warps, then tree after
//! tree. Cost: reads (d + 2) * 4 bytes a part, writes d elements.

use super::faults::find_fault;
use super::leaves::{FOLD, LEAF, TREE, finished, nothing, tree};
use super::many::lapping;
use super::maps::int_line;
use super::maps::outputs::{settle, values_at, where_some};
use super::softmax::{left_worth, right_worth};
use crate::codec::Codec;
use kernel_dsl::prelude::*;

/// Parts that a warp of a narrow join takes.
pub const NARROW: usize = FOLD;

/// Shape of a join kernel.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct JoinMeta {
    pub d: usize,
    pub page_tokens: usize,
    /// Pages that a row of the table names before those of tokens.
    pub lead: usize,
    /// 8, or for rows of up to `NARROW` parts fewer.
    pub warps: usize,
    /// Query heads of a kv head and query tokens of a block: of the join of many queries.
    pub group: usize,
    pub queries: usize,
    /// Kv heads that each one is taken for, see [`super::decode_attention::DecodeMeta`].
    pub fold: usize,
    /// Query heads of a kv head where its parts overlap, else 0.
    pub sharing: usize,
    /// Outputs of a calibrated codec: they are mapped back.
    pub mapped: bool,
    pub inv_sqrt_d: f32,
}

impl JoinMeta {
    /// For rows of up to `NARROW` parts: small blocks, so that more rows are joined at once. Four warps share a matrix.
    pub fn narrow(self) -> JoinMeta {
        JoinMeta { warps: if self.mapped { 4 } else { 1 }, ..self }
    }
}

impl Meta for JoinMeta {
    fn launch(&self) -> Launch {
        Launch { warps: self.warps, min_blocks: 16 / self.warps }
    }
}

/// Part `at` of a row's, or the last one; the first one is line `own`.
#[device]
fn of_split(m: &JoinMeta, part: &Global<f32>, stat: &Global<f32>, own: i64, rows: i32, at: i32, count: i32) -> (Tile<f32>, f32, f32) {
    let row = own + (at.min(count - 1_i32) * rows) as i64;
    (part.row(row * m.d as i64, m.d), stat.at(row * 2_i64 + 1_i64), stat.at(row * 2_i64))
}

/// Joins a query row, head `member` of query token `token`, from column `column` of `rows` of the parts from `base` on, 2^log_share
/// leaves each. `len` is what the row sees. Nothing if one block had all `of_block` tokens that its block saw: it has written the row.
#[device]
#[allow(clippy::too_many_arguments)]
pub fn join<T: Float>(
    m: &JoinMeta,
    v: &dyn Codec,
    maps: &Global<i8>,
    scales: &Global<f32>,
    part: &Global<f32>,
    stat: &Global<f32>,
    out: &mut Global<T>,
    lse: &mut Global<f32>,
    fault: &Shared<i32>,
    kv_heads: i32,
    group: i32,
    log_share: i32,
    base: i64,
    rows: i32,
    column: i32,
    len: i32,
    of_block: i32,
    member: i32,
    head: i32,
    token: i32,
) {
    let (leaves, done) = ((len + (LEAF as i32 - 1_i32)) / LEAF as i32, (of_block + (LEAF as i32 - 1_i32)) / LEAF as i32 <= 1_i32 << (log_share & 31_i32));
    let count = if done { 0_i32 } else { (leaves + ((1_i32 << (log_share & 31_i32)) - 1_i32)) >> (log_share & 31_i32) };
    let of_tree = (TREE as i32) >> (log_share & 31_i32);
    let mut outs = shared::<f32>((m.warps + 1) * m.d);
    let mut sums = shared::<f32>(m.warps + 1);
    let mut tops = shared::<f32>(m.warps + 1);
    let mut ints = shared::<u8>(if m.mapped { int_line(m.d) } else { 0 });
    let mut units = shared::<f32>(if m.mapped { 1 } else { 0 });
    let mut some = shared::<i32>(if m.mapped { 1 } else { 0 });
    let own = base * rows as i64 + column as i64;
    // A round folds one tree; the last place has those before it.
    for round in strided(0_i32, count, of_tree) {
        let end = count.min(round + of_tree);
        for w in warps(m.warps) {
            let first = round + w * FOLD as i32;
            if first < end {
                let a = [
                    of_split(m, part, stat, own, rows, first, count),
                    of_split(m, part, stat, own, rows, first + 1_i32, count),
                    of_split(m, part, stat, own, rows, first + 2_i32, count),
                    of_split(m, part, stat, own, rows, first + 3_i32, count),
                ];
                let b = [
                    of_split(m, part, stat, own, rows, first + 4_i32, count),
                    of_split(m, part, stat, own, rows, first + 5_i32, count),
                    of_split(m, part, stat, own, rows, first + 6_i32, count),
                    of_split(m, part, stat, own, rows, first + 7_i32, count),
                ];
                let (o, l, top) = eight(&a, &b, end - first);
                outs.put_row(w * m.d as i32, &o);
                sums.put(w, l);
                tops.put(w, top);
            }
        }
        let live = (end - round + (FOLD as i32 - 1_i32)) / FOLD as i32;
        for _ in warps(1) {
            let w = m.warps;
            let (mut o, mut l, mut top) = of_round(m, &outs, &sums, &tops, 0, live);
            // Up to sixteen parts are two: a short chain, where the next launch waits.
            if live == 2_i32 {
                let next = of_round(m, &outs, &sums, &tops, 1 % w, live);
                let (left, right) = (left_worth(top, next.2), right_worth(top, next.2));
                l = next.1.mul_add(right, l * left);
                o = next.0.mul_add(right, &(&o * left));
                top = fmax(top, next.2);
            } else if live > 2_i32 {
                let a = [of_round(m, &outs, &sums, &tops, 0, live), of_round(m, &outs, &sums, &tops, 1 % w, live), of_round(m, &outs, &sums, &tops, 2 % w, live), of_round(m, &outs, &sums, &tops, 3 % w, live)];
                let b = [of_round(m, &outs, &sums, &tops, 4 % w, live), of_round(m, &outs, &sums, &tops, 5 % w, live), of_round(m, &outs, &sums, &tops, 6 % w, live), of_round(m, &outs, &sums, &tops, 7 % w, live)];
                let all = eight(&a, &b, live);
                o = all.0;
                l = all.1;
                top = all.2;
            }
            if round > 0_i32 {
                let (left, right) = (left_worth(tops.at(w), top), right_worth(tops.at(w), top));
                l = l.mul_add(right, sums.at(w) * left);
                o = o.mul_add(right, &(outs.row(w * m.d, m.d) * left));
                top = fmax(tops.at(w), top);
            }
            outs.put_row(w * m.d, &o);
            sums.put(w, l);
            tops.put(w, top);
        }
    }
    for _ in warps(1) {
        let row = if m.sharing > 0 { lapping(token, kv_heads, head, member, group, m.fold, m.sharing) } else { (token * kv_heads + head) * group + member };
        if count > 0_i32 {
            let l = sums.at(m.warps);
            let good = (fault.at(0) == 0_i32) & (l > 0.0_f32);
            let (o, top) = (outs.row(m.warps * m.d, m.d), tops.at(m.warps));
            let (y, whole) = finished(v, m.d, m.inv_sqrt_d, good, &o, l, top);
            if m.mapped {
                settle(&y, good, 0_i32, &mut ints, &mut units, &mut some, m.d)
            } else {
                out.put_row(row as i64 * m.d as i64, &y.to::<T>())
            }
            lse.put(row, whole);
        } else if !done {
            nothing::<T>(out, lse, row, m.d);
        }
    }
    if m.mapped {
        let row = if m.sharing > 0 { lapping(token, kv_heads, head, member, group, m.fold, m.sharing) } else { (token * kv_heads + head) * group + member };
        for w in warps(m.warps) {
            for column in strided(32_i32 * w, if count > 0_i32 { m.d as i32 } else { 0_i32 }, 32 * m.warps) {
                let y = values_at(maps, scales, &ints, &units, kv_heads / m.fold as i32, head / m.fold as i32, column, 0, 1, m.d).map2(&some.cols(0, 0, 8), where_some);
                out.put_acc(row as i64 * m.d as i64 + column as i64, 1, m.d, 1, &y.to::<T>());
            }
        }
    }
}

#[device]
fn eight(a: &[(Tile<f32>, f32, f32); 4], b: &[(Tile<f32>, f32, f32); 4], live: i32) -> (Tile<f32>, f32, f32) {
    tree(
        [a[0].0.clone(), a[1].0.clone(), a[2].0.clone(), a[3].0.clone(), b[0].0.clone(), b[1].0.clone(), b[2].0.clone(), b[3].0.clone()],
        [a[0].1, a[1].1, a[2].1, a[3].1, b[0].1, b[1].1, b[2].1, b[3].1],
        [a[0].2, a[1].2, a[2].2, a[3].2, b[0].2, b[1].2, b[2].2, b[3].2],
        live,
    )
}

/// What warp `w` folded, or the last of `live`.
#[device]
fn of_round(m: &JoinMeta, outs: &Shared<f32>, sums: &Shared<f32>, tops: &Shared<f32>, w: usize, live: i32) -> (Tile<f32>, f32, f32) {
    let at = (w as i32).min(live - 1_i32);
    (outs.row(at * m.d as i32, m.d), sums.at(at), tops.at(at))
}

#[kernel]
pub fn join_splits<T: Float>(
    m: JoinMeta,
    v: &dyn Codec,
    #[when(m.mapped)] maps: &Global<i8>,    // a layer's, as `preset::LayerMaps::packed` has them
    #[when(m.mapped)] scales: &Global<f32>, // likewise
    part: &Global<f32>,                     // [batch, kv_heads, splits, group, d]
    stat: &Global<f32>,                     // [batch, kv_heads, splits, group, 2]: maximum, sum
    chosen: &Global<i32>,                   // [1]: log2 of the leaves of a part, where `known` is below 0
    table: &Global<i32>,                    // [batch, table_stride]
    lens: &Global<i32>,                     // [batch]
    out: &mut Global<T>,                    // [batch, heads, d]
    lse: &mut Global<f32>,                  // [batch, heads], natural logarithm
    status: &mut Global<i32>,               // bad slot, bad page, bad length, where
    kv_heads: i32,
    group: i32,
    splits: i32,
    pages: i32,
    table_stride: i32,
    known: i32, // log2 of the leaves of a part
    hurry: i32, // 1: the next launch takes what places there are beside this one and the attention before it
) {
    let (member, head, seq) = (block_id(0), block_id(1), block_id(2));
    let base = (seq * kv_heads + head) as i64 * splits as i64;
    let len = lens.at(seq);
    let most = if m.lead > 0 { table_stride - m.lead as i32 } else { table_stride };
    let n = if (len >= 0_i32) & (len <= most * m.page_tokens as i32) { len } else { 0_i32 };
    let mut fault = shared::<i32>(1);
    find_fault(&m, table, status, &mut fault, pages, table_stride, n, seq);
    if hurry > 0_i32 {
        release_next();
    }
    after_previous();
    release_next();
    let mut log_share = known;
    if known < 0_i32 {
        log_share = chosen.at(0);
    }
    join::<T>(&m, v, maps, scales, part, stat, out, lse, &fault, kv_heads, group, log_share, base, group, member, n, n, member, head, seq);
}
