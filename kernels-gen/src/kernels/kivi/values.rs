//! Values of a tile by bands of 32 channels, each under steps of its own: weights become integers once a band.

use super::super::decode_attention::DecodeMeta;
use super::super::softmax::{fused, larger};
use super::super::units::*;
use super::super::values::{rounded, weights};
use crate::codec::Codec;
use kernel_dsl::prelude::*;

/// (step, least) of a band's values, one pair a token.
#[device]
pub fn pairs_of(m: &DecodeMeta, tokens: &Page, band: usize) -> Tile<u32> {
    let at = m.sides_at + 4 * m.d + 128 * band;
    if m.parts == 2 { tokens.pairs::<u32>(at, 4) } else { tokens.rows::<u32>(at, 4, 32) }
}

/// A band's sums with one tile more: unit, total, sums. A fresh leaf has nothing to move.
#[device]
#[allow(clippy::too_many_arguments)]
pub fn summed(m: &DecodeMeta, v: &dyn Codec, values: &Tile<u8>, pv: &Tile<f32>, lift: &Tile<i32>, total: &Tile<i32>, sums: &Tile<i32>, low: &Tile<i32>, fresh: bool) -> (Tile<i32>, Tile<i32>, Tile<i32>) {
    let (mut lift, mut total, mut sums) = (lift.clone(), total.clone(), sums.clone());
    let mut w = pv.map2(&lift.map(up_of), rounded);
    if w.map2(&w.map(counts).any_rows(m.parts), misfits).any() {
        let next = lift.map3(&largest(pv, m.parts), &total.map2(&total.swap_halves(), larger), fitted);
        if !fresh {
            let by = next.map2(&lift, minus);
            sums = move_sums(m, v, &sums, &sums, low, &by, 32).0;
            total = move_totals(m, &total, &total, low, &by).0;
        }
        lift = next;
        w = pv.map2(&lift.map(up_of), rounded);
    }
    let bytes = w.split_halves();
    (lift, &total + &bytes.sum_k(), mma(values, &bytes, &sums))
}

/// With more heads a band's output, under a unit of the tile's own.
#[device]
pub fn weighed_band(values: &Tile<u8>, pv: Tile<f32>, out: &Tile<f32>) -> Tile<f32> {
    let w = weights(pv);
    (mma(values, &w.0, 0_i32) * 256_i32 + mma(values, &w.1, 0_i32)).cast::<f32>().map3(&w.3, out, fused)
}
