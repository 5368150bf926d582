//! Which of the levels of a Lloyd-Max quantiser a coordinate falls to, by halvings.

use kernel_dsl::device;

use super::lattice::signs4;
use super::lloyd::bit_at;

/// The bits of a magnitude, of one below zero less one: then a midpoint belongs to the cell above it.
#[device]
fn size_of(bits: u32) -> i32 {
    bits.min(bits.wrapping_add(0x7fff_ffff_u32)) as i32
}

/// Of eight coordinates the levels among eight above zero, and the signs above them, a nibble each.
#[device]
pub fn cells8(y: [f32; 8], midpoints: [i32; 7]) -> u32 {
    let mut levels = 0_u32;
    for i in 0..8 {
        let size = size_of(y[i].to_bits());
        let high = size >= midpoints[3];
        let upper = size >= (if high { midpoints[5] } else { midpoints[1] });
        let next = if high { if upper { midpoints[6] } else { midpoints[4] } } else { if upper { midpoints[2] } else { midpoints[0] } };
        // Three sums under conditions: numbers chosen first would take twice the instructions.
        if high {
            levels = levels + (4_u32 << (4 * i));
        }
        if upper {
            levels = levels + (2_u32 << (4 * i));
        }
        if size >= next {
            levels = levels + (1_u32 << (4 * i));
        }
    }
    levels | (below8(y) & 0x8888_8888_u32)
}

/// Of eight coordinates the levels among four above zero and the signs, as a 3-bit code of [`super::lloyd`] has them.
#[device]
pub fn cells_of_three(y: [f32; 8], midpoints: [i32; 7]) -> u32 {
    let mut levels = 0_u32;
    for i in 0..8 {
        let size = size_of(y[i].to_bits());
        let high = size >= midpoints[1];
        if high {
            levels = levels + (1_u32 << bit_at(i, 1));
        }
        if size >= (if high { midpoints[2] } else { midpoints[0] }) {
            levels = levels + (1_u32 << bit_at(i, 0));
        }
    }
    let below = below8(y);
    levels | (below & 0x0044_4444_u32) | ((below >> 8) & 0x0088_0000_u32)
}

/// 15 in the nibbles of coordinates below zero.
#[device]
fn below8(y: [f32; 8]) -> u32 {
    let (even, odd) = (signs4([y[0], y[2], y[4], y[6], 0.0_f32, 0.0_f32, 0.0_f32, 0.0_f32], 0), signs4([y[1], y[3], y[5], y[7], 0.0_f32, 0.0_f32, 0.0_f32, 0.0_f32], 0));
    (even & 0x0f0f_0f0f_u32) | (odd & 0xf0f0_f0f0_u32)
}
