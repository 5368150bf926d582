//! A kernel that counts what it moves: its other buffers are as without counting, the two sums are those of its accesses.

#![allow(dead_code)] // the kernel here is built, its Rust function never runs

use kernel_dsl::ir::interp::{Arg, run};
use kernel_dsl::passes;
use kernel_dsl::prelude::*;
use kernel_dsl::{Source, emit};

struct Shape;

impl Meta for Shape {
    fn launch(&self) -> Launch {
        Launch { warps: 2, min_blocks: 1 }
    }
}

/// A warp streams pages of `x`; threads read some words of it, one in three writes one back, and all of them write elsewhere.
#[kernel]
fn mixed(_m: Shape, x: &mut Global<u8>, out: &mut Global<u32>, pages: i32) {
    let ring = ring(2, 16);
    for w in warps(2) {
        let mut sum = 0_u32;
        for i in stream(w, pages, 2, 2) {
            let page = ring.copy(x, i as i64 * 16_i64);
            sum = sum + page.load::<u32>(0);
        }
        out.put(w, sum);
    }
    for i in threads(50) {
        let four = x.load4::<u32>(i as i64 * 16_i64);
        out.put(i + 2_i32, four[1]);
        if i % 3_i32 == 0_i32 {
            x.save::<u16>(800_i64 + i as i64 * 2_i64, four[2] as u16);
        }
    }
}

#[test]
fn sums_are_those_of_the_accesses() {
    let tile = mixed::build(&Shape).unwrap();
    let thread = passes::run(&tile).unwrap();
    let counting = passes::count::run(&thread, "x");
    let x: Vec<u8> = (0..1000).map(|i| (i * 37 % 251) as u8).collect();
    for (pages, grid) in [(0, 1), (5, 1), (5, 3)] {
        let args = || vec![Arg::Buffer(x.clone()), Arg::Buffer(vec![0; 4 * 52]), Arg::Scalar(pages)];
        let (mut plain, mut counted) = (args(), args());
        counted.push(Arg::Buffer(vec![0; 16]));
        run(&thread, [grid, 1, 1], &mut plain).unwrap();
        run(&counting, [grid, 1, 1], &mut counted).unwrap();
        let Some(Arg::Buffer(sums)) = counted.pop() else { panic!("a buffer was passed") };
        assert_eq!(counted, plain);
        let (read, written) = sums.split_at(8);
        let blocks = u64::from(grid);
        assert_eq!(read, (blocks * (16 * pages + 16 * 50)).to_le_bytes());
        assert_eq!(written, (blocks * 2 * 17).to_le_bytes());
    }
    // It adds to what is there.
    let mut again = vec![Arg::Buffer(x.clone()), Arg::Buffer(vec![0; 4 * 52]), Arg::Scalar(0), Arg::Buffer(vec![1; 16])];
    run(&counting, [1, 1, 1], &mut again).unwrap();
    assert_eq!(again[3], Arg::Buffer([0x0101_0101_0101_0101_u64 + 800, 0x0101_0101_0101_0101_u64 + 34].map(u64::to_le_bytes).concat()));
}

/// Copies two words in the first turn, one in the last.
#[kernel]
fn sized(_m: Shape, x: &Global<u8>, out: &mut Global<u32>, pages: i32) {
    let ring = ring(2, 32);
    for w in warps(2) {
        let mut sum = 0_u32;
        for i in stream(0, pages, 2, 2) {
            let page = ring.copy_some(x, i as i64 * 16_i64, (pages - i).min(2_i32) * 16_i32);
            sum = sum + page.load::<u32>(0);
        }
        out.put(w, sum);
    }
}

#[test]
fn a_copy_counts_the_bytes_that_it_brings() {
    let thread = passes::run(&sized::build(&Shape).unwrap()).unwrap();
    let counting = passes::count::run(&thread, "x");
    for pages in [0_u64, 1, 2, 5] {
        let mut args = vec![Arg::Buffer(vec![0; 16 * pages as usize]), Arg::Buffer(vec![0; 8]), Arg::Scalar(pages), Arg::Buffer(vec![0; 16])];
        run(&counting, [1, 1, 1], &mut args).unwrap();
        assert_eq!(args[3], Arg::Buffer([2 * 16 * pages, 0].map(u64::to_le_bytes).concat()));
    }
}

#[test]
fn the_kernel_that_serves_stays_as_it_is() {
    let tile = mixed::build(&Shape).unwrap();
    let (plain, counting) = (Source::of(&tile).unwrap(), Source::counted(&tile, "x").unwrap());
    assert_eq!(plain.cuda, emit::cuda(&passes::run(&tile).unwrap()));
    assert!(!plain.cuda.contains("atomicAdd") && counting.cuda.matches("atomicAdd").count() == 2);
    assert!(counting.cuda.contains("u8* __restrict__ counted") && counting.name == "mixed_counted");
    // A buffer that it does not have: nothing to count.
    let none = passes::count::run(&passes::run(&tile).unwrap(), "y");
    let mut args = vec![Arg::Buffer(vec![0; 1000]), Arg::Buffer(vec![0; 4 * 52]), Arg::Scalar(1), Arg::Buffer(vec![0; 16])];
    kernel_dsl::ir::interp::run(&none, [1, 1, 1], &mut args).unwrap();
    assert_eq!(args[3], Arg::Buffer(vec![0; 16]));
}
