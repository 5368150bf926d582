//! What a program must not do: each misuse stops the interpreter with its own message, at both stages.
#![allow(dead_code)] // the kernels here are built, their Rust functions never run

use kernel_dsl::ir::interp::{Arg, Clash, Trap, Wrong, run};
use kernel_dsl::ir::{Op, Program, Stmt};
use kernel_dsl::passes;
use kernel_dsl::prelude::*;

/// A block of two warps.
struct Pair;

impl Meta for Pair {
    fn launch(&self) -> Launch {
        Launch { warps: 2, min_blocks: 1 }
    }
}

fn buffer<T: Elem>(x: &[T]) -> Arg {
    Arg::Buffer(Global::new(x).bytes)
}

fn values<T: Elem>(arg: &Arg) -> Vec<T> {
    let Arg::Buffer(bytes) = arg else { panic!("a scalar") };
    let mut g = Global::<T>::zeroed(0);
    g.bytes = bytes.clone();
    g.to_vec()
}

fn both(tile: Program, args: &[Arg]) -> [Wrong; 2] {
    let thread = passes::run(&tile).unwrap();
    [tile, thread].map(|p| trap(&p, args).what)
}

fn trap(p: &Program, args: &[Arg]) -> Trap {
    run(p, [1, 1, 1], &mut args.to_vec()).expect_err("the program should trap")
}

#[kernel]
fn past_the_end(_m: Pair, out: &mut Global<i32>) {
    for i in threads(64) {
        out.put(i + 1_i32, i);
    }
}

#[kernel]
fn one_slot(_m: Pair, out: &mut Global<i32>) {
    let mut s = shared::<i32>(1);
    for i in threads(64) {
        s.put(0, i);
    }
    for i in threads(1) {
        out.put(i, s.at(0));
    }
}

#[kernel]
fn neighbours(_m: Pair, out: &mut Global<i32>) {
    let mut s = shared::<i32>(64);
    for i in threads(64) {
        s.put(i, i + 1_i32);
        out.put(i, s.at((i + 40_i32) % 64_i32));
    }
}

#[kernel]
fn neighbour_warps(_m: Pair, out: &mut Global<i32>) {
    let mut s = shared::<i32>(2);
    for w in warps(2) {
        s.put(w, w + 1_i32);
        out.put(w, s.at(1_i32 - w));
    }
}

#[kernel]
fn carried(_m: Pair, out: &mut Global<i32>) {
    let mut last = 0_i32;
    for i in threads(64) {
        last = i;
    }
    out.put(0, last);
}

#[kernel]
fn two_pages(_m: Pair, x: &Global<u8>, out: &mut Global<u32>) {
    let ring = ring(2, 16);
    for w in warps(1) {
        let first = ring.copy(x, 0_i64);
        let second = ring.copy(x, 16_i64);
        out.put(w, first.load::<u32>(0) + second.load::<u32>(0));
    }
}

#[kernel]
fn streamed(_m: Pair, x: &Global<u8>, out: &mut Global<u32>) {
    let ring = ring(2, 16);
    for w in warps(1) {
        let mut sum = 0_u32;
        for i in stream(0, 3, 1, 2) {
            let page = ring.copy(x, i as i64 * 16_i64);
            sum = sum + page.load::<u32>(0);
        }
        out.put(w, sum);
    }
}

/// As `streamed`, its first copy under way before; from byte `from` on, if `begun`.
#[kernel]
fn started(_m: Pair, x: &Global<u8>, out: &mut Global<u32>, from: i32, begun: i32) {
    let ring = ring(2, 16);
    for w in warps(1) {
        if begun > 0_i32 {
            ring.start(x, from as i64, 16_i32, 0);
        }
        out.put(w, 0_u32);
    }
    for w in warps(1) {
        let mut sum = 0_u32;
        for i in stream(0, 3, 1, 2) {
            let page = ring.copy(x, i as i64 * 16_i64);
            sum = sum + page.load::<u32>(0);
        }
        out.put(w, sum);
    }
}

/// Copies `bytes`, reads the word at byte `at`.
#[kernel]
fn sized(_m: Pair, x: &Global<u8>, out: &mut Global<u32>, bytes: i32, at: i32) {
    let ring = ring(2, 32);
    for w in warps(1) {
        let mut sum = 0_u32;
        for i in stream(0, 2, 1, 2) {
            let page = ring.copy_some(x, i as i64 * 32_i64, bytes);
            sum = sum + page.load::<u32>(at);
        }
        out.put(w, sum);
    }
}

#[kernel]
fn odd_address(_m: Pair, x: &Global<u8>, out: &mut Global<u32>) {
    for i in threads(1) {
        out.put(i, x.load::<u32>(1));
    }
}

#[kernel]
fn never_written(_m: Pair, out: &mut Global<u32>) {
    let s = shared::<u32>(4);
    for i in threads(4) {
        out.put(i, s.at(i));
    }
}

/// Warp 0 streams; each warp leaves its sum.
#[kernel]
fn beside_a_stream(_m: Pair, x: &Global<u8>, out: &mut Global<u32>) {
    let ring = ring(2, 16);
    let mut sums = shared::<u32>(2);
    for w in warps(2) {
        let mut sum = 0_u32;
        for i in stream(0, (1_i32 - w) * 3_i32, 1, 2) {
            let page = ring.copy(x, i as i64 * 16_i64);
            sum = sum + page.load::<u32>(0);
        }
        sums.put(w, sum);
    }
    for i in threads(2) {
        out.put(i, sums.at(i));
    }
}

#[test]
fn an_access_outside_says_where() {
    let tile = past_the_end::build(&Pair).unwrap();
    let wrong = Wrong::OutOfBounds { buffer: "out".into(), at: 256, size: 4, len: 256 };
    assert_eq!(both(tile.clone(), &[buffer(&[0_i32; 64])]), [wrong.clone(), wrong]);
    let text = trap(&tile, &[buffer(&[0_i32; 64])]).to_string();
    let start = format!("4 bytes at byte 256 are outside `out` of 256 bytes; check the index\n  --> {}:", file!());
    assert!(text.starts_with(&start), "{text}");
}

#[test]
fn misaligned_accesses_trap() {
    let wrong = Wrong::Misaligned { buffer: "x".into(), at: 1, size: 4 };
    assert_eq!(both(odd_address::build(&Pair).unwrap(), &[buffer(&[0_u8; 16]), buffer(&[0_u32])]), [wrong.clone(), wrong]);
}

#[test]
fn races_trap() {
    let clash = |w: Wrong| if let Wrong::Race { clash, .. } = w { clash } else { panic!("{w}") };
    let zeros = [buffer(&[0_i32; 64])];
    assert_eq!(both(one_slot::build(&Pair).unwrap(), &zeros).map(clash), [Clash::Writes; 2]);
    assert_eq!(both(neighbours::build(&Pair).unwrap(), &zeros).map(clash), [Clash::ReadWrite; 2]);
    assert_eq!(both(neighbour_warps::build(&Pair).unwrap(), &zeros).map(clash), [Clash::ReadWrite; 2]);
    assert!(matches!(trap(&carried::build(&Pair).unwrap(), &zeros).what, Wrong::SharedVariable { .. }));
}

#[test]
fn an_array_laid_over_a_ring_races_with_its_copies() {
    let mut p = passes::run(&beside_a_stream::build(&Pair).unwrap()).unwrap();
    let args = [buffer(&[1_u8; 48]), buffer(&[7_u32; 2])];
    let mut apart = args.to_vec();
    run(&p, [1, 1, 1], &mut apart).unwrap();
    assert_eq!(values::<u32>(&apart[1]), [0x0303_0303, 0]);
    p.shared[0].offset = p.rings[0].offset;
    assert!(matches!(trap(&p, &args).what, Wrong::Race { .. }));
}

#[test]
fn a_page_lives_for_one_turn() {
    let args = [buffer(&[1_u8; 32]), buffer(&[0_u32])];
    assert_eq!(both(two_pages::build(&Pair).unwrap(), &args), [Wrong::StaleSlot { ring: 0 }, Wrong::StaleSlot { ring: 0 }]);
}

/// Applies `f` to every list of statements.
fn each_region(stmts: &mut Vec<Stmt>, f: &mut dyn FnMut(&mut Vec<Stmt>)) {
    f(stmts);
    for s in stmts {
        match &mut s.op {
            Op::If { then, other, .. } => [then, other].into_iter().for_each(|r| each_region(r, f)),
            Op::For { body, .. } | Op::ParFor { body, .. } => each_region(body, f),
            _ => {}
        }
    }
}

#[test]
fn rings_are_queues_of_bounded_length() {
    let args = [buffer(&[1_u8; 48]), buffer(&[0_u32])];
    let tile = streamed::build(&Pair).unwrap();
    let edited = |f: &mut dyn FnMut(&mut Vec<Stmt>)| {
        let mut piped = passes::pipeline::run(&tile).unwrap();
        each_region(&mut piped.body, f);
        let placed = passes::alloc_shared::run(piped.clone()).unwrap();
        [trap(&piped, &args).what, trap(&passes::lower::run(placed).unwrap(), &args).what]
    };
    let is = |s: &Stmt, fetch: bool| matches!(s.op, Op::RingFetch { .. }) && fetch || matches!(s.op, Op::RingWait { .. }) && !fetch;
    let without_fetches = edited(&mut |region| region.retain(|s| !is(s, true)));
    assert_eq!(without_fetches, [Wrong::RingEmpty { ring: 0 }, Wrong::RingEmpty { ring: 0 }]);
    let doubled = edited(&mut |region| *region = region.drain(..).flat_map(|s| if is(&s, true) { vec![s.clone(), s.clone(), s] } else { vec![s] }).collect());
    // A thread knows a copy's place before it is made.
    assert_eq!(doubled, [Wrong::RingFull { ring: 0, stages: 2 }, Wrong::RingOrder { ring: 0 }]);
    let unwaited = edited(&mut |region| region.retain(|s| !matches!(s.op, Op::For { .. })));
    assert_eq!(unwaited, [Wrong::RingLeft { ring: 0, copies: 1 }, Wrong::RingLeft { ring: 0, copies: 1 }]);
}

#[test]
fn copies_may_start_before_their_loop() {
    let words: Vec<u32> = (0..12).map(|i| 1 << i).collect();
    let args = |from: i32, begun: i32| [buffer(&words), buffer(&[0_u32]), Arg::Scalar(from as u64), Arg::Scalar(begun as u64)];
    let tile = started::build(&Pair).unwrap();
    let thread = passes::run(&tile).unwrap();
    for p in [&tile, &thread] {
        let mut args = args(0, 1).to_vec();
        run(p, [1, 1, 1], &mut args).unwrap();
        assert_eq!(values::<u32>(&args[1]), [0x111]);
    }
    // What was started is not what the loop copies; the loop relies on a start that was not made; nothing is there.
    assert_eq!(trap(&tile, &args(16, 1)).what, Wrong::RingOrder { ring: 0 });
    assert_eq!(trap(&thread, &args(0, 0)).what, Wrong::RingEmpty { ring: 0 });
    assert!(matches!(trap(&tile, &args(48, 1)).what, Wrong::OutOfBounds { .. }));
}

#[test]
fn copies_have_a_sound_size_and_end_where_they_end() {
    let args = |bytes: i32, at: i32| [buffer(&[1_u32; 16]), buffer(&[0_u32]), Arg::Scalar(bytes as u64), Arg::Scalar(at as u64)];
    let tile = sized::build(&Pair).unwrap();
    for p in [tile.clone(), passes::run(&tile).unwrap()] {
        let mut whole = args(32, 28).to_vec();
        run(&p, [1, 1, 1], &mut whole).unwrap();
        assert_eq!(values::<u32>(&whole[1]), [2]);
        let mut part = args(16, 12).to_vec();
        run(&p, [1, 1, 1], &mut part).unwrap();
        assert_eq!(values::<u32>(&part[1]), [2]);
        assert!(matches!(trap(&p, &args(16, 16)).what, Wrong::OutOfBounds { at: 16, len: 16, .. }));
        for bytes in [0, 8, 24, 48] {
            assert_eq!(trap(&p, &args(bytes, 0)).what, Wrong::CopySize { ring: 0, bytes: bytes.into(), most: 32 });
        }
    }
}

#[kernel]
fn two_turns(_m: Pair, out: &mut Global<i32>) {
    for i in threads(128) {
        out.put(i + 1_i32, i);
    }
}

#[test]
fn a_barrier_that_some_threads_miss_traps() {
    let mut p = passes::run(&two_turns::build(&Pair).unwrap()).unwrap();
    each_region(&mut p.body, &mut |region| {
        if let Some(s) = region.iter().find(|s| matches!(s.op, Op::Store { .. })).cloned() {
            region.push(Stmt { op: Op::Barrier, outs: vec![], span: s.span });
        }
    });
    // 128 iterations on 64 threads meet twice; the third turn of a longer loop does not.
    assert!(run(&p, [1, 1, 1], &mut [buffer(&[0_i32; 129])]).is_ok());
    each_region(&mut p.body, &mut |region| {
        region.iter_mut().for_each(|s| {
            if s.op == Op::Const(128) && matches!(s.outs[..], [id] if id < 2) {
                s.op = Op::Const(129)
            }
        })
    });
    assert_eq!(trap(&p, &[buffer(&[0_i32; 130])]).what, Wrong::Diverged { op: "Barrier".into() });
}

#[test]
fn what_nobody_wrote_is_poison() {
    let tile = never_written::build(&Pair).unwrap();
    for p in [tile.clone(), passes::run(&tile).unwrap()] {
        let mut args = [buffer(&[0_u32; 4])];
        run(&p, [1, 1, 1], &mut args).unwrap();
        assert_eq!(values::<u32>(&args[0]), [0xa5a5_a5a5; 4]);
    }
}

#[test]
fn a_value_that_was_never_computed_and_wrong_arguments_trap() {
    let mut p = past_the_end::build(&Pair).unwrap();
    let wrong = Wrong::Arguments { want: "(buffer)".into(), got: "(scalar)".into() };
    assert_eq!(trap(&p, &[Arg::Scalar(1)]).what, wrong);
    p.body.retain(|s| !matches!(s.op, Op::Const(_)));
    assert!(matches!(trap(&p, &[buffer(&[0_i32; 65])]).what, Wrong::Undefined { .. }));
}
