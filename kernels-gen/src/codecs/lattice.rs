//! Nearest points of D8 and E8 inside a box, for the E8 codecs.
//!
//! Inside the box the tie rules are the usual ones: coordinates round to even, an odd sum moves the
//! first coordinate with the largest rounding error (an error of 0 moves up), the integer coset wins.
//! At its faces the search stays in the box, so that every result is a lattice point with an index.

use kernel_dsl::device;
use kernel_dsl::math::{fmax, fmin};

/// Nearest point with integer coordinates in `lo..=hi` and an even sum.
#[device]
pub fn nearest_d8(z: [f32; 8], lo: f32, hi: f32) -> [f32; 8] {
    let mut p = [0.0_f32; 8];
    let mut sum = 0_i32;
    let mut best = -1.0e30_f32;
    let mut at = 0_i32;
    let mut step = 0.0_f32;
    for i in 0..8 {
        let n = fmin(fmax(z[i].round_ties_even(), lo), hi);
        let d = z[i] - n;
        let toward = if d >= 0.0_f32 { 1.0_f32 } else { -1.0_f32 };
        let inside = fmin(fmax(n + toward, lo), hi) == n + toward;
        // Moving toward z costs 1 - 2|d|, moving away from a face costs 1 + 2|d|.
        let gain = if inside { d.abs() } else { -d.abs() };
        let better = gain > best;
        best = if better { gain } else { best };
        at = if better { i as i32 } else { at };
        step = if better { if inside { toward } else { -toward } } else { step };
        p[i] = n;
        sum = sum + (n as i32);
    }
    let moved = if (sum & 1_i32) == 1_i32 { at } else { 8_i32 };
    for i in 0..8 {
        p[i] = if (i as i32) == moved { p[i] + step } else { p[i] };
    }
    p
}

/// Squared distance, one fused chain in the order of the coordinates.
#[device]
pub fn distance2(a: [f32; 8], b: [f32; 8]) -> f32 {
    let mut sum = 0.0_f32;
    for i in 0..8 {
        let d = a[i] - b[i];
        sum = d.mul_add(d, sum);
    }
    sum
}

/// Nearest point of E8 = D8 + {0, 1/2}: integers in `lo..=hi` or half integers in `lo + 1/2 ..= half_hi + 1/2`.
#[device]
pub fn nearest_e8(z: [f32; 8], lo: f32, hi: f32, half_hi: f32) -> [f32; 8] {
    let a = nearest_d8(z, lo, hi);
    let mut shifted = [0.0_f32; 8];
    for i in 0..8 {
        shifted[i] = z[i] - 0.5_f32;
    }
    let mut b = nearest_d8(shifted, lo, half_hi);
    for i in 0..8 {
        b[i] = b[i] + 0.5_f32;
    }
    let whole = distance2(z, a) <= distance2(z, b);
    for i in 0..8 {
        b[i] = if whole { a[i] } else { b[i] };
    }
    b
}
