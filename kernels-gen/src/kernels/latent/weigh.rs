//! Scores of a quarter of a leaf and 16 heads, and what becomes of them.

use kernel_dsl::prelude::*;

use super::decode::DecodeMeta;
use crate::kernels::softmax::fused;
use crate::latent::DIM;

/// Rows of a warp.
pub const QUARTER: usize = 32;

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

/// Sums of 32 rows and 16 heads: of the first or second ones of 64 rows from byte `at` on.
#[device]
pub fn products(m: &DecodeMeta, room: &Shared<i8>, at: i32, odd: i32, head: i32) -> Tile<i32> {
    let (mut high, mut low) = (acc(32, 16, 0_i32), acc(32, 16, 0_i32));
    // Rows of the second half are swizzled by 32 bytes more.
    let from = (at + odd * (32 * DIM) as i32) | (odd << 5_u32);
    for k in strided(0_i32, (DIM / 128) as i32, 1) {
        for half in 0..2 {
            let q = k * (128 * m.cut.heads) as i32 + head * 64_i32 + (64 * m.cut.heads * half) as i32;
            let rows = room.matrix_left::<i8>(from + k * 128_i32, DIM, 0, 64 * half);
            high = mma(&rows, &room.operand::<i8>(q, 64, 16, 64), &high);
            low = mma(&rows, &room.operand::<i8>(q + m.part() as i32, 64, 16, 64), &low);
        }
    }
    high * 128_i32 + low
}
