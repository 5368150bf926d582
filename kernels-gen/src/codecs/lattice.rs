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
use kernel_dsl::math::{fmax, fmin, pick, saturate};

use super::digits::bytes4;

/// 1.5 * 2^23: a sum with it rounds to an integer, ties to even, which then stands in the low bits.
const MAGIC: f32 = 12_582_912.0;

/// What the search knows of a block: coordinates rounded less `lo` (with `MAGIC`), their rounding errors, what moving a
/// coordinate costs among half integers, and the sum of `1/4` less the loss of half integers.
///
/// Digits are bytes of two words, so that a coset and a move take a step a word.
#[device]
fn settle(z: [f32; 8], t: [f32; 8], d: [f32; 8], cost: [f32; 8], sum: f32, lo: f32, hi: f32, half_hi: f32) -> ([u32; 2], u32) {
    // All but three bits (and the sign, which no `saturate` leaves), kept from the compiler: it would mask and number a key in
    // two instructions in the place of one.
    let mask = (saturate(z[0]).to_bits() & 0x8000_0000_u32) | 0x7fff_fff8_u32;
    let mut most = ((d[0].to_bits() & mask) | 7_u32) as i32;
    let mut least = (cost[0].to_bits() & mask) as i32;
    for i in 1..8 {
        // The first of equals wins: its number stands in the lowest bits.
        most = most.max(((d[i].to_bits() & mask) | (7 - i) as u32) as i32);
        least = least.min(((cost[i].to_bits() & mask) | i as u32) as i32);
    }
    let signs = [signs4(d, 0), signs4(d, 4)];
    let nearest = [digits4(t, 0), digits4(t, 4)];
    let parity = nearest[0] ^ nearest[1];
    let (odd, half_odd) = (all_if_odd(parity), all_if_odd(parity ^ signs[0] ^ signs[1]));
    let (g, c) = (f32::from_bits(most as u32), f32::from_bits(least as u32));
    let whole_cost = f32::from_bits(g.mul_add(-2.0_f32, 1.0_f32).to_bits() & odd);
    let half_cost = f32::from_bits(least as u32 & half_odd).mul_add(2.0_f32, 2.0_f32 - sum);
    let half = half_cost < whole_cost;
    let place = (if half { least } else { !most }) as u32 & 7_u32;
    let by = one_at((if half { half_odd } else { odd }) & 1_u32, place << 3);
    let ones = 0x0101_0101_u32;
    // Of half integers the one below.
    let digits = [nearest[0].wrapping_sub(signs[0] & ones), nearest[1].wrapping_sub(signs[1] & ones)];
    let mut words = settled(digits, signs, half, by);
    let mut coset = if half { 1_u32 } else { 0_u32 };
    let at_faces = ((odd != 0_u32) & (g < 1.0e-4_f32)) | ((half_odd != 0_u32) & (c > 0.4999_f32));
    if at_faces {
        let (slow, other) = search_e8(z, lo, hi, half_hi);
        words = [bytes4(slow[0], slow[1], slow[2], slow[3]), bytes4(slow[4], slow[5], slow[6], slow[7])];
        coset = other;
    }
    (words, coset)
}

/// `odd`, 1 or 0, from bit `place` of 64 on.
#[device]
fn one_at(odd: u32, place: u32) -> [u32; 2] {
    let one = (odd as i64) << (place as i64 & 63_i64);
    [one as u32, (one >> 32_i64) as u32]
}

/// Digits of integers, or of half integers, one of which moves to the next nearest: the one of `by`. Of the integers below and
/// bytes of 255 where the next one is nearer.
#[device]
fn settled(below: [u32; 2], signs: [u32; 2], half: bool, by: [u32; 2]) -> [u32; 2] {
    let halves = if half { 0xffff_ffff_u32 } else { 0_u32 };
    let ones = 0x0101_0101_u32;
    let mut words = [0_u32; 2];
    for w in 0..2 {
        // An integer is one more or not, and the other way if it moves. A half integer likewise above the digit before.
        let up = signs[w] ^ halves;
        words[w] = below[w].wrapping_sub(up & halves & ones).wrapping_add((up ^ by[w]) & ones);
    }
    words
}

/// The lowest bytes of four sums with `MAGIC`, from `at` on.
#[device]
pub fn digits4(t: [f32; 8], at: usize) -> u32 {
    bytes4(t[at].to_bits(), t[at + 1].to_bits(), t[at + 2].to_bits(), t[at + 3].to_bits())
}

/// 255 in the bytes of four numbers that are below zero.
#[device]
pub fn signs4(d: [f32; 8], at: usize) -> u32 {
    pick(pick(d[at].to_bits(), d[at + 1].to_bits(), 0xfb_u32), pick(d[at + 2].to_bits(), d[at + 3].to_bits(), 0xfb_u32), 0x5410_u32)
}

/// All bits where the lowest bits of four bytes sum to an odd number, else none.
#[device]
fn all_if_odd(x: u32) -> u32 {
    // The product has that sum in its highest bit.
    (((x & 0x0101_0101_u32).wrapping_mul(0x8080_8080_u32) as i32) >> 31_i32) as u32
}

/// Digits `p + q` (less 1/2 for half integers), bytes of two words, and the coset of the nearest point in the box `-q..=q`, q below 128; `z` is at most a little outside of it. `span` is the number
/// before `2 q`, so that the uppermost half integer is `q - 1/2`.
#[device]
pub fn nearest_even(z: [f32; 8], q: f32, span: f32, inv: f32) -> ([u32; 2], u32) {
    let mut x = [0.0_f32; 8];
    let mut t = [0.0_f32; 8];
    let mut d = [0.0_f32; 8];
    let mut cost = [0.0_f32; 8];
    let mut sum = 0.0_f32;
    for i in 0..8 {
        x[i] = saturate(z[i].mul_add(inv, 0.5_f32)).mul_add(span, -q);
        t[i] = x[i] + (MAGIC + q);
        d[i] = x[i] - (t[i] - (MAGIC + q));
        sum = sum + (d[i].abs() - (z[i] - x[i]).abs());
        // Within 1/2 of the faces half integers have no way out.
        cost[i] = d[i].abs() + saturate(x[i].abs() - (q - 0.5_f32));
    }
    settle(x, t, d, cost, sum, -q, q, q - 1.0_f32)
}

/// The point itself, for `-q..=q`.
#[device]
pub fn nearest_e8(z: [f32; 8], q: f32) -> [f32; 8] {
    let span = f32::from_bits((q + q).to_bits().wrapping_sub(1_u32));
    let (words, coset) = nearest_even(z, q, span, 1.0_f32 / (q + q));
    let mut p = [0.0_f32; 8];
    for i in 0..8 {
        p[i] = ((words[i / 4] >> (8 * (i % 4))) & 255_u32) as f32 - q + coset as f32 * 0.5_f32;
    }
    p
}

/// The slow search, its digits one by one: nearest points of both cosets, then the nearer.
#[device]
pub fn search_e8(z: [f32; 8], lo: f32, hi: f32, half_hi: f32) -> ([u32; 8], u32) {
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
