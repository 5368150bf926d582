//! What the macros make of Rust's own forms, through the interpreter: both halves do the same.

use kernel_dsl::ir::interp::{Arg, run};
use kernel_dsl::prelude::*;
use kernel_dsl::tile::launch;

#[derive(Clone, Copy)]
struct M;

impl Meta for M {
    fn launch(&self) -> Launch {
        Launch { warps: 1, min_blocks: 1 }
    }
}

/// The right side of `&&` would read past the end.
#[kernel]
fn guarded(_m: M, x: &Global<i32>, out: &mut Global<i32>, n: i32) {
    for i in threads(64) {
        if i < n && x.at(i) > 0_i32 {
            out.put(i, 1_i32);
        }
        if i >= n || x.at(i) <= 0_i32 {
            out.put(i, 2_i32);
        }
    }
}

/// Parameters may be variables, as in Rust.
#[device]
fn raised(mut x: i32, to: i32) -> i32 {
    if x < to {
        x = to;
    }
    x += 1_i32;
    x
}

#[kernel]
fn changed(_m: M, out: &mut Global<i32>, mut n: i32) {
    n = raised(n, 5_i32);
    out.put(0, n);
}

fn word(x: i32) -> Arg {
    Arg::Scalar(x as u32 as u64)
}

#[test]
fn the_right_side_runs_only_if_the_left_side_leaves_it_open() {
    let x = Global::new(&[3, -3, 0, 7, 1]);
    let mut out = Global::<i32>::zeroed(64);
    launch([1, 1, 1], || guarded(M, &x, &mut out, 5));
    let tile = guarded::build(&M).unwrap();
    for program in [kernel_dsl::passes::run(&tile).unwrap(), tile] {
        let mut args = [Arg::Buffer(x.bytes.clone()), Arg::Buffer(vec![0; 256]), word(5)];
        run(&program, [1, 1, 1], &mut args).unwrap();
        assert_eq!(args[1], Arg::Buffer(out.bytes.clone()));
    }
}

#[test]
fn parameters_can_be_assigned_to() {
    let tile = changed::build(&M).unwrap();
    for program in [kernel_dsl::passes::run(&tile).unwrap(), tile] {
        for n in [3, 9] {
            let mut out = Global::<i32>::zeroed(1);
            launch([1, 1, 1], || changed(M, &mut out, n));
            let mut args = [Arg::Buffer(vec![0; 4]), word(n)];
            run(&program, [1, 1, 1], &mut args).unwrap();
            assert_eq!(args[0], Arg::Buffer(out.bytes.clone()));
        }
    }
}
