//! Products of four warps with what stays in shared memory: every stage gives the bytes of a plain sum, and what the device would not order or join
//! stops the run.

use kernel_dsl::Source;
use kernel_dsl::ir::Program;
use kernel_dsl::ir::interp::{Arg, Clash, Wrong, run};
use kernel_dsl::passes;
use kernel_dsl::prelude::*;
use kernel_dsl::tile::launch;

/// Rows of lines, bytes of a row, queries.
const ROWS: usize = 128;
const DEPTH: usize = 256;
const HEADS: usize = 32;

#[derive(Clone, Copy, PartialEq)]
enum Slip {
    None,
    /// No fence behind the queries.
    Fence,
    /// Rows are read before they are there.
    Early,
    /// Only three of four warps.
    Warps,
    /// Warps name different places.
    Places,
}

#[derive(Clone, Copy)]
struct M {
    together: usize,
    slip: Slip,
}

impl Meta for M {
    fn launch(&self) -> Launch {
        Launch { warps: 4, min_blocks: 1 }
    }
}

impl M {
    fn fenced(&self) -> bool {
        self.slip != Slip::Fence
    }

    fn waits(&self) -> bool {
        self.slip != Slip::Early
    }

    /// Warps that take part.
    fn most(&self) -> usize {
        if self.slip == Slip::Warps { 3 } else { 4 }
    }

    /// Bytes from the place of two warps to that of the next two.
    fn apart(&self) -> usize {
        if self.slip == Slip::Places { 128 } else { 0 }
    }
}

/// Queries in two bytes by rows, and rows' columns by what came of it.
#[kernel]
fn scored(m: M, queries: &Global<u8>, rows: &Global<u8>, sums: &mut Global<i32>, values: &mut Global<i32>) {
    let mut room = shared::<i8>(ROWS * DEPTH);
    let mut cores = shared::<i8>(2 * HEADS * DEPTH);
    let mut weights = shared::<u8>(2 * 16 * ROWS);
    let mut kept = by_warp::<i32>(4, 1, 8, 64);
    rows.prefetch(16);
    for i in threads(ROWS * DEPTH / 16) {
        let (row, piece) = (i / (DEPTH / 16) as i32, i % (DEPTH / 16) as i32);
        room.bring((piece >> 3_u32) * (128 * ROWS) as i32 + row * 128_i32 + (((piece ^ row) & 7_i32) << 4_u32), rows, i * 16_i32);
        if m.waits() {
            brought();
        }
        for_cores();
    }
    for i in threads(2 * HEADS * DEPTH / 16) {
        let (head, piece) = (i / (DEPTH / 8) as i32, i % (DEPTH / 8) as i32);
        let (low, core) = (piece & 1_i32, piece >> 1_u32);
        let w = queries.load4::<u32>(i * 16_i32);
        cores.save4::<u32>(((head >> 3_u32) * 2_i32 + low) * (8 * DEPTH) as i32 + core * 128_i32 + (head & 7_i32) * 16_i32, w);
        if m.fenced() {
            for_cores();
        }
    }
    for w in warps(4) {
        let x = mma_lines(&cores, w * (16 * DEPTH) as i32, 8 * DEPTH, &room, 8192, 128 * ROWS, DEPTH / 128, 64, m.together).fold_rows(128);
        kept.put(w, 0, &x);
        sums.put_acc(w * (8 * 64) as i32, 64, 1, 64, &x);
        if w < 2_i32 {
            for half in 0..2 {
                weights.put_cores(w * (8 * ROWS) as i32 + (64 * 8 * half) as i32, 0, &x);
                weights.put_cores((16 * ROWS) as i32 + w * (8 * ROWS) as i32 + (64 * 8 * half) as i32, 1, &x);
            }
        }
        for_cores();
    }
    for w in warps(4) {
        let columns = room.line_columns::<i8>(w * 16_i32);
        if w < m.most() as i32 {
            let at = (w >> 1_u32) * m.apart() as i32;
            values.put_acc(w * 256_i32, 16, 1, 16, &mma_shared(&columns, &weights, at, 8 * ROWS, 32, 5_i32).fold_cols(256));
            values.put_acc(1024_i32 + w * 128_i32, 8, 1, 8, &mma_shared(&columns, &weights, at, 8 * ROWS, 8, 0));
            values.put_acc(1536_i32 + w * 512_i32, 64, 1, 64, &kept.at(w, 0));
        }
    }
}

fn bytes(n: usize, seed: usize) -> Global<u8> {
    Global::new(&(0..n).map(|i| (i * i * 13 + i * 5 + i / 512 + seed) as u8).collect::<Vec<u8>>())
}

fn data() -> (Global<u8>, Global<u8>) {
    (bytes(2 * HEADS * DEPTH, 3), bytes(ROWS * DEPTH, 128))
}

fn interpreted(program: &Program, (queries, rows): &(Global<u8>, Global<u8>)) -> Result<Vec<Arg>, Wrong> {
    let mut args = vec![Arg::Buffer(queries.bytes.clone()), Arg::Buffer(rows.bytes.clone()), Arg::Buffer(vec![0; 4 * HEADS * 64]), Arg::Buffer(vec![0; 4 * 3584])];
    run(program, [1, 1, 1], &mut args).map_err(|trap| trap.what)?;
    Ok(args.split_off(2))
}

#[test]
fn every_stage_gives_the_plain_sums() {
    let both = data();
    let (queries, rows) = &both;
    let (mut sums, mut values) = (Global::<i32>::zeroed(HEADS * 64), Global::<i32>::zeroed(3584));
    launch([1, 1, 1], || scored(M { together: 4, slip: Slip::None }, queries, rows, &mut sums, &mut values));
    // Pieces of 16 bytes of a query: the higher ones, then the lower ones.
    let query = |head: usize, low: usize, k: usize| i32::from(queries.at(head * 2 * DEPTH + k / 16 * 32 + low * 16 + k % 16) as i8);
    let row = |row: usize, k: usize| i32::from(rows.at(row * DEPTH + k) as i8);
    let score = |head: usize, r: usize| (0..DEPTH).map(|k| (128 * query(head, 0, k) + query(head, 1, k)) * row(64 + r, k)).sum::<i32>();
    let all: Vec<i32> = (0..HEADS * 64).map(|i| score(i / 64, i % 64)).collect();
    assert_eq!(sums.to_vec(), all);
    let byte = |head: usize, token: usize, by: usize| all[head * 64 + token % 64] >> (8 * by) & 0xff;
    let value = |dim: usize, head: usize, by: usize| (0..ROWS).map(|t| row(t, dim) * byte(head, t, by)).sum::<i32>();
    let mut want: Vec<i32> = (0..64 * 16).map(|i| 256 * (value(i / 16, i % 16, 0) + 5) + value(i / 16, i % 16, 1) + 5).collect();
    want.extend((0..64 * 8).map(|i| value(i / 8, i % 8, 0)));
    want.extend(&all);
    assert_eq!(values.to_vec(), want);
    for together in [4, 1] {
        let tile = scored::build(&M { together, slip: Slip::None }).unwrap();
        for program in [passes::run(&tile).unwrap(), tile] {
            let found = interpreted(&program, &both).unwrap_or_else(|wrong| panic!("{wrong}"));
            assert!(found == [&sums, &values].map(|x| Arg::Buffer(x.bytes.clone())), "{together} together, lowered: {}", program.lowered);
        }
    }
}

#[test]
fn what_the_device_would_not_order_or_join_stops_the_run() {
    let both = data();
    let trapped = |slip: Slip| interpreted(&passes::run(&scored::build(&M { together: 4, slip }).unwrap()).unwrap(), &both).unwrap_err();
    assert!(matches!(trapped(Slip::Fence), Wrong::Race { clash: Clash::Core, .. }));
    assert!(matches!(trapped(Slip::Early), Wrong::Race { clash: Clash::Copy, .. }));
    assert_eq!(trapped(Slip::Warps), Wrong::Diverged { op: "MmaCores".into() });
    assert_eq!(trapped(Slip::Places), Wrong::Uneven { op: "MmaCores".into() });
}

#[test]
fn the_text_has_both_forms() {
    let text = |together| Source::of(&scored::build(&M { together, slip: Slip::None }).unwrap()).unwrap().cuda;
    let (four, alone) = (text(4), text(1));
    for text in [&four, &alone] {
        // A warp's number is the same in all its lanes, and the compiler is told so.
        assert!(text.contains("__shfl_sync(~0u, v"), "{text}");
        // Sums from 5 start there, those from 0 nowhere.
        assert!(text.contains("mma_s8u8_cores_1x32x4(") && text.contains("mma_s8u8_cores_1x8x4_anew("), "{text}");
        assert!(text.contains("wgmma.mma_async.sync.aligned.m64n32k32.s32.s8.u8") && text.contains("ldmatrix_x4(w0, w1, w2, w3, b +"), "{text}");
    }
    assert!(four.contains("m64n64k32.s32.s8.s8") && !alone.contains("m64n64k32"));
}
