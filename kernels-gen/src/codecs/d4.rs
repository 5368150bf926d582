//! Nearest points of D4, the integer points of even sum, inside a box.

use kernel_dsl::device;
use kernel_dsl::math::{dot4, saturate};

use super::lattice::{digits4, rounded, signs4};

/// Digits `p + q` as bytes of the nearest point of even sum with coordinates in `-q..=q`, q below 128; ties as in the original.
/// `z` is at most a little outside; a coordinate at a face goes inwards if it moves. `span` and `inv`: see [`nearest_even`](super::lattice::nearest_even).
#[device]
pub fn nearest_d4(z: [f32; 4], q: f32, span: f32, inv: f32) -> u32 {
    let mut t = [0.0_f32; 8];
    let mut d = [0.0_f32; 8];
    let mut most = 0_i32;
    for i in 0..4 {
        let x = saturate(z[i].mul_add(inv, 0.5_f32)).mul_add(span, -q);
        t[i] = x + (12_582_912.0_f32 + q);
        d[i] = x - (t[i] - (12_582_912.0_f32 + q));
        // The first of equals wins: its number stands in the lowest bits.
        most = most.max(((d[i].to_bits() & 0x7fff_fffc_u32) | (3 - i) as u32) as i32);
    }
    let digits = digits4(t, 0);
    let one = (dot4(digits, 0x0101_0101_u32) & 1_u32) << (((!most as u32) << 3) & 24_u32);
    // Up, or down where the number is below its digit.
    digits.wrapping_add(one).wrapping_sub((one & signs4(d, 0)) << 1)
}

/// The same where digits are no bytes.
#[device]
pub fn search_d4(z: [f32; 4], q: f32) -> [f32; 4] {
    let mut p = [0.0_f32; 4];
    let mut sum = 0_i32;
    let mut best = -1.0e30_f32;
    let mut at = 0_i32;
    let mut step = 0.0_f32;
    for i in 0..4 {
        let (n, gain, by) = rounded(z[i], -q, q);
        let better = gain > best;
        best = if better { gain } else { best };
        at = if better { i as i32 } else { at };
        step = if better { by } else { step };
        p[i] = n;
        sum = sum + (n as i32);
    }
    let moved = if (sum & 1_i32) == 1_i32 { at } else { 4_i32 };
    for i in 0..4 {
        p[i] = if (i as i32) == moved { p[i] + step } else { p[i] };
    }
    p
}
