//! Nearest points of E8 inside a box, for the E8 codecs.
//!
//! Every result is a lattice point with an index, and the nearest one in the box but for rounding: of points whose
//! distances differ by less than about 1e-5 either may be taken.
//!
//! Both cosets follow from the distances |d| to the nearest integers: the half integers are 1/2 - |d| away. So the
//! choice needs the sum, the largest and the smallest of |d| and two parities: an odd sum of integers costs
//! 1 - 2 max |d|, of half integers 2 min |d|. Coordinates at a face are charged so that they are not moved out;
//! where nothing else can move (`at_faces`) the slow search decides.

use kernel_dsl::device;
use kernel_dsl::math::{fmax, fmin, funnel, saturate};
use kernel_dsl::ops::popc;

/// 1.5 * 2^23: a sum with it rounds to an integer, ties to even, which then stands in the low bits.
const MAGIC: f32 = 12_582_912.0;
const MAGIC_BITS: u32 = 0x4b40_0000;

/// What the search knows of a block: rounded coordinates less `lo` (with `MAGIC`), their rounding errors, what moving a
/// coordinate gains among integers and costs among half integers, and the sum of `1/4` less the loss of half integers.
#[device]
fn settle(z: [f32; 8], t: [f32; 8], d: [f32; 8], gain: [f32; 8], cost: [f32; 8], sum: f32, lo: f32, hi: f32, half_hi: f32) -> ([u32; 8], u32) {
    let mut signs = 0_u32;
    let mut parity = 0_u32;
    // All but three bits, kept from the compiler: it would mask and number a key in two instructions in the place of one.
    let mask = (saturate(z[0]).to_bits() >> 31) | 0xffff_fff8_u32;
    let mut most = ((gain[0].to_bits() & mask) | 7_u32) as i32;
    let mut least = (cost[0].to_bits() & mask) as i32;
    for i in 0..8 {
        signs = funnel(d[i].to_bits(), signs, 31);
        parity = parity.wrapping_add(t[i].to_bits());
        // The first of equals wins: its number stands in the lowest bits.
        most = most.max(((gain[i].to_bits() & mask) | (7 - i) as u32) as i32);
        least = least.min(((cost[i].to_bits() & mask) | i as u32) as i32);
    }
    let odd = (parity & 1_u32) == 1_u32;
    let half_odd = ((parity ^ popc(signs)) & 1_u32) == 1_u32;
    let (g, c) = (f32::from_bits(most as u32), f32::from_bits(least as u32));
    let whole_cost = if odd { 1.0_f32 - (g + g) } else { 0.0_f32 };
    let half_cost = if half_odd { (2.0_f32 - sum) + (c + c) } else { 2.0_f32 - sum };
    let half = half_cost < whole_cost;
    let place = if half { 7_u32 - (least as u32 & 7_u32) } else { most as u32 & 7_u32 };
    let moves = if half { half_odd } else { odd };
    let down = (((signs >> (place & 7_u32)) & 1_u32) == 1_u32) != half;
    let by = if down { -1.0_f32 } else { 1.0_f32 };
    let at = if moves { place } else { 8_u32 };
    // A half integer's digit is that of the integer below.
    let below = if half { -1.0e30_f32 } else { 0.0_f32 };
    let mut digits = [0_u32; 8];
    for i in 0..8 {
        let floor = t[i] - saturate(d[i] * below);
        let p = if at == (7 - i) as u32 { floor + by } else { floor };
        digits[i] = p.to_bits().wrapping_sub(MAGIC_BITS);
    }
    let mut coset = if half { 1_u32 } else { 0_u32 };
    let at_faces = (odd & (g < 1.0e-6_f32)) | (half_odd & (c > 0.4999_f32));
    if at_faces {
        let (slow, other) = search_e8(z, lo, hi, half_hi);
        digits = slow;
        coset = other;
    }
    (digits, coset)
}

/// Digits `p - lo` (less 1/2 for half integers) and the coset of the nearest point, whose integers lie in `lo..=hi` and
/// half integers in `lo + 1/2 ..= hi + 1/2`; `lo` is even. `span` is `hi - lo`, `inv` its reciprocal.
#[device]
pub fn nearest_wide(z: [f32; 8], lo: f32, span: f32, inv: f32) -> ([u32; 8], u32) {
    let mut t = [0.0_f32; 8];
    let mut d = [0.0_f32; 8];
    let mut gain = [0.0_f32; 8];
    let mut cost = [0.0_f32; 8];
    let mut sum = 0.0_f32;
    for i in 0..8 {
        let inside = saturate(z[i].mul_add(inv, -lo * inv)).mul_add(span, lo);
        t[i] = inside + (MAGIC - lo);
        d[i] = inside - (t[i] - (MAGIC - lo));
        let past = z[i] - inside;
        gain[i] = d[i].abs() - past.abs();
        let near = d[i].abs() + past;
        sum = sum + near;
        // Within 1/2 of the lowest half integer the way down is closed.
        let low = saturate(z[i].mul_add(-0.015625_f32, (lo + 0.5_f32) * 0.015625_f32));
        cost[i] = low.mul_add(128.0_f32, near);
    }
    settle(z, t, d, gain, cost, sum, lo, lo + span, lo + span)
}

/// As `nearest_wide` for the box `-q..=q` of both cosets; `z` is at most a little outside of it. `span` is the number
/// before `2 q`, so that the uppermost half integer is `q - 1/2`.
#[device]
pub fn nearest_even(z: [f32; 8], q: f32, span: f32, inv: f32) -> ([u32; 8], u32) {
    let mut x = [0.0_f32; 8];
    let mut t = [0.0_f32; 8];
    let mut d = [0.0_f32; 8];
    let mut gain = [0.0_f32; 8];
    let mut cost = [0.0_f32; 8];
    let mut sum = 0.0_f32;
    for i in 0..8 {
        x[i] = saturate(z[i].mul_add(inv, 0.5_f32)).mul_add(span, -q);
        t[i] = x[i] + (MAGIC + q);
        d[i] = x[i] - (t[i] - (MAGIC + q));
        gain[i] = d[i].abs() - (z[i] - x[i]).abs();
        sum = sum + gain[i];
        // Within 1/2 of the faces half integers have no way out.
        cost[i] = d[i].abs() + saturate(x[i].abs() - (q - 0.5_f32));
    }
    settle(x, t, d, gain, cost, sum, -q, q, q - 1.0_f32)
}

/// The point itself, for `-q..=q`.
#[device]
pub fn nearest_e8(z: [f32; 8], q: f32) -> [f32; 8] {
    let span = f32::from_bits((q + q).to_bits().wrapping_sub(1_u32));
    let (digits, coset) = nearest_even(z, q, span, 1.0_f32 / (q + q));
    let mut p = [0.0_f32; 8];
    for i in 0..8 {
        p[i] = digits[i] as f32 - q + coset as f32 * 0.5_f32;
    }
    p
}

/// The slow search: nearest points of both cosets, then the nearer.
#[device]
fn search_e8(z: [f32; 8], lo: f32, hi: f32, half_hi: f32) -> ([u32; 8], u32) {
    let a = nearest_d8(z, lo, hi);
    let mut shifted = [0.0_f32; 8];
    for i in 0..8 {
        shifted[i] = z[i] - 0.5_f32;
    }
    let b = nearest_d8(shifted, lo, half_hi);
    let whole = distance2(z, a) <= distance2(shifted, b);
    let mut digits = [0_u32; 8];
    for i in 0..8 {
        digits[i] = ((if whole { a[i] } else { b[i] }) - lo) as u32;
    }
    (digits, if whole { 0_u32 } else { 1_u32 })
}

/// The nearest integer in `lo..=hi`, what moving off it by one gains, and the step of that move, which stays inside.
#[device]
pub fn rounded(z: f32, lo: f32, hi: f32) -> (f32, f32, f32) {
    let n = fmin(fmax(z.round_ties_even(), lo), hi);
    let d = z - n;
    let toward = if d >= 0.0_f32 { 1.0_f32 } else { -1.0_f32 };
    let inside = fmin(fmax(n + toward, lo), hi) == n + toward;
    // Moving toward z costs 1 - 2|d|, moving away from a face costs 1 + 2|d|.
    (n, if inside { d.abs() } else { -d.abs() }, if inside { toward } else { -toward })
}

/// Nearest point with integer coordinates in `lo..=hi` and an even sum.
#[device]
fn nearest_d8(z: [f32; 8], lo: f32, hi: f32) -> [f32; 8] {
    let mut p = [0.0_f32; 8];
    let mut sum = 0_i32;
    let mut best = -1.0e30_f32;
    let mut at = 0_i32;
    let mut step = 0.0_f32;
    for i in 0..8 {
        let (n, gain, by) = rounded(z[i], lo, hi);
        let better = gain > best;
        best = if better { gain } else { best };
        at = if better { i as i32 } else { at };
        step = if better { by } else { step };
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
