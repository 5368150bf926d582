//! A leaf's sums in the coordinates of its block become outputs: `out = l mean + M sums`. Sums become 15-bit integers with 2^14 added, so
//! that both bytes are without a sign; what that adds, the block knows by sums of its matrix' rows.
//!
//! Cost: (rank + 32) d bytes of matrix a leaf of 256 tokens, of which every other one finds them in the cache; a shared frame always lies there.

use super::super::decode_attention::DecodeMeta;
use super::super::maps::{integer, per_unit, unit_of};
use super::super::query::magnitude;
use super::super::softmax::fused;
use super::super::units::{down_of, lift_of};
use super::MARKED;
use crate::pca::pages::WAYS;
use kernel_dsl::prelude::*;

/// Outputs by bands of 32 numbers, from sums by bands of 32 places, those of centres in `ways`; `frame` and `map`: bytes of the frame and of
/// the block's centres.
#[device]
#[allow(clippy::too_many_arguments)]
pub fn unfolded(m: &DecodeMeta, cache: &Global<u8>, frame: i64, map: i64, sums: &[Tile<f32>; 4], ways: &Tile<f32>, l: &Tile<f32>) -> [Tile<f32>; 4] {
    let (bands, steps) = (m.ranks[1] / 32, frame + (m.ranks[1] * m.d) as i64);
    let mut c = [sums[0].clone(), sums[1].clone(), sums[2].clone(), sums[3].clone(), ways * &cache.rows_at::<f32>(map + (WAYS * m.d) as i64, 4, 32)];
    let mut top = cols(m.cols, 1e-20_f32).map2(&c[4].map(magnitude).max_rows(), fmax);
    for i in 0..bands {
        c[i] = &c[i] * &cache.rows_at::<f32>(steps + (128 * i) as i64, 4, 32);
        top = top.map2(&c[i].map(magnitude).max_rows(), fmax);
    }
    let (by, unit) = (top.map(per_unit), top.map(unit_of));
    let along = c[4].map2(&by, above).split_bytes();
    let mut bytes = [along.clone(), along.clone(), along.clone(), along.clone()];
    for i in 0..bands {
        bytes[i] = c[i].map2(&by, above).split_bytes();
    }
    let mut out = [acc(32, m.cols, 0.0_f32), acc(32, m.cols, 0.0_f32), acc(32, m.cols, 0.0_f32), acc(32, m.cols, 0.0_f32)];
    for b in 0..m.d / 32 {
        let left: Tile<i8> = cache.packed_left::<i8>(map + (1024 * b) as i64, 32, 32);
        let total = cache.rows_at::<i32>(map + (WAYS * (m.d + 4) + 128 * b) as i64, 4, 32) * -16384_i32;
        let mut high = mma(&left, &along.1, 0_i32);
        let mut low = mma(&left, &along.0, &(acc(32, m.cols, 0_i32) + &total));
        for i in 0..bands {
            let left: Tile<i8> = cache.packed_left::<i8>(frame + ((b * bands + i) * 1024) as i64, 32, 32);
            high = mma(&left, &bytes[i].1, &high);
            low = mma(&left, &bytes[i].0, &low);
        }
        let mean = cache.rows_at::<f32>(steps + (4 * m.ranks[1] + 128 * b) as i64, 4, 32);
        out[b] = (high * 256_i32 + &low).cast::<f32>().map3(&unit, &(&mean * l), fused);
    }
    out
}

/// Likewise from sums of integer weights whose two bytes are columns, under the units that `power` and `along` are for; `total`: of the weights of
/// residuals, `low`: 1 in columns of low bytes. Outputs are folded halves.
#[device]
#[allow(clippy::too_many_arguments)]
pub fn unfolded_halves(m: &DecodeMeta, cache: &Global<u8>, frame: i64, map: i64, sums: &[Tile<i32>; 4], total: &Tile<i32>, ways: &Tile<i32>, power: &Tile<f32>, along: &Tile<f32>, low: &Shared<i32>, l: &Tile<f32>) -> [Tile<f32>; 4] {
    let (bands, steps) = (m.ranks[1] / 32, frame + (m.ranks[1] * m.d) as i64);
    let (of_norms, of_lengths) = (power.map(lift_of).map(down_of), along.map(lift_of).map(down_of) * MARKED);
    let last = (ways.cast::<f32>() * &cache.rows_at::<f32>(map + (WAYS * m.d) as i64, 4, 32)).fold_halves(256) * &of_lengths;
    let mut top = last.map(magnitude).max_rows();
    let mut c = [last.clone(), last.clone(), last.clone(), last.clone()];
    let zero = total * -128_i32;
    for i in 0..bands {
        c[i] = ((&sums[i] + &zero).cast::<f32>() * &cache.rows_at::<f32>(steps + (128 * i) as i64, 4, 32)).fold_halves(256) * &of_norms;
        top = top.map2(&c[i].map(magnitude).max_rows(), fmax);
    }
    let top = top.map2(&top.swap_halves(), fmax).map2(&cols(m.cols, 1e-20_f32), fmax);
    let (by, unit) = (top.map(per_unit), top.map(unit_of));
    let of_ways = last.map2(&by, above).split_halves();
    let mut bytes = [of_ways.clone(), of_ways.clone(), of_ways.clone(), of_ways.clone()];
    for i in 0..bands {
        bytes[i] = c[i].map2(&by, above).split_halves();
    }
    let low = low.cols(0, 1, m.cols);
    let mean_worth = l.map2(&low, in_low);
    let mut out = [acc(16, m.cols, 0.0_f32), acc(16, m.cols, 0.0_f32), acc(16, m.cols, 0.0_f32), acc(16, m.cols, 0.0_f32)];
    for b in 0..m.d / 32 {
        let left: Tile<i8> = cache.packed_left::<i8>(map + (1024 * b) as i64, 32, 32);
        let total = cache.rows_at::<i32>(map + (WAYS * (m.d + 4) + 128 * b) as i64, 4, 32) * -16384_i32;
        let mut o = mma(&left, &of_ways, &(&total * &low));
        for i in 0..bands {
            let left: Tile<i8> = cache.packed_left::<i8>(frame + ((b * bands + i) * 1024) as i64, 32, 32);
            o = mma(&left, &bytes[i], &o);
        }
        let mean = cache.rows_at::<f32>(steps + (4 * m.ranks[1] + 128 * b) as i64, 4, 32);
        out[b] = o.cast::<f32>().map3(&unit, &(&mean * &mean_worth), fused).fold_halves(256);
    }
    out
}

/// What the mean is worth in a column.
#[device]
fn in_low(l: f32, low: i32) -> f32 {
    if low > 0_i32 { l } else { 0.0_f32 }
}

/// An integer with 2^14 added.
#[device]
fn above(x: f32, by: f32) -> i32 {
    integer(x, by) + 16384_i32
}
