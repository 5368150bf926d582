//! Side values by a search: in each step the blocks of a row say whether its scale should grow or shrink, and four threads
//! share them: with one band a quarter of the row each, with several every fourth block of a band.

use super::rows::{block_of, half_of};
use crate::codec::Codec;
use kernel_dsl::prelude::*;

/// Fills the sides of 32 rows, `line` elements apart: those that a row is coded with, then those that are stored.
#[device]
pub fn search_sides(bands: &[&dyn Codec], rows: &Shared<u8>, sides: &mut Shared<f32>, d: usize, line: usize) {
    let n = bands[0].spec().searches;
    // Of each step: what threads found, and the scale they had.
    let mut pulls = shared::<f32>(n * 128);
    let mut scales = shared::<f32>(n * 32);
    for step in 0..n {
        for i in threads(128) {
            let (r, j) = (i >> 2_u32, i & 3_i32);
            let mut scale = 1.0_f32;
            if step > 0 {
                scale = next(bands[0], &pulls, &scales, r, step - 1);
            }
            let mut pull = 0.0_f32;
            for band in 0..bands.len() {
                let blocks = d / 8 / bands.len();
                let (from, to, by) = if bands.len() == 1 { (j * (blocks / 4) as i32, (j + 1_i32) * (blocks / 4) as i32, 1) } else { (j, blocks as i32, 4) };
                for block in strided(from, to, by) {
                    pull = pull + bands[band].pull(block_of(rows, r, block + (band * blocks) as i32, line), scale);
                }
            }
            pulls.put((step * 128) as i32 + i, pull);
            if j == 0_i32 {
                scales.put((step * 32) as i32 + r, scale);
            }
        }
    }
    for r in threads(32) {
        let side = half_of(next(bands[0], &pulls, &scales, r, n - 1));
        sides.save4::<f32>(r * 16_i32, [side, 0.0_f32, side, 0.0_f32]);
    }
}

/// The scale of row `r` after a step.
#[device]
fn next(c: &dyn Codec, pulls: &Shared<f32>, scales: &Shared<f32>, r: i32, step: usize) -> f32 {
    let p = pulls.load4::<f32>((step * 512) as i32 + r * 16_i32);
    c.search(scales.at((step * 32) as i32 + r), (p[0] + p[1]) + (p[2] + p[3]), step)
}
