//! What weights are made with: powers of two that come 2^26 times as large, and sums of tiles of pairs from a start on.

use kernel_dsl::ir::interp::{Arg, run};
use kernel_dsl::passes;
use kernel_dsl::prelude::*;
use kernel_dsl::tile::launch;

#[test]
fn raised_powers_are_near_and_exact_at_integers() {
    for i in -152_000..=2000 {
        let x = i as f32 / 1000.0;
        let (got, want) = (f64::from(exp2_raised(x)), 2f64.powf(f64::from(x) + 26.0));
        assert!(x < -150.0 || (got / want - 1.0).abs() < 3.1e-6, "2^({x} + 26): {got} for {want}");
        assert!(i % 1000 != 0 || x < -151.0 || got == want, "{x}");
    }
    assert_eq!([-153.0, -1e30, f32::NEG_INFINITY, f32::NAN].map(exp2_raised), [0.0; 4]);
    // What is left is below the smallest normal number.
    assert!((-153_000..-152_000).all(|i| (0.0..f32::MIN_POSITIVE).contains(&exp2_raised(i as f32 / 1000.0))));
}

#[derive(Clone, Copy)]
struct One;

impl Meta for One {
    fn launch(&self) -> Launch {
        Launch { warps: 1, min_blocks: 1 }
    }
}

#[kernel]
fn folds(_m: One, x: &Global<f32>, out: &mut Global<f32>) {
    let mut start = shared::<i32>(8);
    for c in threads(8) {
        start.put(c, 1000_i32 * (c & 3_i32));
    }
    for _ in warps(1) {
        let sums = x.acc(0_i32, 32, 8, 32, 8).cast::<i32>();
        out.put_acc(0_i32, 1, 16, 8, &sums.fold_onto(5, 2, &start.cols(0, 1, 8)).cast::<f32>());
    }
}

#[test]
fn halves_are_folded_onto_a_start() {
    let x: Vec<f32> = (0..256).map(|i| (i * 37 % 1013) as f32 - 500.0).collect();
    let x = Global::new(&x);
    let mut out = Global::<f32>::new(&[f32::NAN; 128]);
    launch([1, 1, 1], || folds(One, &x, &mut out));
    for (r, c) in (0..16).flat_map(|r| (0..8).map(move |c| (r, c))) {
        let (token, head) = (kernel_dsl::tile::pair::token(r, c), c % 4);
        assert_eq!(out.at(c * 16 + r), 5.0 * x.at(head * 32 + token) + 2.0 * x.at((head + 4) * 32 + token) + 1000.0 * head as f32);
    }
    let tile = folds::build(&One).unwrap();
    for program in [passes::run(&tile).unwrap(), tile] {
        let mut args = vec![Arg::Buffer(x.bytes.clone()), Arg::Buffer(vec![0; 512])];
        run(&program, [1, 1, 1], &mut args).unwrap();
        assert_eq!(args[1], Arg::Buffer(out.bytes.clone()));
    }
}

#[kernel]
fn owned(_m: One, x: &Global<f32>, out: &mut Global<f32>) {
    for _ in warps(1) {
        out.put_acc(0_i32, 1, 16, 8, &x.acc(0_i32, 32, 8, 32, 8).own_halves());
    }
}

#[test]
fn a_lane_keeps_its_own_half() {
    let x: Vec<f32> = (0..256).map(|i| i as f32).collect();
    let x = Global::new(&x);
    let mut out = Global::<f32>::new(&[f32::NAN; 128]);
    launch([1, 1, 1], || owned(One, &x, &mut out));
    for (r, c) in (0..16).flat_map(|r| (0..8).map(move |c| (r, c))) {
        assert_eq!(out.at(c * 16 + r), x.at(c * 32 + kernel_dsl::tile::pair::token(r, c)));
    }
    let tile = owned::build(&One).unwrap();
    for program in [passes::run(&tile).unwrap(), tile] {
        let mut args = vec![Arg::Buffer(x.bytes.clone()), Arg::Buffer(vec![0; 512])];
        run(&program, [1, 1, 1], &mut args).unwrap();
        assert_eq!(args[1], Arg::Buffer(out.bytes.clone()));
    }
}

/// A row whose halves stay one number, and one that begins so.
#[kernel]
fn alike(_m: One, x: &Global<f32>, out: &mut Global<f32>) {
    for _ in warps(1) {
        let tops = x.acc(0_i32, 32, 8, 32, 8).max_rows();
        let (mut same, mut other) = (tops.left_halves(), tops.left_halves());
        for i in strided(0_i32, 3_i32, 1) {
            same = &same * 2.0_f32 + i as f32;
            other = other.map2(&tops, fmax) + &same;
        }
        out.put_cols(0_i32, 1, 8, &same);
        out.put_cols(8_i32, 1, 8, &other);
        out.put_cols(16_i32, 1, 8, &tops.swap_halves());
    }
}

#[test]
fn halves_that_are_one_number_stay_so() {
    let x: Vec<f32> = (0..256).map(|i| (i * 37 % 1013) as f32 - 500.0).collect();
    let x = Global::new(&x);
    let mut out = Global::<f32>::new(&[f32::NAN; 24]);
    launch([1, 1, 1], || alike(One, &x, &mut out));
    let top = |c: usize| (0..32).map(|r| x.at(c * 32 + r)).fold(f32::NEG_INFINITY, f32::max);
    for c in 0..8 {
        let (mut same, mut other) = (top(c % 4), top(c % 4));
        for i in 0..3 {
            same = same * 2.0 + i as f32;
            other = other.max(top(c)) + same;
        }
        assert_eq!([out.at(c), out.at(8 + c), out.at(16 + c)], [same, other, top(c ^ 4)]);
    }
    let tile = alike::build(&One).unwrap();
    for program in [passes::run(&tile).unwrap(), tile] {
        let mut args = vec![Arg::Buffer(x.bytes.clone()), Arg::Buffer(vec![0; 96])];
        run(&program, [1, 1, 1], &mut args).unwrap();
        assert_eq!(args[1], Arg::Buffer(out.bytes.clone()));
    }
}
