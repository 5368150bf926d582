//! Scores of half a leaf and 16 heads, and what becomes of them.

use kernel_dsl::prelude::*;

use super::decode::DecodeMeta;
use crate::kernels::softmax::fused;
use crate::latent::DIM;

/// Half of a leaf.
pub const HALF: usize = 64;

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
pub fn products(m: &DecodeMeta, room: &Shared<i8>, at: i32, head: i32) -> (Tile<i32>, Tile<i32>) {
    let (mut high, mut low) = (acc(32, 16, 0_i32), acc(32, 16, 0_i32));
    let (mut next_high, mut next_low) = (acc(32, 16, 0_i32), acc(32, 16, 0_i32));
    for k in strided(0_i32, (DIM / 128) as i32, 1) {
        for half in 0..2 {
            let q = k * (128 * m.heads) as i32 + head * 64_i32 + (64 * m.heads * half) as i32;
            let q_high = room.operand::<i8>(q, 64, 16, 64);
            let q_low = room.operand::<i8>(q + m.part() as i32, 64, 16, 64);
            let rows = room.matrix_left::<i8>(at + k * 128_i32, DIM, 0, 64 * half);
            high = mma(&rows, &q_high, &high);
            low = mma(&rows, &q_low, &low);
            let next = room.matrix_left::<i8>(at + k * 128_i32, DIM, 32, 64 * half);
            next_high = mma(&next, &q_high, &next_high);
            next_low = mma(&next, &q_low, &next_low);
        }
    }
    (high * 128_i32 + low, next_high * 128_i32 + next_low)
}
