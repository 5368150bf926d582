//! What a warp leaves for itself in shared memory: accumulators and folded halves come back as they were, by columns in
//! memory; every stage gives the bytes of the Rust function. And what a launch may do before it waits for the one before.

use kernel_dsl::ir::interp::{Arg, run};
use kernel_dsl::passes;
use kernel_dsl::prelude::*;
use kernel_dsl::tile::launch;

#[derive(Clone, Copy)]
struct Shape {
    rows: usize,
    heads: usize,
}

impl Meta for Shape {
    fn launch(&self) -> Launch {
        Launch { warps: 2, min_blocks: 1 }
    }
}

/// Each warp takes 8 columns of `rows`, folds their halves, and leaves both forms in shared memory before it writes them out.
#[kernel]
fn leaves(m: Shape, x: &Global<f32>, whole: &mut Global<f32>, folded: &mut Global<f32>, sums: &mut Global<f32>) {
    let mut held = shared::<f32>(2 * 8 * m.rows);
    let mut few = shared::<f32>(2 * m.heads * m.rows);
    let mut totals = shared::<f32>(16);
    for w in warps(2) {
        let tile = x.acc(w * (8 * m.rows) as i32, m.rows, 8, m.rows, 8);
        held.put_acc(w * (8 * m.rows) as i32, 1, m.rows, 8, &tile);
        few.put_halves(w * (m.heads * m.rows) as i32, m.rows, m.heads, &tile.fold_halves(3));
        totals.put_cols(w * 8_i32, 1, 8, &tile.max_rows().fold_halves(3));
        sync_warp();
        let again = held.acc(w * (8 * m.rows) as i32, m.rows, m.heads, m.rows, 8);
        whole.put_acc(w * (8 * m.rows) as i32, 1, m.rows, 8, &again);
        let halves = few.halves(w * (m.heads * m.rows) as i32, m.rows, m.heads, m.rows / 2) + &totals.cols(w * 8_i32, 1, 8);
        folded.put_halves(w * (4 * m.rows) as i32, m.rows, 4, &halves);
        sums.put_cols(w * 8_i32, 1, 8, &totals.cols(w * 8_i32, 1, 8));
    }
}

#[test]
fn tiles_come_back_from_shared_memory() {
    for (rows, heads) in [(32, 4), (64, 3), (128, 1), (128, 4)] {
        let m = Shape { rows, heads };
        let x: Vec<f32> = (0..16 * rows).map(|i| (i * 37 % 1013) as f32 * 0.25 - 100.0).collect();
        let x = Global::new(&x);
        let blank = |n: usize| Global::<f32>::new(&vec![f32::NAN; n]);
        let (mut whole, mut folded, mut sums) = (blank(16 * rows), blank(8 * rows), blank(16));
        launch([1, 1, 1], || leaves(m, &x, &mut whole, &mut folded, &mut sums));
        // Columns past the heads repeat the last; halves are weighed and summed dim by dim.
        let (w, f) = (whole.to_vec(), folded.to_vec());
        for (c, r) in (0..8).flat_map(|c| (0..rows).map(move |r| (c, r))) {
            assert_eq!(w[c * rows + r], x.at(c.min(heads - 1) * rows + r));
        }
        for (c, r) in (0..heads).flat_map(|c| (0..rows).map(move |r| (c, r))) {
            assert_eq!(f[c * rows + r], x.at(c * rows + r) * 3.0 + x.at((c + 4) * rows + r) + sums.at(c));
        }
        let tile = leaves::build(&m).unwrap();
        let thread = passes::run(&tile).unwrap();
        for (stage, program) in [("tile", tile), ("thread", thread)] {
            let mut args = vec![Arg::Buffer(x.bytes.clone()), Arg::Buffer(blank(16 * rows).bytes), Arg::Buffer(blank(8 * rows).bytes), Arg::Buffer(blank(16).bytes)];
            run(&program, [1, 1, 1], &mut args).unwrap_or_else(|trap| panic!("{stage}: {trap}"));
            for (arg, want) in args[1..].iter().zip([&whole, &folded, &sums]) {
                assert!(matches!(arg, Arg::Buffer(bytes) if *bytes == want.bytes), "{stage} {rows} {heads}");
            }
        }
    }
}

/// Looks at a number that may be old, asks for 16 bytes that it names, and waits.
#[kernel]
fn asks(_m: Shape, at: &Global<i32>, bytes: &Global<u8>, seen: &mut Global<i32>) {
    for _ in warps(1) {
        for i in lanes(2) {
            let old = at.peek(i);
            bytes.prefetch_some(old, 16_i32);
            seen.put(i, old);
        }
    }
    after_previous();
}

#[test]
fn hints_change_nothing_and_name_bytes_that_are_there() {
    let m = Shape { rows: 32, heads: 1 };
    let (at, bytes) = (Global::new(&[16_i32, 32]), Global::new(&[0_u8; 48]));
    let mut seen = Global::<i32>::new(&[0, 0]);
    launch([1, 1, 1], || asks(m, &at, &bytes, &mut seen));
    assert_eq!(seen.to_vec(), [16, 32]);
    let tile = asks::build(&m).unwrap();
    let thread = passes::run(&tile).unwrap();
    let cuda = kernel_dsl::Source::of(&tile).unwrap().cuda;
    assert!(cuda.contains("prefetch_some(bytes + ") && cuda.contains("peek(at + "));
    for (stage, program) in [("tile", tile), ("thread", thread)] {
        let run_at = |at: &[i32], bytes: usize| {
            let mut args = vec![Arg::Buffer(Global::new(at).bytes), Arg::Buffer(vec![0; bytes]), Arg::Buffer(vec![0; 8])];
            run(&program, [1, 1, 1], &mut args).map(|()| args.pop())
        };
        assert_eq!(run_at(&[16, 32], 48).unwrap(), Some(Arg::Buffer(seen.bytes.clone())), "{stage}");
        assert!(run_at(&[16, 32], 47).is_err() && run_at(&[8, 32], 48).is_err() && run_at(&[-16, 32], 48).is_err(), "{stage}");
    }
}
