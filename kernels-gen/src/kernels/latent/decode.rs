//! Attention of 64 heads, or 16, of one query token over rows of integers; the numerics are those of [`crate::latent::Problem`].
//!
//! A leaf of 128 rows goes through three steps with a barrier between. Each of 16 warps, or 4, scores half of its rows under eight heads; then
//! it makes weights of its scores; then it has the values of 32 dims, or 128, for all heads: the same bytes by their columns, and outputs that stay
//! in registers. Products are made by four warps together, in integers, the higher and lower bytes of queries of 15 bits and of weights of 15 side by
//! side. Where shared memory has room for two leaves, the next one's codes are sent for beside the scores, and become signed bytes beside the
//! values, once for all heads: half of the warps do that before their products and half between them.
//!
//! Cost a row and head: 4 x 512 products of bytes, bound by the tensor core; a row's bytes are read once a block.

use kernel_dsl::prelude::*;

use super::finish::settle;
use super::lanes::{RowMeta, unpack};
use super::lists::{List, ask_of, expect_of, put_seen, row_of, seen_again, seen_by};
use super::query::put_queries;
use super::values::{add_values, moves};
use super::weigh::{HALF, score, weigh};
use super::{Cut, LINE};
use crate::codec::Codec;
use crate::kernels::softmax::{left_worth, right_worth};
use crate::latent::DIM;
use crate::latent::softmax::{LEAF, inverse_of};

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
    pub fn beside(&self) -> usize {
        (self.cut.warps / 2).ilog2() as usize
    }

    /// Warps that score together: four have 32 heads.
    pub fn together(&self) -> usize {
        if self.cut.heads < 32 { 1 } else { 4 }
    }

    /// Parts of 16 dims that a warp has the values of, and accumulators for each.
    pub fn spans(&self) -> usize {
        DIM / 16 / self.cut.warps
    }

    pub fn columns(&self) -> usize {
        self.cut.heads / 16
    }
}

impl Meta for DecodeMeta {
    fn launch(&self) -> Launch {
        Launch { warps: self.cut.warps, min_blocks: 1 }
    }
}

/// Bytes of a leaf.
const BYTES: usize = LEAF * DIM;

/// First byte of the leaf at a place.
#[device]
fn bytes_at(m: &DecodeMeta, place: i32) -> i32 {
    (2 * m.part()) as i32 + if m.cut.leaves == 2 { place * BYTES as i32 } else { 0_i32 }
}

/// The sum of a head's weights, and its maximum, with a leaf more.
#[device]
fn add_halves(m: &DecodeMeta, peaks: &Shared<f32>, halves: &Shared<i32>, top: &mut Shared<f32>, sum: &mut Shared<f32>, h: i32) {
    let other = h + m.cut.heads as i32;
    let peak = fmax(peaks.at(h), peaks.at(other)).ceil();
    let l = (halves.at(h) + halves.at(other)) as f32 * 4.7683716e-7_f32;
    sum.put(h, l.mul_add(right_worth(top.at(h), peak), sum.at(h) * left_worth(top.at(h), peak)));
    top.put(h, fmax(top.at(h), peak));
}

#[kernel]
pub fn latent_decode(
    m: DecodeMeta,
    nope: &dyn Codec,
    q: &Global<bf16>, // [tokens, heads, 512]
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
    // Of 16 heads the higher bytes, then the lower ones, in cores.
    let mut weights = shared::<u8>(4 * 64 * m.cut.heads);
    // Rows of two leaves.
    let mut slots = shared::<i32>(2 * LEAF);
    let mut sight = shared::<i32>(4);
    // Of each row of the leaf that comes: its last 16 bytes.
    let mut sides = shared::<u8>(16 * LEAF);
    let mut scales = shared::<f32>(2 * LEAF);
    let mut bias = shared::<f32>(2 * LEAF);
    let mut tops = shared::<f32>(m.threads());
    let mut worths = shared::<f32>(m.cut.heads);
    let mut peaks = shared::<f32>(2 * m.cut.heads);
    let mut halves = shared::<i32>(2 * m.cut.heads);
    let mut fades = shared::<f32>(m.cut.heads);
    let mut units = shared::<f32>(m.cut.heads);
    let mut top = shared::<f32>(m.cut.heads);
    let mut sum = shared::<f32>(m.cut.heads);
    after_previous();
    release_next();
    let seen = seen_by(window, extra, lens, token);
    let (first, first_head) = (split * share, part_of * m.cut.heads as i32);
    let end = seen.leaves.min(first + share);
    for i in threads(2 * LEAF) {
        let row = row_of(window, extra, &seen, token, first * LEAF as i32 + i);
        slots.put(i, row);
        if i == 0_i32 {
            put_seen(&mut sight, &seen);
        }
        if first + (i >> 7_u32) < end {
            expect_of(&m, window, extra, &seen, first + (i >> 7_u32), row);
        }
    }
    put_queries(&m, q, &mut room, &mut tops, &mut worths, &mut top, &mut sum, token as i64 * heads as i64 + first_head as i64, scale);
    for i in threads(m.threads()) {
        if first < end {
            ask_of(&m, window, extra, &seen, first, &slots, 0_i32, &mut room, (2 * m.part()) as i32, &mut sides, i);
            brought();
        }
    }
    for i in threads(m.threads()) {
        if first < end {
            unpack(&m, nope, &slots, 0_i32, &mut room, (2 * m.part()) as i32, &sides, &mut scales, &mut bias, i);
            for_cores();
        }
    }
    let mut held = by_warp::<f32>(m.cut.warps, m.spans() * m.columns(), 16, 16);
    let mut scores = by_warp::<f32>(m.cut.warps, 1, 8, HALF);
    for w in warps(m.cut.warps) {
        for j in 0..m.spans() * m.columns() {
            held.put(w, j, &acc(16, 16, 0.0_f32));
        }
    }
    for leaf in strided(first, end, 1) {
        // Outputs leave no registers for addresses to wait in.
        anew();
        // Where its bytes and rows are, and those of the next one.
        let (place, next, next_place) = ((leaf - first) & 1_i32, leaf + 1_i32, (leaf + 1_i32 - first) & 1_i32);
        let (own, other) = (place * LEAF as i32, next_place * LEAF as i32);
        let (at, next_at) = (bytes_at(&m, place), bytes_at(&m, next_place));
        for w in warps(m.cut.warps) {
            // The first four warps wait for rows' numbers while the products of others are under way.
            if w < (LEAF / 32) as i32 {
                for l in lanes(32) {
                    let i = w * 32_i32 + l;
                    slots.put(own + i, row_of(window, extra, &seen_again(&sight), block_id(1), (leaf + 2_i32) * LEAF as i32 + i));
                }
            }
            // Half of them send for the next leaf's rows before their products, half after.
            for half in 0..2 {
                if (m.cut.leaves == 2) & (((w >> 2_u32) & 1_i32) == (1 - half) as i32) & (next < end) {
                    for l in lanes(32) {
                        ask_of(&m, window, extra, &seen_again(&sight), next, &slots, other, &mut room, next_at, &mut sides, w * 32_i32 + l);
                    }
                }
                if half == 0 {
                    scores.put(w, 0, &score(&m, &room, at, own, &scales, &bias, &worths, &mut peaks, w));
                }
            }
        }
        for w in warps(m.cut.warps) {
            weigh(&m, &scores.at(w, 0), own, &scales, &peaks, &mut halves, &mut weights, &mut fades, &mut units, &top, w);
            for_cores();
        }
        for w in warps(m.cut.warps) {
            let moved = fades.cols(0, 1, m.cut.heads).map(moves).any();
            for span in 0..m.spans() {
                if (m.cut.leaves == 2) & (((w >> 2_u32) & 1_i32) == (m.spans() - 1 - span) as i32) & (next < end) {
                    brought();
                    sync_warp();
                    for l in lanes(32) {
                        unpack(&m, nope, &slots, other, &mut room, next_at, &sides, &mut scales, &mut bias, w * 32_i32 + l);
                    }
                }
                add_values(&m, &room, at, &weights, &fades, &units, &mut held, moved, w, span);
            }
            if w < ((m.cut.heads + 31) / 32) as i32 {
                for l in lanes(if m.cut.heads < 32 { m.cut.heads } else { 32 }) {
                    add_halves(&m, &peaks, &halves, &mut top, &mut sum, w * 32_i32 + l);
                }
            }
            if (m.cut.leaves == 1) & (w < (LEAF / 32) as i32) & (leaf + 2_i32 < end) {
                for l in lanes(32) {
                    expect_of(&m, window, extra, &seen_again(&sight), leaf + 2_i32, slots.at(own + w * 32_i32 + l));
                }
            }
            if m.cut.leaves == 2 {
                for_cores();
            }
        }
        if m.cut.leaves == 1 {
            for i in threads(m.threads()) {
                if next < end {
                    ask_of(&m, window, extra, &seen_again(&sight), next, &slots, other, &mut room, next_at, &mut sides, i);
                    brought();
                }
            }
            for i in threads(m.threads()) {
                if next < end {
                    unpack(&m, nope, &slots, other, &mut room, next_at, &sides, &mut scales, &mut bias, i);
                    for_cores();
                }
            }
        }
    }
    anew();
    let (split, token, part_of) = (block_id(0), block_id(1), block_id(2));
    let first_head = part_of * m.cut.heads as i32;
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
                    room.save_acc::<f32>((own >> 2_u32) * LINE as i32 + (own & 3_i32) * 64_i32 + (128 * LINE * j) as i32, 4, 8 * LINE, 16, &held.at(w, span * m.columns() + j));
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
                    part.put_acc((own * m.cut.heads as i64 + (16 * j) as i64) * 512_i64 + ((w * m.spans() as i32 + span as i32) * 16_i32) as i64, 1, 512, 16, &held.at(w, span * m.columns() + j));
                }
            }
        }
    }
}
