//! Attention of 64 heads, or 16, of one query token over rows of integers; the numerics are those of [`crate::latent::Problem`].
//!
//! A leaf of 128 rows goes through three steps with a barrier between. Each of 16 warps, or 4, scores a quarter of its rows under 16 heads; then
//! it makes weights of its scores; then it has the values of 32 dims, or 128, for all heads: the same bytes by their columns, and outputs that stay
//! in registers. Bytes are multiplied by `mma` in integers, two passes for queries of 15 bits, two for weights of 15. Beside the values, where
//! shared memory has room for two leaves, the codes of the next one become signed bytes, once for all heads: half of the warps do that
//! before their products and half after them, so that loads and products meet.
//!
//! Cost a row and head: 4 x 512 products of bytes, bound by the tensor core; a row's bytes are read once a block.

use kernel_dsl::prelude::*;

use super::finish::settle;
use super::lanes::RowMeta;
use super::lists::{List, bring_of, expect_of, row_of, seen_by};
use super::query::put_queries;
use super::weigh::{QUARTER, greater, moves, products, second_byte, upward, worth};
use super::{Cut, LINE};
use crate::codec::Codec;
use crate::kernels::softmax::{fused, left_worth, right_worth, weight};
use crate::latent::DIM;
use crate::latent::softmax::{LEAF, down_of, fixed, inverse_of, rounded, up_of};

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DecodeMeta {
    pub rows: RowMeta,
    /// One part a token: the block finishes it. Else it leaves its part for the join.
    pub whole: bool,
    pub cut: Cut,
}

impl DecodeMeta {
    pub fn threads(&self) -> usize {
        32 * self.cut.warps
    }

    /// Bytes of one part of all integers of queries.
    pub fn part(&self) -> usize {
        DIM * self.cut.heads
    }

    /// Bytes of queries and leaves, or of outputs at the end.
    fn room(&self) -> usize {
        (2 * self.part() + self.cut.leaves * BYTES).max(8 * self.cut.heads * LINE)
    }

    /// log2 of the warps that score the same rows.
    fn beside(&self) -> usize {
        (self.cut.warps / 4).ilog2() as usize
    }

    /// Parts of 32 dims that a warp has the values of, and accumulators of 8 heads for each.
    fn spans(&self) -> usize {
        DIM / 32 / self.cut.warps
    }

    fn columns(&self) -> usize {
        self.cut.heads / 8
    }
}

impl Meta for DecodeMeta {
    fn launch(&self) -> Launch {
        Launch { warps: self.cut.warps, min_blocks: 1 }
    }
}

/// Bytes of a leaf.
const BYTES: usize = LEAF * DIM;

/// The maximum of a leaf for 16 heads: the next integer above its quarters' peaks.
#[device]
fn peak_of(m: &DecodeMeta, peaks: &Shared<f32>, head: i32) -> Tile<f32> {
    let (a, b) = (peaks.cols(head, 1, 16), peaks.cols(head + m.cut.heads as i32, 1, 16));
    let (c, d) = (peaks.cols(head + (2 * m.cut.heads) as i32, 1, 16), peaks.cols(head + (3 * m.cut.heads) as i32, 1, 16));
    a.map2(&b, greater).map2(&c.map2(&d, greater), greater).map(upward)
}

/// The sum of a head's weights, and its maximum, with a leaf more.
#[device]
fn add_quarters(m: &DecodeMeta, peaks: &Shared<f32>, quarters: &Shared<i32>, top: &mut Shared<f32>, sum: &mut Shared<f32>, h: i32) {
    let (a, b, c) = (h + m.cut.heads as i32, h + (2 * m.cut.heads) as i32, h + (3 * m.cut.heads) as i32);
    let peak = fmax(fmax(peaks.at(h), peaks.at(a)), fmax(peaks.at(b), peaks.at(c))).ceil();
    let l = (quarters.at(h) + quarters.at(a) + quarters.at(b) + quarters.at(c)) as f32 * 4.7683716e-7_f32;
    sum.put(h, l.mul_add(right_worth(top.at(h), peak), sum.at(h) * left_worth(top.at(h), peak)));
    top.put(h, fmax(top.at(h), peak));
}

#[kernel]
pub fn latent_decode(
    m: DecodeMeta,
    nope: &dyn Codec,
    q: &Global<bf16>,       // [tokens, heads, 512]
    window: &List,
    extra: &List,
    lens: &Global<i32>,     // [tokens, 2]
    sinks: &Global<f32>,    // [heads]
    out: &mut Global<bf16>, // [tokens, heads, 512]
    lse: &mut Global<f32>,  // [tokens, heads]
    part: &mut Global<f32>, // [tokens, heads / m.cut.heads, splits, m.cut.heads, 512]
    stat: &mut Global<f32>, // [tokens, heads / m.cut.heads, splits, m.cut.heads, 2]
    heads: i32,
    share: i32,
    scale: f32,
    splits: i32,
) {
    let (split, token, part_of) = (block_id(0), block_id(1), block_id(2));
    // Integers of queries, then leaves; groups of numbers wait there before and after.
    let mut room = shared::<i8>(m.room());
    let mut weights = shared::<i8>(4 * 64 * m.cut.heads);
    // Rows of two leaves.
    let mut slots = shared::<i32>(2 * LEAF);
    let mut scales = shared::<f32>(LEAF);
    let mut bias = shared::<f32>(LEAF);
    let mut tops = shared::<f32>(m.threads());
    let mut worths = shared::<f32>(m.cut.heads);
    let mut peaks = shared::<f32>(4 * m.cut.heads);
    let mut quarters = shared::<i32>(4 * m.cut.heads);
    let mut fades = shared::<f32>(m.cut.heads);
    let mut units = shared::<f32>(m.cut.heads);
    let mut top = shared::<f32>(m.cut.heads);
    let mut sum = shared::<f32>(m.cut.heads);
    let seen = seen_by(window, extra, lens, token);
    let (first, first_head) = (split * share, part_of * m.cut.heads as i32);
    let end = seen.leaves.min(first + share);
    for i in threads(2 * LEAF) {
        let row = row_of(window, extra, &seen, token, first * LEAF as i32 + i);
        slots.put(i, row);
        if first + (i >> 7_u32) < end {
            expect_of(&m, window, extra, &seen, first + (i >> 7_u32), row);
        }
    }
    put_queries(&m, q, &mut room, &mut tops, &mut worths, &mut top, &mut sum, token as i64 * heads as i64 + first_head as i64, scale);
    for i in threads(m.threads()) {
        if first < end {
            bring_of(&m, nope, window, extra, &seen, first, &slots, 0_i32, &mut room, (2 * m.part()) as i32, &mut scales, &mut bias, i);
        }
    }
    let mut held = by_warp::<f32>(m.cut.warps, m.spans() * m.columns(), 32, 8);
    for w in warps(m.cut.warps) {
        for j in 0..m.spans() * m.columns() {
            held.put(w, j, &acc(32, 8, 0.0_f32));
        }
    }
    for leaf in strided(first, end, 1) {
        // Its bytes and rows, and those of the next one.
        let turn = (leaf - first) & 1_i32;
        let (own, other) = (turn * LEAF as i32, (1_i32 - turn) * LEAF as i32);
        let at = (2 * m.part()) as i32 + if m.cut.leaves == 2 { turn * BYTES as i32 } else { 0_i32 };
        let next_at = (2 * m.part()) as i32 + if m.cut.leaves == 2 { (1_i32 - turn) * BYTES as i32 } else { 0_i32 };
        let next = leaf + 1_i32;
        let mut scores = by_warp::<f32>(m.cut.warps, 1, 32, 16);
        for w in warps(m.cut.warps) {
            let (quarter, head) = (w >> m.beside() as u32, (w & (m.cut.warps / 4 - 1) as i32) * 16_i32);
            let sums = products(&m, &room, at + (quarter >> 1_u32) * (64 * DIM) as i32, quarter & 1_i32, head);
            let x = worth(&scales, &bias, &worths, quarter * QUARTER as i32, head, &sums);
            peaks.put_cols(quarter * m.cut.heads as i32 + head, 1, 16, &x.max_rows());
            scores.put(w, 0, &x);
        }
        for w in warps(m.cut.warps) {
            let (quarter, head) = (w >> m.beside() as u32, (w & (m.cut.warps / 4 - 1) as i32) * 16_i32);
            let peak = peak_of(&m, &peaks, head);
            let up = up_of(scales.row(0, LEAF).max());
            let p = scores.at(w, 0).map2(&peak, weight);
            quarters.put_cols(quarter * m.cut.heads as i32 + head, 1, 16, &p.map(fixed).sum_rows());
            let to = ((quarter >> 1_u32) * m.cut.heads as i32 + head) * 64_i32 + (quarter & 1_i32) * 32_i32;
            let p = p.map2(&(scales.rows(quarter * QUARTER as i32, 1, 32) * up), rounded);
            weights.put_acc(to, 1, 64, 16, &p.map(second_byte).cast::<i8>());
            weights.put_acc(to + (128 * m.cut.heads) as i32, 1, 64, 16, &p.cast::<i8>());
            if quarter == 0_i32 {
                let before = top.cols(head, 1, 16);
                fades.put_cols(head, 1, 16, &before.map2(&peak, left_worth));
                units.put_cols(head, 1, 16, &(before.map2(&peak, right_worth) * down_of(up)));
                for l in lanes(LEAF / (m.cut.warps / 4)) {
                    let i = (w & (m.cut.warps / 4 - 1) as i32) * (LEAF / (m.cut.warps / 4)) as i32 + l;
                    slots.put(own + i, row_of(window, extra, &seen, token, (leaf + 2_i32) * LEAF as i32 + i));
                }
            }
        }
        for w in warps(m.cut.warps) {
            if (m.cut.leaves == 2) & ((w & 4_i32) == 0_i32) & (next < end) {
                for l in lanes(32) {
                    bring_of(&m, nope, window, extra, &seen, next, &slots, other, &mut room, next_at, &mut scales, &mut bias, w * 32_i32 + l);
                }
            }
            for span in 0..m.spans() {
                let from = at + (w * m.spans() as i32 + span as i32) * 32_i32;
                let values = room.matrix_turned::<i8>(from, DIM, 0, 32);
                let later = room.matrix_turned::<i8>(from + (64 * DIM) as i32, DIM, 0, 32);
                for j in 0..m.columns() {
                    let high = mma(&values, &weights.operand::<u8>(512 * j, 64, 8, 64), 0_i32);
                    let low = mma(&values, &weights.operand::<u8>(128 * m.cut.heads + 512 * j, 64, 8, 64), 0_i32);
                    let high = mma(&later, &weights.operand::<u8>(64 * m.cut.heads + 512 * j, 64, 8, 64), &high);
                    let low = mma(&later, &weights.operand::<u8>(192 * m.cut.heads + 512 * j, 64, 8, 64), &low);
                    let (sums, own) = (high * 256_i32 + low, span * m.columns() + j);
                    let fade = fades.cols(8 * j, 1, 8);
                    if fade.map(moves).any() {
                        held.put(w, own, &(held.at(w, own) * &fade));
                    }
                    held.put(w, own, &sums.cast::<f32>().map3(&units.cols(8 * j, 1, 8), &held.at(w, own), fused));
                }
            }
            if w < ((m.cut.heads + 31) / 32) as i32 {
                for l in lanes(if m.cut.heads < 32 { m.cut.heads } else { 32 }) {
                    add_quarters(&m, &peaks, &quarters, &mut top, &mut sum, w * 32_i32 + l);
                }
            }
            if (m.cut.leaves == 2) & ((w & 4_i32) != 0_i32) & (next < end) {
                for l in lanes(32) {
                    bring_of(&m, nope, window, extra, &seen, next, &slots, other, &mut room, next_at, &mut scales, &mut bias, w * 32_i32 + l);
                }
            }
            if (w < (LEAF / 32) as i32) & (leaf + 2_i32 < end) {
                for l in lanes(32) {
                    expect_of(&m, window, extra, &seen, leaf + 2_i32, slots.at(own + w * 32_i32 + l));
                }
            }
        }
        if m.cut.leaves == 1 {
            for i in threads(m.threads()) {
                if next < end {
                    bring_of(&m, nope, window, extra, &seen, next, &slots, other, &mut room, next_at, &mut scales, &mut bias, i);
                }
            }
        }
    }
    if m.whole {
        for h in threads(m.cut.heads) {
            let (t, l) = (top.at(h), sum.at(h));
            let full = l > 0.0_f32;
            units.put(h, if full { inverse_of(t, l, sinks.at(first_head + h)) } else { 0.0_f32 });
            lse.put(token as i64 * heads as i64 + (first_head + h) as i64, if full { (t + log2(l)) * 0.693_147_2_f32 } else { f32::NEG_INFINITY });
        }
        for w in warps(m.cut.warps) {
            for span in 0..m.spans() {
                let own = w * m.spans() as i32 + span as i32;
                for j in 0..m.columns() {
                    room.save_acc::<f32>((own >> 1_u32) * LINE as i32 + (own & 1_i32) * 128_i32 + (64 * LINE * j) as i32, 4, 8 * LINE, 8, &held.at(w, span * m.columns() + j));
                }
            }
        }
        for i in threads(m.cut.heads * 8) {
            settle(&mut room, i, units.at(i >> 3_u32));
        }
        let own = (token as i64 * heads as i64 + first_head as i64) * 1024_i64;
        for piece in threads(m.cut.heads * 64) {
            let w = room.load4::<u32>((piece >> 3_u32) * LINE as i32 + (piece & 7_i32) * 16_i32);
            out.save4::<u32>(own + piece as i64 * 16_i64, w);
        }
    } else {
        let own = (token as i64 * (heads / m.cut.heads as i32) as i64 + part_of as i64) * splits as i64 + split as i64;
        for h in threads(m.cut.heads) {
            stat.put((own * m.cut.heads as i64 + h as i64) * 2_i64, top.at(h));
            stat.put((own * m.cut.heads as i64 + h as i64) * 2_i64 + 1_i64, sum.at(h));
        }
        for w in warps(m.cut.warps) {
            for span in 0..m.spans() {
                for j in 0..m.columns() {
                    part.put_acc((own * m.cut.heads as i64 + (8 * j) as i64) * 512_i64 + ((w * m.spans() as i32 + span as i32) * 32_i32) as i64, 1, 512, 8, &held.at(w, span * m.columns() + j));
                }
            }
        }
    }
}
