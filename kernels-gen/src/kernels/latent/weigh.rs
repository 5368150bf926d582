//! Scores of half a leaf and 16 heads, and what becomes of them.

use kernel_dsl::prelude::*;

use super::HEADS;
use super::lanes::{GAP, STRIDE};
use super::query::PART;
use crate::kernels::softmax::fused;

/// Half of a leaf.
pub const HALF: usize = 64;

/// Bytes from a row to the 32nd after it.
pub const NEXT: usize = 32 * STRIDE + 2 * GAP;

#[device]
pub fn greater(a: f32, b: f32) -> f32 {
    fmax(a, b)
}

#[device]
pub fn upward(x: f32) -> f32 {
    x.ceil()
}

#[device]
pub fn second_byte(w: i32) -> i32 {
    w >> 8_u32
}

#[device]
pub fn moves(fade: f32) -> bool {
    fade != 1.0_f32
}

/// Scores in log2 units of 32 rows from byte `at` on, the `first`-th of the leaf and so on, under 16 heads from `head` on.
#[device]
pub fn worth(scales: &Shared<f32>, bias: &Shared<f32>, worths: &Shared<f32>, first: i32, head: i32, sums: &Tile<i32>) -> Tile<f32> {
    let each = scales.rows(first, 1, 32) * &worths.cols(head, 1, 16);
    sums.cast::<f32>().map3(&each, &bias.rows(first, 1, 32), fused)
}

/// Sums of 64 rows from byte `at` on and 16 heads, 32 rows a tile.
#[device]
pub fn products(room: &Shared<i8>, at: i32, head: i32) -> (Tile<i32>, Tile<i32>) {
    let (mut high, mut low) = (acc(32, 16, 0_i32), acc(32, 16, 0_i32));
    let (mut next_high, mut next_low) = (acc(32, 16, 0_i32), acc(32, 16, 0_i32));
    for k in 0..8 {
        let q_high = room.operand::<i8>(head * 64_i32 + (64 * HEADS * k) as i32, 64, 16, 64);
        let q_low = room.operand::<i8>(head * 64_i32 + (64 * HEADS * k + PART) as i32, 64, 16, 64);
        let rows = room.spaced_left::<i8>(at + (64 * k) as i32, STRIDE, GAP, 32, 64);
        high = mma(&rows, &q_high, &high);
        low = mma(&rows, &q_low, &low);
        let next = room.spaced_left::<i8>(at + (64 * k + NEXT) as i32, STRIDE, GAP, 32, 64);
        next_high = mma(&next, &q_high, &next_high);
        next_low = mma(&next, &q_low, &next_low);
    }
    (high * 128_i32 + low, next_high * 128_i32 + next_low)
}
