//! A leaf's sums in the coordinates of its block become outputs: `out = l mean + M sums`. Sums become 15-bit integers with 2^14 added, so
//! that both bytes are without a sign; what that adds, the block knows by sums of its matrix' rows.
//!
//! Cost: (rank + 32) d bytes of matrix a leaf of 256 tokens, of which every other one finds them in the cache; a shared frame always lies there.

use super::super::decode_attention::DecodeMeta;
use super::super::maps::{integer, per_unit, unit_of};
use super::super::query::magnitude;
use super::super::softmax::fused;
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

/// An integer with 2^14 added.
#[device]
fn above(x: f32, by: f32) -> i32 {
    integer(x, by) + 16384_i32
}
