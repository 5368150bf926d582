//! The search of E8 by bytes beside one in f64: points lie in the box and in the lattice, and lose next to nothing.

mod support;

use kernels_gen::codecs::fractions::{between, middle, nearest_between, nearest_by_bytes, reach};
use support::Random;

/// Digits and half integers of a point found, as a point above the lowest integer.
fn point(digits: [u32; 2], coset: u32) -> [f64; 8] {
    std::array::from_fn(|i| f64::from(digits[i / 4] >> (8 * (i % 4)) & 255) + 0.5 * f64::from(coset))
}

fn distance2(u: &[f64; 8], p: &[f64; 8]) -> f64 {
    u.iter().zip(p).map(|(u, p)| (u - p).powi(2)).sum()
}

/// The nearest point of both cosets, coordinate by coordinate, with digits up to `lasts` of each.
fn nearest(u: &[f64; 8], lasts: [i32; 2]) -> [f64; 8] {
    let of = |shift: f64, last: i32| -> [f64; 8] {
        let mut p: [i32; 8] = std::array::from_fn(|i| ((u[i] - shift).round() as i32).clamp(0, last));
        if p.iter().sum::<i32>() % 2 != 0 {
            let cost = |i: usize, by: i32| (u[i] - shift - f64::from(p[i] + by)).powi(2) - (u[i] - shift - f64::from(p[i])).powi(2);
            let moves = (0..8).flat_map(|i| [(i, -1), (i, 1)]).filter(|&(i, by)| (0..=last).contains(&(p[i] + by)));
            if let Some((i, by)) = moves.min_by(|a, b| cost(a.0, a.1).total_cmp(&cost(b.0, b.1))) {
                p[i] += by;
            }
        }
        p.map(|p| f64::from(p) + shift)
    };
    let (whole, half) = (of(0.0, lasts[0]), of(0.5, lasts[1]));
    if distance2(u, &half) < distance2(u, &whole) { half } else { whole }
}

fn check(y: [f32; 8], by: f32, width: usize) -> (f64, f64) {
    let (digits, coset) = nearest_by_bytes(y, by, width, reach(width), middle(width), 256.0 / reach(width));
    assert!(coset == 0 || coset == u32::MAX);
    let coset = coset & 1;
    let u: [f64; 8] = y.map(|y| f64::from(y * by) + f64::from(1 << (width - 1)));
    let found = point(digits, coset);
    let last = f64::from((1 << width) - 1);
    assert!(found.iter().all(|p| *p <= last + 0.5 * f64::from(coset)), "{width} bits, {y:?} by {by}: {found:?}");
    let sum: f64 = found.iter().map(|p| p - 0.5 * f64::from(coset)).sum();
    assert!(sum % 2.0 == 0.0, "{width} bits, {y:?} by {by}: {found:?}");
    (distance2(&u, &found), distance2(&u, &nearest(&u, [(1 << width) - 1; 2])))
}

#[test]
fn points_lose_next_to_nothing() {
    // As many standard deviations in half a box as the codecs have.
    for (width, half, loss) in [(1, 1.74, 1e-2), (2, 2.0, 2e-3), (3, 2.3, 1e-3), (4, 2.65, 5e-4), (5, 2.75, 5e-4), (6, 2.8, 2e-4), (7, 2.8, 2e-4)] {
        let mut random = Random(width as u64);
        let by = (1 << (width - 1)) as f32 / half;
        let (mut ours, mut least) = (0.0, 0.0);
        for _ in 0..20_000 {
            let (a, b) = check(random.gaussians(8).try_into().unwrap(), by, width);
            assert!(a >= b - 1e-4, "{width} bits: {a} below {b}");
            ours += a;
            least += b;
        }
        println!("{width} bits: {:+.4} % of the squared error", 100.0 * (ours / least - 1.0));
        assert!(ours < least * (1.0 + loss), "{width} bits: {ours} for {least}");
    }
}

#[test]
fn corners_stay_in_the_box() {
    let mut random = Random(9);
    let ends = [-1e30_f32, -70.0, -2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0, 70.0, 1e30];
    for width in 1..=7 {
        let half = (1 << (width - 1)) as f32;
        for _ in 0..20_000 {
            let bits = random.gaussians(8);
            let y: [f32; 8] = std::array::from_fn(|i| ends[(bits[i].to_bits() >> 3) as usize % ends.len()] + if bits[i] > 0.0 { half } else { -half });
            check(y, 1.0, width);
        }
    }
}

fn check_between(y: [f32; 8], by: f32, q: usize) -> (f64, f64) {
    let (digits, coset) = nearest_between(y, by, q, between(q));
    assert!(coset == 0 || coset == u32::MAX);
    let coset = coset & 1;
    let u: [f64; 8] = y.map(|y| (f64::from(y * by) + q as f64).clamp(0.0, 2.0 * q as f64));
    let found = point(digits, coset);
    assert!(found.iter().all(|p| *p <= 2.0 * q as f64), "{q}, {y:?} by {by}: {found:?}");
    let sum: f64 = found.iter().map(|p| p - 0.5 * f64::from(coset)).sum();
    assert!(sum % 2.0 == 0.0, "{q}, {y:?} by {by}: {found:?}");
    (distance2(&u, &found), distance2(&u, &nearest(&u, [2 * q as i32, 2 * q as i32 - 1])))
}

#[test]
fn points_between_outermost_integers_lose_next_to_nothing() {
    for (q, loss) in [(1, 5e-3), (2, 1e-3), (4, 3e-4), (7, 2e-4), (10, 1e-4), (15, 1e-4), (38, 1e-4), (63, 1e-4)] {
        let mut random = Random(q as u64);
        let (mut ours, mut least) = (0.0, 0.0);
        for _ in 0..20_000 {
            // A row of 128 under its largest magnitude; one block in four has that one.
            let mut y: [f32; 8] = random.gaussians(8).try_into().unwrap();
            if random.bits() % 4 == 0 {
                y[0] = if y[0] < 0.0 { -2.75 } else { 2.75 };
            }
            let (a, b) = check_between(y.map(|y| y.clamp(-2.75, 2.75)), q as f32 / 2.75, q);
            assert!(a >= b - 1e-3, "{q}: {a} below {b}");
            ours += a;
            least += b;
        }
        println!("{q}: {:+.4} % of the squared error", 100.0 * (ours / least - 1.0));
        assert!(ours < least * (1.0 + loss), "{q}: {ours} for {least}");
    }
}

#[test]
fn corners_stay_between_outermost_integers() {
    let mut random = Random(19);
    for q in 1..64_usize {
        let ends = [-1e30_f32, -1.0, -0.999, -0.5, -0.01, 0.0, 0.01, 0.25, 0.5, 0.99, 1.0, 1e30, f32::NAN];
        for turn in 0..2_000 {
            // Few kinds of coordinates a block, so that all may stand at a face.
            let kinds = 1 + turn % 4;
            let own: [f32; 4] = std::array::from_fn(|_| ends[random.bits() as usize % ends.len()] * if random.bits() % 2 == 0 { q as f32 } else { -(q as f32) });
            let near: [f32; 4] = std::array::from_fn(|i| own[i] + [0.0, 0.3, -0.3, 0.498][random.bits() as usize % 4]);
            let y: [f32; 8] = std::array::from_fn(|_| if random.bits() % 3 == 0 { near } else { own }[random.bits() as usize % kinds]);
            check_between(y.map(|y| if y.is_nan() { -(q as f32) } else { y }), 1.0, q);
        }
    }
}
