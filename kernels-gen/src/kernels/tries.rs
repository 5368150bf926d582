//! Side values by trying several: four threads share a row's tries, then its best one is picked.
//!
//! The error of a try is one chain over the coordinates, so a row's tries are what can be done at once.

use super::rows::{block_of, half_of, steps_of};
use crate::codec::Codec;
use kernel_dsl::prelude::*;

/// Every fourth try of row `i / 4`, from try `i % 4` on: the least error, its try, and the side values of that.
#[device]
pub fn try_sides(bands: &[&dyn Codec], rows: &Shared<u8>, top: f32, found: &mut Shared<f32>, i: i32, d: usize, line: usize) {
    let (r, j) = (i >> 2_u32, i & 3_i32);
    let (mut best, mut kept) = ([0.0_f32; 2], [0.0_f32; 2]);
    for turn in 0..bands[0].spec().tries / 4 {
        let mut own = [0.0_f32; 2];
        for part in 0..4 {
            let wanted = bands[0].trial(0.0_f32, top, 4 * turn + part);
            for e in 0..2 {
                own[e] = if j == part as i32 { half_of(wanted[e]) } else { own[e] };
            }
        }
        let (scale, mut error) = (bands[0].scale(own), 0.0_f32);
        for band in 0..bands.len() {
            for block in strided(0_i32, (d / 8 / bands.len()) as i32, 1) {
                let y = block_of(rows, r, block + (band * (d / 8 / bands.len())) as i32, line);
                let steps = steps_of(bands[band], bands[band].decode(bands[band].encode(y, own)));
                for c in 0..8 {
                    let off = y[c] - scale * (steps[c] as f32 * 0.5_f32);
                    error = off.mul_add(off, error);
                }
            }
        }
        let better = (error < best[0]) | (turn == 0);
        for e in 0..2 {
            kept[e] = if better { own[e] } else { kept[e] };
        }
        best[1] = if better { (4 * turn) as f32 + j as f32 } else { best[1] };
        best[0] = if better { error } else { best[0] };
    }
    found.save4::<f32>(i * 16_i32, [best[0], best[1], kept[0], kept[1]]);
}

/// The side values of the row's least error; of equals, the first try's.
#[device]
pub fn pick_sides(found: &Shared<f32>, sides: &mut Shared<f32>, r: i32) {
    let mut best = found.load4::<f32>(r * 64_i32);
    for j in 1..4 {
        let next = found.load4::<f32>(r * 64_i32 + (16 * j) as i32);
        let better = (next[0] < best[0]) | ((next[0] == best[0]) & (next[1] < best[1]));
        for e in 0..4 {
            best[e] = if better { next[e] } else { best[e] };
        }
    }
    sides.save4::<f32>(r * 16_i32, [best[2], best[3], best[2], best[3]]);
}
