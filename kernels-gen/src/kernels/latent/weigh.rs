//! Scores of half a leaf and eight heads, and what becomes of them.

use kernel_dsl::prelude::*;

use super::decode::DecodeMeta;
use super::query::place_of;
use crate::kernels::softmax::fused;
use crate::latent::{DIM, LEAF};

/// Rows of a warp.
pub const HALF: usize = LEAF / 2;

#[device]
pub fn greater(a: f32, b: f32) -> f32 {
    fmax(a, b)
}

#[device]
pub fn upward(x: f32) -> f32 {
    x.ceil()
}

#[device]
pub fn moves(fade: f32) -> bool {
    fade != 1.0_f32
}

/// Scores in log2 units of rows from the `first`-th of the leaf on, under eight heads from `head` on.
#[device]
pub fn worth(scales: &Shared<f32>, bias: &Shared<f32>, worths: &Shared<f32>, first: i32, head: i32, sums: &Tile<i32>) -> Tile<f32> {
    let each = scales.cols(first, 1, HALF) * &worths.rows(head, 1, 8);
    sums.cast::<f32>().map3(&each, &bias.cols(first, 1, HALF), fused)
}

/// Sums of rows from byte `at` on under eight heads.
#[device]
pub fn products(m: &DecodeMeta, room: &Shared<i8>, at: i32, head: i32) -> Tile<i32> {
    mma_lines(room, place_of(head, 0), 8 * DIM, room, at, 128 * LEAF, DIM / 128, HALF, m.together()).fold_rows(128)
}
