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

/// Every E4M3 code has the value its bits say, and codes to itself; what lies between goes to the nearer one.
#[test]
fn e4m3_codes_and_values() {
    use kernel_dsl::math::{e4m3_of, e4m3_value};
    let value = |code: u32| {
        let (e, m) = ((code >> 3 & 15) as i32, (code & 7) as f32);
        let magnitude = if e == 0 { m * 2.0_f32.powi(-9) } else { (8.0 + m) * 2.0_f32.powi(e - 10) };
        if code & 0x80 == 0 { magnitude } else { -magnitude }
    };
    for code in (0..256).filter(|c| c & 0x7f != 0x7f) {
        assert_eq!(e4m3_value(code).to_bits(), value(code).to_bits(), "{code:02x}");
        assert_eq!(e4m3_of(value(code)), code, "{code:02x}");
    }
    for code in 0..0x7e {
        let (low, high) = (value(code), value(code + 1));
        let middle = (low + high) / 2.0;
        assert_eq!(e4m3_of(middle), code + (code & 1), "half way above {code:02x}");
        assert_eq!(e4m3_of(middle.next_down()), code, "below half way above {code:02x}");
        assert_eq!(e4m3_of(middle.next_up()), code + 1, "above half way above {code:02x}");
    }
    assert_eq!([e4m3_of(1e9), e4m3_of(-f32::INFINITY), e4m3_of(f32::NAN), e4m3_of(1e-30)], [0x7e, 0xfe, 0x7f, 0]);
}
