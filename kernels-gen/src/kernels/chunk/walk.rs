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

/// Bits by which sums go up under the next unit, or down.
#[device]
fn up(by: i32) -> i32 {
    by.max(0_i32).min(31_i32)
}

#[device]
fn down(by: i32) -> i32 {
    (0_i32 - by).max(0_i32).min(31_i32)
}

#[device]
fn left(x: i32, n: i32) -> i32 {
    x << (n & 31_i32)
}

#[device]
fn right_by(x: i32, n: i32) -> i32 {
    x >> (n & 31_i32)
}

/// The bits that an even row's sums lose to the next one's.
#[device]
fn lost(down: i32, row: i32) -> i32 {
    if (row & 1_i32) == 0_i32 { (1_i32 << (down & 31_i32)) - 1_i32 } else { 0_i32 }
}

#[device]
fn of_both(x: i32, bits: i32) -> i32 {
    x & bits
}

#[device]
fn below_eight(down: i32) -> i32 {
    (8_i32 - down).max(0_i32)
}

#[device]
fn above_eight(down: i32) -> i32 {
    (down - 8_i32).max(0_i32)
}

/// Sums of both bytes under the next unit, `by` bits up or down: as `moved` and `carried` have it, what those of high bytes lose goes to those of
/// low ones.
#[device]
fn moved_rows(sums: &Tile<i32>, by: &Tile<i32>) -> Tile<i32> {
    let (up, down) = (by.map(up), by.map(down));
    let rest = sums.map2(&down.map2(&row_ids(16), lost), of_both).map2(&down.map(below_eight), left).map2(&down.map(above_eight), right_by);
    sums.map2(&up, left).map2(&down, right_by) + &rest.swap_rows()
}

/// The query of eight rows from `own` on, loaded anew for tile `i`: held it would take the place of sums.
#[device]
fn query_of(m: &DecodeMeta, query: &Shared<i8>, own: i32, i: i32) -> Tile<i8> {
    let nothing = (opaque(i as u32) ^ i as u32) as i32;
    query.packed_left::<i8>(own * (2 * m.d) as i32 + nothing, 2 * ROWS, m.d)
}

/// Eight rows' integer weights of tile `i` of the leaf, by bytes, from the dots of their queries with its keys; their state moves on. `token`:
/// where the tile's numbers stand, `t`: the tile's number, `edge` that of the first one that not all rows see to its end.
#[device]
#[allow(clippy::too_many_arguments)]
fn weigh(
    record: usize,
    k: &dyn Codec,
    v: &dyn Codec,
    dots: &Tile<i32>,
    sides: &Shared<u32>,
    zero: &Shared<i32>,
    worths: &Shared<f32>,
    leans: &Shared<f32>,
    ends: &Shared<i32>,
    own: i32,
    i: i32,
    token: i32,
    t: i32,
    edge: i32,
    top: &mut Tile<f32>,
    power: &mut Tile<f32>,
    first: &mut Tile<f32>,
    second: &mut Tile<f32>,
    first_lean: &mut Tile<f32>,
    second_lean: &mut Tile<f32>,
    sums: &mut Tile<i32>,
    total: &mut Tile<i32>,
) -> Tile<u8> {
    let dots = dots.fold_rows(128);
    let dots = (if k.spec().even() { dots } else { dots * 2_i32 } + &zero.rows(own, 1, ROWS)).cast::<f32>();
    let each = sides.spread(token).map(number) * &worths.rows(own, 1, ROWS);
    let mut x = if record > 0 {
        dots.map3(&each, &leans.rows(own, 1, ROWS), fused)
    } else if k.spec().affine {
        dots.map3(&each, &(sides.spread(token + (2 * LEAF) as i32).map(number) * &leans.rows(own, 1, ROWS)), fused)
    } else {
        &dots * &each
    };
    if t >= edge {
        x = x.map2(&((spread_ids() + t * 32_i32) - &ends.rows(own, 1, ROWS)), visible);
    }
    // A new maximum is rare.
    if x.map2(&*top, above).any() {
        let next = top.map2(&x.max_cols(), raised);
        if i > 0_i32 {
            let fade = top.map2(&next, fade_of);
            *power = power.map(lift_of).map3(&*top, &next, sunk).map(up_of);
            *first = &*first * &fade;
            *second = &*second * &fade;
            if v.spec().affine {
                *first_lean = &*first_lean * &fade;
                *second_lean = &*second_lean * &fade;
            }
        }
        *top = next;
    }
    let p = (x - &*top).map(exp2_raised);
    let (of, and) = p.pair_sums();
    *first = &*first + &of;
    *second = &*second + &and;
    if v.spec().affine {
        let (of, and) = (&p * &sides.spread(token + (3 * LEAF) as i32).map(number)).pair_sums();
        *first_lean = &*first_lean + &of;
        *second_lean = &*second_lean + &and;
    }
    let pv = p * &sides.spread(token + LEAF as i32).map(number);
    let mut weights = pv.map2(&*power, rounded);
    if weights.or_cols().map(unfit).any() {
        let peak = pv.map(bits_of).max_cols();
        // A fresh leaf has no unit yet, and nothing to move.
        let mut next = peak.map(first_fit);
        if i > 0_i32 {
            let lift = power.map(lift_of);
            let most = total.map2(&total.swap_rows(), larger).fold_rows(0).max_cols();
            next = lift.map3(&peak, &most, fitted);
            let by = next.map2(&lift, minus);
            let both = by.twice_rows();
            *sums = moved_rows(&*sums, &both);
            *total = moved_rows(&*total, &both);
        }
        *power = next.map(up_of);
        weights = pv.map2(&*power, rounded);
    }
    weights.split_rows()
}

/// What stands for half a step above zero in each dim of values whose dims differ in it.
#[device]
pub fn halves_of(v: &dyn Codec, halves: &mut Shared<i32>, d: usize) {
    if v.spec().mixed {
        for i in threads(d) {
            let mut half = 1_i32 << v.spec().halves[0];
            for dim in 1..8 {
                half = if (i & 7_i32) < dim as i32 { half } else { 1_i32 << v.spec().halves[dim] };
            }
            halves.put(i, half);
        }
    }
}

/// Output of eight rows, from the sums of a leaf.
#[device]
#[allow(clippy::too_many_arguments)]
fn closed_rows(v: &dyn Codec, halves: &Shared<i32>, sums: &Tile<i32>, total: &Tile<i32>, power: &Tile<f32>, first_lean: &Tile<f32>, second_lean: &Tile<f32>, d: usize) -> Tile<f32> {
    let zero = if v.spec().mixed { &(total.max_cols() * -1_i32) * &halves.cols(0, 1, d) } else { total.max_cols() * -((v.spec().zero2 + 1_i32) / 2) };
    let o = (sums + &zero).cast::<f32>().fold_rows(256);
    let unit = power.map(lift_of).map(down_of);
    let o = if v.spec().odd() { o.map3(&unit, &(total.cast::<f32>().fold_rows(256).max_cols() * &(&unit * 0.5_f32)), fused) } else { o * &unit };
    if v.spec().affine { o + &((first_lean.map(fixed_raised).sum_cols() + &second_lean.map(fixed_raised).sum_cols()).cast::<f32>() * 1.4551915e-11_f32) } else { o }
}

/// Their weights' sum.
#[device]
fn summed(first: &Tile<f32>, second: &Tile<f32>) -> Tile<f32> {
    (first.map(counted).sum_cols() + &second.map(counted).sum_cols()).cast::<f32>() * 1.1920929e-7_f32
}

/// Outputs, sums and maxima of the leaf for the warp's eights of rows, which see `live` tiles of it; from tile `edge` on not all of them to the
/// end.
#[device]
#[allow(clippy::too_many_arguments)]
pub fn walk(
    m: &DecodeMeta,
    k: &[&dyn Codec],
    v: &[&dyn Codec],
    room: &Shared<f32>,
    sides: &Shared<u32>,
    query: &Shared<i8>,
    zero: &Shared<i32>,
    worths: &Shared<f32>,
    leans: &Shared<f32>,
    ends: &Shared<i32>,
    halves: &Shared<i32>,
    w: i32,
    leaf: i32,
    live: i32,
    edge: i32,
) -> ([Tile<f32>; 2], [Tile<f32>; 2], [Tile<f32>; 2]) {
    let (own, half) = (w * (ROWS * m.wide) as i32, m.half_bytes() as i32);
    let next = own + (ROWS * (m.wide - 1)) as i32;
    let (bytes, numbers) = ((leaf & 1_i32) * (2_i32 * half), (leaf & 1_i32) * (SIDES * LEAF) as i32);
    let mut top = [rows(ROWS, f32::NEG_INFINITY), rows(ROWS, f32::NEG_INFINITY)];
    // What weights are multiplied by.
    let mut power = [rows(ROWS, 0.0_f32), rows(ROWS, 0.0_f32)];
    // Sums of weights, of the first and of the last two of every four tokens: lane by lane.
    let mut first = [acc(ROWS, 8, 0.0_f32), acc(ROWS, 8, 0.0_f32)];
    let mut second = [acc(ROWS, 8, 0.0_f32), acc(ROWS, 8, 0.0_f32)];
    // Likewise of weights times offsets.
    let mut first_lean = [acc(ROWS, 8, 0.0_f32), acc(ROWS, 8, 0.0_f32)];
    let mut second_lean = [acc(ROWS, 8, 0.0_f32), acc(ROWS, 8, 0.0_f32)];
    // Weighted values and weights, of high and low bytes in turn.
    let mut sums = [acc(2 * ROWS, m.d, 0_i32), acc(2 * ROWS, m.d, 0_i32)];
    let mut total = [acc(2 * ROWS, 8, 0_i32), acc(2 * ROWS, 8, 0_i32)];
    for i in strided(0_i32, live, 1) {
        let (t, at, token) = (leaf * TILES as i32 + i, bytes + i * (32 * m.d) as i32, numbers + i * 32_i32);
        let keys = room.packed_right::<u8>(at, m.d, 32);
        let dots = [mma(&query_of(m, query, own, i), &keys, 0_i32), mma(&query_of(m, query, next, i), &keys, 0_i32)];
        let one =
            weigh(m.record, k[0], v[0], &dots[0], sides, zero, worths, leans, ends, own, i, token, t, edge, &mut top[0], &mut power[0], &mut first[0], &mut second[0], &mut first_lean[0], &mut second_lean[0], &mut sums[0], &mut total[0]);
        let two = if m.wide > 1 {
            weigh(m.record, k[0], v[0], &dots[1], sides, zero, worths, leans, ends, next, i, token, t, edge, &mut top[1], &mut power[1], &mut first[1], &mut second[1], &mut first_lean[1], &mut second_lean[1], &mut sums[1], &mut total[1])
        } else {
            one.clone()
        };
        let values = room.packed_right::<u8>(at + half, 32, m.d);
        total[0] = mma(&one, &right(32, 8, 1_u8), &total[0]);
        sums[0] = mma(&one, &values, &sums[0]);
        if m.wide > 1 {
            total[1] = mma(&two, &right(32, 8, 1_u8), &total[1]);
            sums[1] = mma(&two, &values, &sums[1]);
        }
    }
    let o = [closed_rows(v[0], halves, &sums[0], &total[0], &power[0], &first_lean[0], &second_lean[0], m.d), closed_rows(v[0], halves, &sums[1], &total[1], &power[1], &first_lean[1], &second_lean[1], m.d)];
    (o, [summed(&first[0], &second[0]), summed(&first[1], &second[1])], top)
}

#[device]
fn number(bits: u32) -> f32 {
    f32::from_bits(bits)
}
