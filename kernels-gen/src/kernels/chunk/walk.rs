//! A warp's eight rows over one leaf whose bytes lie in shared memory: the steps of decode's loop, see [`super::super::attend`].
//!
//! A row's two bytes, of its query and of its weights, are neighbouring rows of the left operand: sums of both lie in one lane, and scores become
//! weights' bytes where they are, without a transposition.

use super::super::decode_attention::DecodeMeta;
use super::super::leaves::{LEAF, TILES};
use super::super::offset::fixed_raised;
use super::super::softmax::*;
use super::super::units::*;
use super::super::values::rounded;
use super::ROWS;
use super::tiles::SIDES;
use crate::codec::Codec;
use kernel_dsl::prelude::*;

/// What a tile's weights have in common decides whether they fit their unit: none overflows, one counts.
#[device]
fn unfit(bits: i32) -> bool {
    overflows(bits) | ((bits & 0xff00_i32) == 0_i32)
}

#[device]
fn parity(row: i32) -> i32 {
    row & 1_i32
}

/// 1 where a maximum rises.
#[device]
fn risen(top: f32, next: f32) -> u32 {
    if next > top { 1_u32 } else { 0_u32 }
}

#[device]
fn still(risen: u32) -> u32 {
    1_u32 - risen
}

/// The sum of a half's weights: of lanes since the maximum rose last, and what had come before.
#[device]
fn faded_sum(sum: &Tile<u32>, before: &Tile<u32>, top: &Tile<f32>, next: &Tile<f32>) -> (Tile<u32>, Tile<u32>) {
    let all = (sum.cast::<i64>().sum_cols() + &before.cast::<i64>()).map3(top, next, shifted).cast::<u32>();
    let rises = top.map2(next, risen);
    (sum * &rises.map(still), before * &rises.map(still) + &(all * &rises))
}

/// Likewise of offsets.
#[device]
fn faded_shift(sum: &Tile<i64>, before: &Tile<i64>, top: &Tile<f32>, next: &Tile<f32>) -> Tile<i64> {
    (sum.sum_cols() + before).map3(top, next, shifted)
}

/// Sums of both bytes under the next unit: what those of high bytes lose goes to those of low ones.
#[device]
fn moved_rows(sums: &Tile<i32>, by: &Tile<i32>) -> Tile<i32> {
    let whole = sums.map2(by, moved);
    let rest = sums.map3(&whole, by, carried);
    whole + &(rest.swap_rows() * &row_ids(16).map(parity))
}

/// Output, sum and maximum of the leaf, of which the rows see `live` tiles; from tile `edge` on not all of them to the end.
#[device]
#[allow(clippy::too_many_arguments)]
pub fn walk(m: &DecodeMeta, k: &[&dyn Codec], v: &[&dyn Codec], room: &Shared<f32>, sides: &Shared<u32>, query: &Shared<i8>, zero: &Shared<i32>, worths: &Shared<f32>, leans: &Shared<f32>, ends: &Shared<i32>, w: i32, leaf: i32, live: i32, edge: i32) -> (Tile<f32>, Tile<f32>, Tile<f32>) {
    let (own, half) = (w * ROWS as i32, m.half_bytes() as i32);
    let (bytes, numbers) = ((leaf & 1_i32) * (2_i32 * half), (leaf & 1_i32) * (SIDES * LEAF) as i32);
    let q = query.left(own * (2 * m.d) as i32, m.d, 2 * ROWS, m.d);
    let q = if m.key_quads { q.quad_order() } else { q };
    let (start, worth) = (zero.rows(own, 1, ROWS), worths.rows(own, 1, ROWS));
    let mut top = rows(ROWS, f32::NEG_INFINITY);
    let mut power = rows(ROWS, 0.0_f32);
    let mut counts = [acc(ROWS, 8, 0_u32), acc(ROWS, 8, 0_u32)];
    let mut before = [rows(ROWS, 0_u32), rows(ROWS, 0_u32)];
    let mut shifts = [acc(ROWS, 8, 0_i64), acc(ROWS, 8, 0_i64)];
    let mut shifts_before = [rows(ROWS, 0_i64), rows(ROWS, 0_i64)];
    // Of high and low bytes in turn.
    let (mut sums, mut total) = (acc(2 * ROWS, m.d, 0_i32), acc(2 * ROWS, 8, 0_i32));
    for i in strided(0_i32, live, 1) {
        let (t, at, token) = (leaf * TILES as i32 + i, bytes + i * (32 * m.d) as i32, numbers + i * 32_i32);
        let dots = mma(&q, &room.packed_right::<u8>(at, m.d, 32), 0_i32).fold_rows(128);
        let dots = (if k[0].spec().even() { dots } else { dots * 2_i32 } + &start).cast::<f32>();
        let each = sides.spread(token).map(number) * &worth;
        let mut x = if k[0].spec().affine { dots.map3(&each, &(sides.spread(token + (2 * LEAF) as i32).map(number) * &leans.rows(own, 1, ROWS)), fused) } else { &dots * &each };
        if t >= edge {
            x = x.map2(&((spread_ids() + t * 32_i32) - &ends.rows(own, 1, ROWS)), visible);
        }
        // A new maximum is rare.
        if x.map2(&top, above).any() {
            let next = top.map2(&x.max_cols(), raised);
            if i > 0_i32 {
                power = power.map(lift_of).map3(&top, &next, sunk).map(up_of);
                for h in 0..2 {
                    let of = faded_sum(&counts[h], &before[h], &top, &next);
                    counts[h] = of.0;
                    before[h] = of.1;
                    if v[0].spec().affine {
                        shifts_before[h] = faded_shift(&shifts[h], &shifts_before[h], &top, &next);
                        shifts[h] = acc(ROWS, 8, 0_i64);
                    }
                }
            }
            top = next;
        }
        let p = (x - &top).map(exp2_raised);
        let (first, second) = p.pair_sums();
        counts[0] = &counts[0] + &first.map(counted);
        counts[1] = &counts[1] + &second.map(counted);
        if v[0].spec().affine {
            let (first, second) = (&p * &sides.spread(token + (3 * LEAF) as i32).map(number)).pair_sums();
            shifts[0] = &shifts[0] + &first.map(fixed_raised);
            shifts[1] = &shifts[1] + &second.map(fixed_raised);
        }
        let pv = p * &sides.spread(token + LEAF as i32).map(number);
        let mut weights = pv.map2(&power, rounded);
        if weights.or_cols().map(unfit).any() {
            let lift = power.map(lift_of);
            let most = total.map2(&total.swap_rows(), larger).fold_rows(0).max_cols();
            let next = lift.map3(&pv.map(bits_of).max_cols(), &most, fitted);
            if i > 0_i32 {
                let by = next.map2(&lift, minus).twice_rows();
                sums = moved_rows(&sums, &by);
                total = moved_rows(&total, &by);
            }
            power = next.map(up_of);
            weights = pv.map2(&power, rounded);
        }
        let both = weights.split_rows();
        total = mma(&both, &right(32, 8, 1_u8), &total);
        sums = mma(&both, &room.packed_right::<u8>(at + half, 32, m.d), &sums);
    }
    let zero = total.max_cols() * -((v[0].spec().zero2 + 1_i32) / 2);
    let o = (sums + &zero).cast::<f32>().fold_rows(256);
    let unit = power.map(lift_of).map(down_of);
    let o = if v[0].spec().odd() { o.map3(&unit, &(total.cast::<f32>().fold_rows(256).max_cols() * &(&unit * 0.5_f32)), fused) } else { o * &unit };
    let o = if v[0].spec().affine { o + &((shifts[0].sum_cols() + &shifts[1].sum_cols() + &shifts_before[0] + &shifts_before[1]).cast::<f32>() * 1.4551915e-11_f32) } else { o };
    let l = (counts[0].cast::<i64>().sum_cols() + &counts[1].cast::<i64>().sum_cols() + &before[0].cast::<i64>() + &before[1].cast::<i64>()).cast::<f32>() * 1.4901161e-8_f32;
    (o, l, top)
}

#[device]
fn number(bits: u32) -> f32 {
    f32::from_bits(bits)
}
