//! A leaf's sums in the coordinates of its block become outputs: `out = l mean + M sums`. Sums become 15-bit integers with 2^14 added, so
//! that both bytes are without a sign; what that adds, the block knows by sums of its matrix' rows.
//!
//! Cost: (rank + 32) d bytes of matrix a leaf of 256 tokens, of which every other one finds them in the cache.

use super::super::decode_attention::DecodeMeta;
use super::super::maps::{integer, per_unit, unit_of};
use super::super::query::magnitude;
use super::super::softmax::fused;
use crate::pca::pages::WAYS;
use kernel_dsl::prelude::*;

/// Outputs by bands of 32 numbers, from sums by bands of 32 places, those of centres in `ways`; `map`: byte of the block's map of values.
#[device]
pub fn unfolded(m: &DecodeMeta, cache: &Global<u8>, map: i64, sums: &[Tile<f32>; 4], ways: &Tile<f32>, l: &Tile<f32>) -> [Tile<f32>; 4] {
    let (bands, places) = (m.ranks[1] / 32, m.ranks[1] + WAYS);
    let steps = map + (places * m.d) as i64;
    let mut c = [sums[0].clone(), sums[1].clone(), sums[2].clone(), sums[3].clone(), ways.clone()];
    let mut top = cols(m.cols, 1e-20_f32);
    for i in 0..bands + 1 {
        let from = if i == bands { 4 } else { i };
        c[from] = &c[from] * &cache.rows_at::<f32>(steps + (128 * i) as i64, 4, 32);
        top = top.map2(&c[from].map(magnitude).max_rows(), fmax);
    }
    let (by, unit) = (top.map(per_unit), top.map(unit_of));
    let none = c[4].map2(&by, above).split_bytes();
    let mut bytes = [none.clone(), none.clone(), none.clone(), none.clone(), none.clone()];
    for i in 0..bands {
        bytes[i] = c[i].map2(&by, above).split_bytes();
    }
    let mut out = [acc(32, m.cols, 0.0_f32), acc(32, m.cols, 0.0_f32), acc(32, m.cols, 0.0_f32), acc(32, m.cols, 0.0_f32)];
    for b in 0..m.d / 32 {
        let own = steps + (4 * places + 128 * b) as i64;
        let mut high = acc(32, m.cols, 0_i32);
        let mut low = acc(32, m.cols, 0_i32) + &(cache.rows_at::<i32>(own, 4, 32) * -16384_i32);
        for i in 0..bands + 1 {
            let left: Tile<i8> = cache.packed_left::<i8>(map + ((b * (bands + 1) + i) * 1024) as i64, 32, 32);
            let from = if i == bands { 4 } else { i };
            high = mma(&left, &bytes[from].1, &high);
            low = mma(&left, &bytes[from].0, &low);
        }
        out[b] = (high * 256_i32 + &low).cast::<f32>().map3(&unit, &(&cache.rows_at::<f32>(own + (4 * m.d) as i64, 4, 32) * l), fused);
    }
    out
}

/// An integer with 2^14 added.
#[device]
fn above(x: f32, by: f32) -> i32 {
    integer(x, by) + 16384_i32
}
