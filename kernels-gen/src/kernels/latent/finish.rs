//! The end of attention: outputs are divided and turned back.

use kernel_dsl::prelude::*;

use super::LINE;
use super::query::turned;

/// Group i of outputs that wait at `i * LINE`: divided, turned back, in its place again as bf16.
#[device]
pub fn settle(room: &mut Shared<i8>, i: i32, inverse: f32) {
    let mut x = [0.0_f32; 64];
    for n in 0..16 {
        let w = room.load4::<f32>(i * LINE as i32 + (16 * n) as i32);
        for k in 0..4 {
            // A zero may be negative where nothing was added.
            x[4 * n + k] = (w[k] + 0.0_f32) * inverse;
        }
    }
    let y = turned(x);
    for n in 0..8 {
        let mut w = [0_u32; 4];
        for k in 0..4 {
            w[k] = pick(half_up(y[8 * n + 2 * k]), half_up(y[8 * n + 2 * k + 1]), 0x7632_u32);
        }
        room.save4::<u32>(i * LINE as i32 + (16 * n) as i32, w);
    }
}

/// The bits of a finite number whose upper half is it as bf16, rounded to nearest even.
#[device]
fn half_up(x: f32) -> u32 {
    let bits = x.to_bits();
    bits.wrapping_add(0x7fff_u32).wrapping_add((bits >> 16) & 1_u32)
}
