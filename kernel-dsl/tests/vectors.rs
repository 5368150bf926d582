//! Vectors over the lanes of a warp: numbers of lanes, elements that a vector names, an element by its lane; and sums over k of a right operand as
//! each lane has them.

use kernel_dsl::ir::interp::{Arg, run};
use kernel_dsl::passes;
use kernel_dsl::prelude::*;
use kernel_dsl::tile::launch;

#[derive(Clone, Copy)]
struct Columns(usize);

impl Meta for Columns {
    fn launch(&self) -> Launch {
        Launch { warps: 1, min_blocks: 1 }
    }
}

#[device]
fn backwards(lane: i32, last: i32) -> i32 {
    last - lane * 3_i32
}

/// Squares of numbers that a vector names, and one of them after another by its lane.
#[kernel]
fn named(_m: Columns, out: &mut Global<i64>) {
    let mut squares = shared::<i64>(128);
    for i in threads(128) {
        squares.put(i, i as i64 * i as i64);
    }
    for _ in warps(1) {
        let own = squares.gather(&vector_ids(32).map2(&vector(32, 100_i32), backwards));
        out.put_row(0, &own);
        for i in strided(0_i32, 40_i32, 1) {
            // Lanes are counted by 32.
            let x = own.of_lane(i);
            for _ in lanes(1) {
                out.put(32_i32 + i, x);
            }
        }
    }
}

#[test]
fn elements_are_named_by_vectors_and_by_lanes() {
    let square = |lane: usize| (100 - 3 * lane as i64).pow(2);
    let want: Vec<i64> = (0..32).chain((0..40).map(|i| i % 32)).map(square).collect();
    let mut out = Global::<i64>::zeroed(72);
    launch([1, 1, 1], || named(Columns(0), &mut out));
    assert_eq!((0..72).map(|i| out.at(i)).collect::<Vec<i64>>(), want);
    let tile = named::build(&Columns(0)).unwrap();
    for program in [passes::run(&tile).unwrap(), tile] {
        let mut args = [Arg::Buffer(vec![0; 72 * 8])];
        run(&program, [1, 1, 1], &mut args).unwrap();
        assert!(args[0] == Arg::Buffer(out.bytes.clone()), "lowered: {}", program.lowered);
    }
}

/// Sums of columns of 32 bytes by way of what each lane holds, there and back; the bits of a lane's rows.
#[kernel]
fn totals(m: Columns, bytes: &Global<u8>, sums: &mut Global<i32>, all: &mut Global<i32>) {
    for _ in warps(1) {
        let x = bytes.operand::<u8>(0, 32, m.0, 32);
        let own = x.lane_totals();
        sums.put_cols(0, 1, m.0, &own.fold_fours());
        let back = own.fold_fours().in_fours();
        sums.put_cols(m.0 as i32, 1, m.0, &(&back + &own).fold_fours());
        sums.put_cols((2 * m.0) as i32, 1, m.0, &x.sum_k());
        let scores = acc(16, m.0, 0_i32) + &row_ids(16) * 5_i32 + &own.fold_fours();
        all.put_acc(0, m.0, 1, m.0, &scores.lane_ors());
    }
}

#[test]
fn lanes_totals_come_to_columns() {
    for n in [8, 16] {
        let bytes: Vec<u8> = (0..32 * n).map(|i| (i * i * 31 + i * 7 + 200) as u8).collect();
        let column = |c: usize| (0..32).map(|k| i32::from(bytes[c * 32 + k])).sum::<i32>();
        let want: Vec<i32> = [1, 2, 1].iter().flat_map(|by| (0..n).map(move |c| by * column(c))).collect();
        let bits: Vec<i32> = (0..8 * n).map(|i| [2 * (i / n), 2 * (i / n) + 1].map(|row| 5 * row as i32 + column(i % n)).iter().fold(0, |a, b| a | b)).collect();
        let rows = Global::new(&bytes);
        let (mut sums, mut all) = (Global::<i32>::zeroed(3 * n), Global::<i32>::zeroed(8 * n));
        launch([1, 1, 1], || totals(Columns(n), &rows, &mut sums, &mut all));
        assert_eq!((0..3 * n).map(|i| sums.at(i)).collect::<Vec<i32>>(), want);
        assert_eq!((0..8 * n).map(|i| all.at(i)).collect::<Vec<i32>>(), bits);
        let tile = totals::build(&Columns(n)).unwrap();
        for program in [passes::run(&tile).unwrap(), tile] {
            let mut args = [Arg::Buffer(rows.bytes.clone()), Arg::Buffer(vec![0; 12 * n]), Arg::Buffer(vec![0; 32 * n])];
            run(&program, [1, 1, 1], &mut args).unwrap();
            assert!(args[1..] == [&sums, &all].map(|x| Arg::Buffer(x.bytes.clone())), "lowered: {}, {n} columns", program.lowered);
        }
    }
}
