//! A warp's eight rows over one leaf whose bytes lie in shared memory: the steps of decode's loop, see [`super::super::attend`].

use super::super::decode_attention::DecodeMeta;
use super::super::keys::query_part;
use super::super::leaves::{LEAF, TILES, closed};
use super::super::softmax::*;
use super::super::units::*;
use super::super::values::{peaks, rounded, total_of};
use super::COLS;
use super::tiles::SIDES;
use crate::codec::Codec;
use kernel_dsl::prelude::*;

#[device]
fn number(bits: u32) -> f32 {
    f32::from_bits(bits)
}

/// A kind of the numbers of 32 tokens, from `at` on.
#[device]
fn side(sides: &Shared<u32>, at: i32) -> Tile<f32> {
    sides.rows(at, 1, 32).map(number)
}

/// Output, sum and maximum of the leaf, of which the rows see `live` tiles; from tile `edge` on not all of them to the end.
#[device]
#[allow(clippy::too_many_arguments)]
pub fn walk(m: &DecodeMeta, k: &[&dyn Codec], v: &[&dyn Codec], room: &Shared<f32>, sides: &Shared<u32>, query: &Shared<u8>, zero: &Shared<i32>, worths: &Shared<f32>, leans: &Shared<f32>, ends: &Shared<i32>, w: i32, leaf: i32, live: i32, edge: i32) -> (Tile<f32>, Tile<f32>, Tile<f32>) {
    let (column, half) = (w * COLS as i32, m.half_bytes() as i32);
    let (bytes, numbers) = ((leaf & 1_i32) * (2_i32 * half), (leaf & 1_i32) * (SIDES * LEAF) as i32);
    let q_hi = query_part(query, column * m.d as i32, m.d, COLS, m.d, m.key_quads);
    let q_lo = query_part(query, column * m.d as i32 + m.low_at() as i32, m.d, COLS, m.d, m.key_quads);
    let (start, worth) = (zero.cols(column, 1, COLS), worths.cols(column, 1, COLS));
    let mut top = cols(COLS, f32::NEG_INFINITY);
    let mut power = cols(COLS, 0.0_f32);
    let mut count = acc(16, COLS, 0_u32);
    let mut shift = acc(16, COLS, 0_i64);
    let (mut low, mut high) = (acc(m.d, COLS, 0_i32), acc(m.d, COLS, 0_i32));
    let (mut low_total, mut high_total) = (cols(COLS, 0_i32), cols(COLS, 0_i32));
    for i in strided(0_i32, live, 1) {
        let (t, at, token) = (leaf * TILES as i32 + i, bytes + i * (32 * m.d) as i32, numbers + i * 32_i32);
        let keys = room.packed_left::<u8>(at, 32, m.d);
        let dots = mma(&keys, &q_hi, 0_i32) * 128_i32 + &mma(&keys, &q_lo, 0_i32);
        let dots = (if k[0].spec().even() { dots } else { dots * 2_i32 } + &start).cast::<f32>();
        let each = side(sides, token) * &worth;
        let mut x = if k[0].spec().affine { dots.map3(&each, &(side(sides, token + (2 * LEAF) as i32) * &leans.cols(column, 1, COLS)), fused) } else { &dots * &each };
        if t >= edge {
            x = x.map2(&((row_ids(32) + t * 32_i32) - &ends.cols(column, 1, COLS)), visible);
        }
        // A new maximum is rare.
        if x.map2(&top, above).any() {
            let next = top.map2(&peaks(&x, 1), raised);
            if i > 0_i32 {
                power = power.map(lift_of).map3(&top, &next, sunk).map(up_of);
                count = faded(m, &count.cast::<i64>(), &top, &next).cast::<u32>();
                if v[0].spec().affine {
                    shift = faded(m, &shift, &top, &next);
                }
            }
            top = next;
        }
        let p = (x - &top).map(exp2_raised);
        count = &count + &p.half_sums().map(counted);
        if v[0].spec().affine {
            shift = &shift + &(&p * &side(sides, token + (3 * LEAF) as i32)).half_sums().map(super::super::offset::fixed_raised);
        }
        let pv = p * &side(sides, token + LEAF as i32);
        let mut weights = pv.map2(&power, rounded);
        if misfit(&weights, 1).any() {
            let lift = power.map(lift_of);
            let next = lift.map3(&largest(&pv, 1), &low_total.map2(&high_total, larger), fitted);
            if i > 0_i32 {
                let by = next.map2(&lift, minus);
                let moved = move_sums(m, v[0], &low, &high, &low_total, &by, m.d);
                low = moved.0;
                high = moved.1;
                let moved = move_totals(m, &low_total, &high_total, &low_total, &by);
                low_total = moved.0;
                high_total = moved.1;
            }
            power = next.map(up_of);
            weights = pv.map2(&power, rounded);
        }
        let (first, second) = bytes_of(&weights, 1);
        low_total = &low_total + &second.sum_k();
        high_total = &high_total + &first.sum_k();
        let values = room.packed_left::<u8>(at + half, m.d, 32);
        low = mma(&values, &second, &low);
        high = mma(&values, &first, &high);
    }
    let (o_low, o_high) = (output_of(m, v[0], &low, &low_total, m.d), output_of(m, v[0], &high, &high_total, m.d));
    let unit = power.map(lift_of).map(down_of);
    let o = closed(m, v[0], &o_high, &o_low, &high_total.cast::<f32>(), &low_total.cast::<f32>(), &shift, &unit, m.d);
    let l = total_of(&count.cast::<i64>(), 1).cast::<f32>() * 1.4901161e-8_f32;
    (o, l, top)
}
