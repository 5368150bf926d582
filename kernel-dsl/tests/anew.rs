//! Numbers of threads and blocks read anew within a loop: every stage gives the bytes of the Rust function, and the text reads them there.

use kernel_dsl::Source;
use kernel_dsl::ir::interp::{Arg, run};
use kernel_dsl::passes;
use kernel_dsl::prelude::*;
use kernel_dsl::tile::launch;

#[derive(Clone, Copy)]
struct Turns {
    turns: usize,
}

impl Meta for Turns {
    fn launch(&self) -> Launch {
        Launch { warps: 2, min_blocks: 1 }
    }
}

/// Each of two blocks adds a warp's and a lane's number to 64 numbers a turn.
#[kernel]
fn numbered(m: Turns, x: &Global<i32>, out: &mut Global<i32>) {
    for turn in strided(0_i32, m.turns as i32, 1) {
        anew();
        let first = (turn * 2_i32 + block_id(0)) * 64_i32;
        for w in warps(2) {
            for lane in lanes(32) {
                anew();
                let at = first + w * 32_i32 + lane;
                out.put(at, x.at(at) + w * 100_i32 + lane);
            }
        }
    }
}

#[test]
fn numbers_read_anew_are_the_same() {
    let m = Turns { turns: 3 };
    let x = Global::new(&(0..384).map(|i| i * 7 % 1013).collect::<Vec<i32>>());
    let mut out = Global::<i32>::new(&[-1; 384]);
    launch([2, 1, 1], || numbered(m, &x, &mut out));
    let want: Vec<i32> = (0..384).map(|i| x.at(i) + i % 64 / 32 * 100 + i % 32).collect();
    assert_eq!(out.to_vec(), want);
    let tile = numbered::build(&m).unwrap();
    for (stage, program) in [("tile", tile.clone()), ("thread", passes::run(&tile).unwrap())] {
        let mut args = vec![Arg::Buffer(x.bytes.clone()), Arg::Buffer(Global::<i32>::new(&[-1; 384]).bytes)];
        run(&program, [2, 1, 1], &mut args).unwrap_or_else(|trap| panic!("{stage}: {trap}"));
        assert!(matches!(&args[1], Arg::Buffer(bytes) if *bytes == out.bytes), "{stage}");
    }
    // In the kernel, behind the prelude.
    let source = Source::of(&tile).unwrap();
    let (_, body) = source.cuda.split_once("numbered(").unwrap();
    let (before, turn) = body.split_once("for (").unwrap();
    assert!(turn.contains("thread_anew()") && turn.contains("block_anew_x()") && !turn.contains("threadIdx") && !turn.contains("blockIdx"), "{turn}");
    assert!(!before.contains("_anew"), "{before}");
}
