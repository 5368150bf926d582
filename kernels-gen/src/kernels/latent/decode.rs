//! Attention of 64 heads of one query token over rows of integers; the numerics are those of [`crate::latent::Problem`].
//!
//! A leaf of 128 rows goes through three steps with a barrier between. Its codes become signed bytes in shared memory, once. Each of 16
//! warps scores a quarter of the rows under 16 heads. Then each has the values of 32 dims for all heads: the same bytes by their columns,
//! and outputs that stay in registers. Bytes are multiplied by `mma` in integers, two passes for queries of 15 bits, two for
//! weights of 15.
//!
//! Cost a row and head: 4 x 512 products of bytes, bound by the tensor core; a row's bytes are read once a block.

use kernel_dsl::prelude::*;

use super::finish::settle;
use super::lanes::{RowMeta, bring, expect};
use super::query::{PART, group, put_integers, top_of, top_of_row};
use super::weigh::{QUARTER, greater, moves, products, second_byte, upward, worth};
use super::{HEADS, LINE, THREADS, WARPS};
use crate::codec::Codec;
use crate::kernels::softmax::{fused, left_worth, right_worth, weight};
use crate::latent::DIM;
use crate::latent::softmax::{LEAF, down_of, fixed, inverse_of, rounded, up_of};

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DecodeMeta {
    pub rows: RowMeta,
    /// One part a token: the block finishes it. Else it leaves its part for the join.
    pub whole: bool,
}

impl Meta for DecodeMeta {
    fn launch(&self) -> Launch {
        Launch { warps: WARPS, min_blocks: 1 }
    }
}

/// Bytes of queries and lanes, or of outputs at the end.
const ROOM: usize = 8 * HEADS * LINE;

/// The row at position p of a list, -1 if there is none.
#[device]
fn row_at(at: &Global<i32>, first: i64, p: i32, len: i32, rows: i32) -> i32 {
    let mut row = -1_i32;
    if p < len {
        let found = at.at(first + p as i64);
        row = if (found >= 0_i32) & (found < rows) { found } else { -1_i32 };
    }
    row
}

/// The maximum of a leaf for 16 heads: the next integer above its quarters' peaks.
#[device]
fn peak_of(peaks: &Shared<f32>, head: i32) -> Tile<f32> {
    let (a, b) = (peaks.cols(head, 1, 16), peaks.cols(head + HEADS as i32, 1, 16));
    let (c, d) = (peaks.cols(head + (2 * HEADS) as i32, 1, 16), peaks.cols(head + (3 * HEADS) as i32, 1, 16));
    a.map2(&b, greater).map2(&c.map2(&d, greater), greater).map(upward)
}

#[kernel]
pub fn latent_decode(
    m: DecodeMeta,
    nope: &dyn Codec,
    q: &Global<bf16>,       // [tokens, heads, 512]
    window: &Global<u8>,    // [window_rows, row_bytes]
    extra: &Global<u8>,     // [extra_rows, row_bytes]
    window_at: &Global<i32>, // [tokens, window_capacity]
    extra_at: &Global<i32>, // [tokens, extra_capacity]
    lens: &Global<i32>,     // [tokens, 2]
    sinks: &Global<f32>,    // [heads]
    out: &mut Global<bf16>, // [tokens, heads, 512]
    lse: &mut Global<f32>,  // [tokens, heads]
    part: &mut Global<f32>, // [tokens, heads / 64, splits, 64, 512]
    stat: &mut Global<f32>, // [tokens, heads / 64, splits, 64, 2]
    heads: i32,
    window_rows: i32,
    extra_rows: i32,
    window_capacity: i32,
    extra_capacity: i32,
    share: i32,
    scale: f32,
    splits: i32,
) {
    let (split, token, part_of) = (block_id(0), block_id(1), block_id(2));
    // Integers of queries, then lanes; groups of numbers wait there before and after.
    let mut room = shared::<i8>(ROOM);
    let mut weights = shared::<i8>(4 * 64 * HEADS);
    let mut slots = shared::<i32>(LEAF);
    let mut scales = shared::<f32>(LEAF);
    let mut bias = shared::<f32>(LEAF);
    let mut tops = shared::<f32>(THREADS);
    let mut worths = shared::<f32>(HEADS);
    let mut peaks = shared::<f32>(4 * HEADS);
    let mut quarters = shared::<i32>(4 * HEADS);
    let mut fades = shared::<f32>(HEADS);
    let mut units = shared::<f32>(HEADS);
    let mut top = shared::<f32>(HEADS);
    let mut sum = shared::<f32>(HEADS);
    // An empty cache is not looked at, whatever its list says.
    let window_len = if window_rows > 0_i32 { lens.at(token * 2_i32).min(window_capacity).max(0_i32) } else { 0_i32 };
    let extra_len = if extra_rows > 0_i32 { lens.at(token * 2_i32 + 1_i32).min(extra_capacity).max(0_i32) } else { 0_i32 };
    let (window_first, extra_first) = (token as i64 * window_capacity as i64, token as i64 * extra_capacity as i64);
    let window_leaves = (window_capacity + (LEAF as i32 - 1_i32)) / LEAF as i32;
    let first = split * share;
    let last = if extra_len > 0_i32 { window_leaves + (extra_len + (LEAF as i32 - 1_i32)) / LEAF as i32 } else { (window_len + (LEAF as i32 - 1_i32)) / LEAF as i32 };
    let end = last.min(first + share);
    let first_head = part_of * HEADS as i32;
    let mut numbers = by_turn::<f32>(THREADS, 64);
    let mut ahead = by_turn::<i32>(THREADS, 1);
    for some in strided(0_i32, HEADS as i32, THREADS / 8) {
        let own = (token as i64 * heads as i64 + (first_head + some) as i64) * 1024_i64;
        for i in threads(THREADS) {
            for n in 0..8 {
                let piece = i + (THREADS * n) as i32;
                let w = q.load4::<u32>(own + piece as i64 * 16_i64);
                room.save4::<u32>((2 * PART) as i32 + (piece >> 3_u32) * (LINE / 2 + 8) as i32 + (piece & 7_i32) * 16_i32, w);
            }
        }
        for i in threads(THREADS) {
            let x = group(&room, (2 * PART) as i32, i);
            for k in 0..64 {
                numbers.put(i, k, x[k]);
            }
            tops.put(i, top_of(x));
        }
        for i in threads(THREADS) {
            let mut x = [0.0_f32; 64];
            for k in 0..64 {
                x[k] = numbers.at(i, k);
            }
            let (head, whole) = (some + (i >> 3_u32), top_of_row(&tops, i >> 3_u32));
            put_integers(&mut room, head, i & 7_i32, x, whole);
            if (i & 7_i32) == 0_i32 {
                worths.put(head, whole / 16256.0_f32 * scale * 1.442_695_f32);
                top.put(head, f32::NEG_INFINITY);
                sum.put(head, 0.0_f32);
            }
        }
    }
    let mut held = by_warp::<f32>(WARPS, 8, 32, 8);
    for w in warps(WARPS) {
        for j in 0..8 {
            held.put(w, j, &acc(32, 8, 0.0_f32));
        }
    }
    for i in threads(THREADS) {
        if i < LEAF as i32 {
            let row = if first < window_leaves { row_at(window_at, window_first, first * LEAF as i32 + i, window_len, window_rows) } else { row_at(extra_at, extra_first, (first - window_leaves) * LEAF as i32 + i, extra_len, extra_rows) };
            ahead.put(i, 0, row);
        }
    }
    for leaf in strided(first, end, 1) {
        let next = leaf + 1_i32;
        for i in threads(THREADS) {
            if i < LEAF as i32 {
                slots.put(i, ahead.at(i, 0));
                let row = if next < window_leaves { row_at(window_at, window_first, next * LEAF as i32 + i, window_len, window_rows) } else { row_at(extra_at, extra_first, (next - window_leaves) * LEAF as i32 + i, extra_len, extra_rows) };
                ahead.put(i, 0, row);
            }
        }
        for i in threads(THREADS) {
            if leaf < window_leaves {
                bring(&m, nope, window, &slots, &mut room, (2 * PART) as i32, &mut scales, &mut bias, i);
            } else {
                bring(&m, nope, extra, &slots, &mut room, (2 * PART) as i32, &mut scales, &mut bias, i);
            }
            if i < LEAF as i32 {
                if next < window_leaves {
                    expect(&m, window, ahead.at(i, 0));
                } else {
                    expect(&m, extra, ahead.at(i, 0));
                }
            }
        }
        let mut scores = by_warp::<f32>(WARPS, 1, 32, 16);
        for w in warps(WARPS) {
            let (quarter, head) = (w >> 2_u32, (w & 3_i32) * 16_i32);
            let sums = products(&room, (2 * PART) as i32 + (quarter >> 1_u32) * (64 * DIM) as i32, quarter & 1_i32, head);
            let x = worth(&scales, &bias, &worths, quarter * QUARTER as i32, head, &sums);
            peaks.put_cols(quarter * HEADS as i32 + head, 1, 16, &x.max_rows());
            scores.put(w, 0, &x);
        }
        for w in warps(WARPS) {
            let (quarter, head) = (w >> 2_u32, (w & 3_i32) * 16_i32);
            let peak = peak_of(&peaks, head);
            let up = up_of(scales.row(0, LEAF).max());
            let p = scores.at(w, 0).map2(&peak, weight);
            quarters.put_cols(quarter * HEADS as i32 + head, 1, 16, &p.map(fixed).sum_rows());
            let to = ((quarter >> 1_u32) * HEADS as i32 + head) * 64_i32 + (quarter & 1_i32) * 32_i32;
            let p = p.map2(&(scales.rows(quarter * QUARTER as i32, 1, 32) * up), rounded);
            weights.put_acc(to, 1, 64, 16, &p.map(second_byte).cast::<i8>());
            weights.put_acc(to + (128 * HEADS) as i32, 1, 64, 16, &p.cast::<i8>());
            if quarter == 0_i32 {
                let before = top.cols(head, 1, 16);
                fades.put_cols(head, 1, 16, &before.map2(&peak, left_worth));
                units.put_cols(head, 1, 16, &(before.map2(&peak, right_worth) * down_of(up)));
            }
        }
        for w in warps(WARPS) {
            let at = (2 * PART) as i32 + w * 32_i32;
            let values = room.matrix_turned::<i8>(at, DIM, 0, 32);
            let next = room.matrix_turned::<i8>(at + (64 * DIM) as i32, DIM, 0, 32);
            for j in 0..8 {
                let high = mma(&values, &weights.operand::<u8>(512 * j, 64, 8, 64), 0_i32);
                let low = mma(&values, &weights.operand::<u8>(128 * HEADS + 512 * j, 64, 8, 64), 0_i32);
                let high = mma(&next, &weights.operand::<u8>(64 * HEADS + 512 * j, 64, 8, 64), &high);
                let low = mma(&next, &weights.operand::<u8>(192 * HEADS + 512 * j, 64, 8, 64), &low);
                let sums = high * 256_i32 + low;
                let fade = fades.cols(8 * j, 1, 8);
                if fade.map(moves).any() {
                    held.put(w, j, &(held.at(w, j) * &fade));
                }
                held.put(w, j, &sums.cast::<f32>().map3(&units.cols(8 * j, 1, 8), &held.at(w, j), fused));
            }
        }
        for h in threads(HEADS) {
            let (a, b, c) = (h + HEADS as i32, h + (2 * HEADS) as i32, h + (3 * HEADS) as i32);
            let peak = fmax(fmax(peaks.at(h), peaks.at(a)), fmax(peaks.at(b), peaks.at(c))).ceil();
            let l = (quarters.at(h) + quarters.at(a) + quarters.at(b) + quarters.at(c)) as f32 * 4.7683716e-7_f32;
            sum.put(h, l.mul_add(right_worth(top.at(h), peak), sum.at(h) * left_worth(top.at(h), peak)));
            top.put(h, fmax(top.at(h), peak));
        }
    }
    if m.whole {
        for h in threads(HEADS) {
            let (t, l) = (top.at(h), sum.at(h));
            let full = l > 0.0_f32;
            units.put(h, if full { inverse_of(t, l, sinks.at(first_head + h)) } else { 0.0_f32 });
            lse.put(token as i64 * heads as i64 + (first_head + h) as i64, if full { (t + log2(l)) * 0.693_147_2_f32 } else { f32::NEG_INFINITY });
        }
        for w in warps(WARPS) {
            for j in 0..8 {
                room.save_acc::<f32>((w >> 1_u32) * LINE as i32 + (w & 1_i32) * 128_i32 + (64 * LINE * j) as i32, 4, 8 * LINE, 8, &held.at(w, j));
            }
        }
        for i in threads(HEADS * 8) {
            settle(&mut room, i, units.at(i >> 3_u32));
        }
        let own = (token as i64 * heads as i64 + first_head as i64) * 1024_i64;
        for piece in threads(HEADS * 64) {
            let w = room.load4::<u32>((piece >> 3_u32) * LINE as i32 + (piece & 7_i32) * 16_i32);
            out.save4::<u32>(own + piece as i64 * 16_i64, w);
        }
    } else {
        let own = (token as i64 * (heads / HEADS as i32) as i64 + part_of as i64) * splits as i64 + split as i64;
        for h in threads(HEADS) {
            stat.put((own * HEADS as i64 + h as i64) * 2_i64, top.at(h));
            stat.put((own * HEADS as i64 + h as i64) * 2_i64 + 1_i64, sum.at(h));
        }
        for w in warps(WARPS) {
            for j in 0..8 {
                part.put_acc((own * HEADS as i64 + (8 * j) as i64) * 512_i64 + (w * 32_i32) as i64, 1, 512, 8, &held.at(w, j));
            }
        }
    }
}
