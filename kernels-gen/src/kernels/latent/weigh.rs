//! Scores of half a leaf and eight heads, and the weights that come of them.

use kernel_dsl::prelude::*;

use super::decode::DecodeMeta;
use super::query::place_of;
use crate::kernels::softmax::{fused, left_worth, right_worth, weight};
use crate::latent::softmax::{down_of, fixed, rounded, up_of};
use crate::latent::{DIM, LEAF};

/// Rows of a warp.
pub const HALF: usize = LEAF / 2;

#[device]
fn greater(a: f32, b: f32) -> f32 {
    fmax(a, b)
}

#[device]
fn upward(x: f32) -> f32 {
    x.ceil()
}

/// The maximum of a leaf for eight heads: the next integer above its halves' peaks.
#[device]
fn peak_of(m: &DecodeMeta, peaks: &Shared<f32>, head: i32) -> Tile<f32> {
    peaks.rows(head, 1, 8).map2(&peaks.rows(head + m.cut.heads as i32, 1, 8), greater).map(upward)
}

/// Scores in log2 units of rows whose scales are those from the `first`-th on, under eight heads from `head` on.
#[device]
fn worth(scales: &Shared<f32>, bias: &Shared<f32>, worths: &Shared<f32>, first: i32, head: i32, sums: &Tile<i32>) -> Tile<f32> {
    let each = scales.cols(first, 1, HALF) * &worths.rows(head, 1, 8);
    sums.cast::<f32>().map3(&each, &bias.cols(first, 1, HALF), fused)
}

/// Sums of rows from byte `at` on under eight heads.
#[device]
fn products(m: &DecodeMeta, room: &Shared<i8>, at: i32, head: i32) -> Tile<i32> {
    mma_lines(room, place_of(head, 0), 8 * DIM, room, at, 128 * LEAF, DIM / 128, HALF, m.together()).fold_rows(128)
}

/// Which half of the rows a warp scores, and the first of its eight heads.
#[device]
fn share_of(m: &DecodeMeta, w: i32) -> (i32, i32) {
    (w >> m.beside() as u32, (w & (m.cut.warps / 2 - 1) as i32) * 8_i32)
}

/// A warp's scores of the leaf whose bytes are those from `at` on and whose scales are those from `row` on; their largest is left in `peaks`.
#[device]
#[allow(clippy::too_many_arguments)]
pub fn score(m: &DecodeMeta, room: &Shared<i8>, at: i32, row: i32, scales: &Shared<f32>, bias: &Shared<f32>, worths: &Shared<f32>, peaks: &mut Shared<f32>, w: i32) -> Tile<f32> {
    let (half, head) = share_of(m, w);
    let sums = products(m, room, at + half * (128 * HALF) as i32, head);
    let x = worth(scales, bias, worths, row + half * HALF as i32, head, &sums);
    peaks.put_rows(half * m.cut.heads as i32 + head, 1, &x.max_cols());
    x
}

/// A warp's weights of a leaf, their sums, and what they are worth beside those of the leaves before.
#[device]
#[allow(clippy::too_many_arguments)]
pub fn weigh(m: &DecodeMeta, x: &Tile<f32>, row: i32, scales: &Shared<f32>, peaks: &Shared<f32>, halves: &mut Shared<i32>, weights: &mut Shared<u8>, fades: &mut Shared<f32>, units: &mut Shared<f32>, top: &Shared<f32>, w: i32) {
    let (half, head) = share_of(m, w);
    let peak = peak_of(m, peaks, head);
    let up = up_of(scales.row(row, LEAF).max());
    let p = x.map2(&peak, weight);
    halves.put_rows(half * m.cut.heads as i32 + head, 1, &p.map(fixed).sum_cols());
    let p = p.map2(&(scales.cols(row + half * HALF as i32, 1, HALF) * up), rounded);
    let to = (head >> 4_u32) * 4096_i32 + (head & 8_i32) * 128_i32 + half * 512_i32;
    weights.put_cores(to, 1, &p);
    weights.put_cores(to + 2048_i32, 0, &p);
    if half == 0_i32 {
        let before = top.rows(head, 1, 8);
        fades.put_rows(head, 1, &before.map2(&peak, left_worth));
        units.put_rows(head, 1, &(before.map2(&peak, right_worth) * down_of(up)));
    }
}
