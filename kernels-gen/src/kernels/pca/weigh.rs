//! Values of a tile, weighted: weights times norms meet levels, weights times lengths meet marks of centres.
//!
//! With up to four heads both are integers under units that stay ([`super::super::units`]), one for norms and one for lengths, so sums of a leaf
//! are integers that the tensor core adds up. With more heads each tile has units of its own, and sums are floats.

use super::super::decode_attention::DecodeMeta;
use super::super::keys::{high_half, low_half};
use super::super::kivi::values::either;
use super::super::softmax::fused;
use super::super::units::*;
use super::super::values::{rounded, weights};
use super::MARKED;
use super::scores::{put_outliers, sides_of};
use crate::codec::Codec;
use kernel_dsl::prelude::*;

/// A tile's weighted values, added to floats: of residuals by bands, and of centres.
#[device]
#[allow(clippy::too_many_arguments)]
pub fn weighed(m: &DecodeMeta, v: &dyn Codec, tokens: &Page, more: &mut Shared<u8>, w: i32, p: &Tile<f32>, sums: [Tile<f32>; 4], ways: &Tile<f32>) -> ([Tile<f32>; 4], Tile<f32>) {
    let (sides, bands, mut sums) = (sides_of(m, tokens, m.sides_at + 128), m.ranks[1] / 32, sums);
    let values: Tile<u8> = tokens.values(m.values_at[0], v.spec().bits, m.ranks[1], 8, |x| v.decode(x));
    let of = weights(p * &sides.map(low_half));
    let less = &of.2 * -128_i32;
    if m.behind.outliers[1] > 0 {
        put_outliers(m, tokens, more, w, 1);
    }
    for i in 0..bands {
        let band = values.band(i, bands);
        let (mut high, mut low) = (mma(&band, &of.0, 0_i32), mma(&band, &of.1, &less));
        if m.behind.outliers[1] > 0 {
            let beyond = more.packed_left::<i8>(w * m.more() as i32 + (1024 * i) as i32, 32, 32);
            high = mma(&beyond, &of.0, &high);
            low = mma(&beyond, &of.1, &low);
        }
        sums[i] = (high * 256_i32 + low).cast::<f32>().map3(&of.3, &sums[i], fused);
    }
    let of = weights(p * &sides.map(high_half));
    let marks = tokens.marks(m.sides_at + 288);
    (sums, (mma(&marks, &of.0, 0_i32) * 256_i32 + mma(&marks, &of.1, 0_i32)).cast::<f32>().map3(&(&of.3 * MARKED), ways, fused))
}

/// Likewise to integers under the units that `power` and `along` are for now; both bytes of a weight are columns, `low`: 1 in those of low
/// bytes. `total`: sums of weights times norms. `fresh`: nothing has been added yet.
#[device]
#[allow(clippy::too_many_arguments)]
pub fn weighed_apart(
    m: &DecodeMeta,
    v: &dyn Codec,
    tokens: &Page,
    more: &mut Shared<u8>,
    w: i32,
    p: &Tile<f32>,
    fresh: bool,
    low: &Shared<i32>,
    sums: [Tile<i32>; 4],
    ways: &Tile<i32>,
    total: &Tile<i32>,
    power: &mut Tile<f32>,
    along: &mut Tile<f32>,
) -> ([Tile<i32>; 4], Tile<i32>, Tile<i32>) {
    let (sides, bands) = (sides_of(m, tokens, m.sides_at + 128), m.ranks[1] / 32);
    let (mut sums, mut ways, mut total) = (sums, ways.clone(), total.clone());
    let (of_norms, of_lengths) = (p * &sides.map(low_half), p * &sides.map(high_half));
    let (mut norms, mut lengths) = (of_norms.map2(&*power, rounded), of_lengths.map2(&*along, rounded));
    // Rare, so one branch is for both.
    if misfit_lanes(&norms, 2).map2(&misfit_lanes(&lengths, 2), either).any() {
        let (mut next, mut next_along) = (largest(&of_norms, 2).map(first_fit), largest(&of_lengths, 2).map(first_fit));
        if !fresh {
            let low = low.cols(0, 1, m.cols);
            let lift = power.map(lift_of);
            next = lift.map3(&largest(&of_norms, 2), &larger_half(&total), fitted);
            let by = next.map2(&lift, minus);
            for i in 0..bands {
                sums[i] = move_sums(m, v, &sums[i], &sums[i], &low, &by, 32).0;
            }
            total = move_totals(m, &total, &total, &low, &by).0;
            let lift = along.map(lift_of);
            // Every token has one centre.
            let most = ways.sum_rows().map(unmarked);
            next_along = lift.map3(&largest(&of_lengths, 2), &larger_half(&most), fitted);
            ways = move_sums(m, v, &ways, &ways, &low, &next_along.map2(&lift, minus), 32).0;
        }
        *power = next.map(up_of);
        *along = next_along.map(up_of);
        norms = of_norms.map2(&*power, rounded);
        lengths = of_lengths.map2(&*along, rounded);
    }
    let bytes = norms.split_halves();
    total = &total + &bytes.sum_k();
    let values: Tile<u8> = tokens.values(m.values_at[0], v.spec().bits, m.ranks[1], 8, |x| v.decode(x));
    if m.behind.outliers[1] > 0 {
        put_outliers(m, tokens, more, w, 1);
    }
    for i in 0..bands {
        sums[i] = mma(&values.band(i, bands), &bytes, &sums[i]);
        if m.behind.outliers[1] > 0 {
            sums[i] = mma(&more.packed_left::<i8>(w * m.more() as i32 + (1024 * i) as i32, 32, 32), &bytes, &sums[i]);
        }
    }
    ways = mma(&tokens.marks(m.sides_at + 288), &lengths.split_halves(), &ways);
    (sums, ways, total)
}

/// A sum of marks as one of ones.
#[device]
fn unmarked(sum: i32) -> i32 {
    sum >> 7
}
