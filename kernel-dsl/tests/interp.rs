//! The interpreter: its arithmetic is Rust's, and both stages agree on random programs.

use kernel_dsl::build::{B, V};
use kernel_dsl::ir::interp::{Arg, run, run_seeded};
use kernel_dsl::ir::{BinOp, Par, Program};
use kernel_dsl::passes;
use kernel_dsl::prelude::*;
use kernel_dsl::tile::launch;
use std::cell::Cell;

/// A block of two warps.
struct Pair;

impl Meta for Pair {
    fn launch(&self) -> Launch {
        Launch { warps: 2, min_blocks: 1 }
    }
}

/// splitmix64
struct Random(Cell<u64>);

impl Random {
    fn bits(&self) -> u64 {
        self.0.set(self.0.get().wrapping_add(0x9e37_79b9_7f4a_7c15));
        let a = (self.0.get() ^ self.0.get() >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let b = (a ^ a >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        b ^ b >> 31
    }
    fn below(&self, n: u64) -> u64 {
        self.bits() % n
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

// Arithmetic.

/// One result an operation, 46 a thread.
#[kernel]
fn arithmetic(_m: Pair, x: &Global<f32>, y: &Global<f32>, out: &mut Global<u32>, halves: &mut Global<f16>, brains: &mut Global<bf16>, wide: &mut Global<i64>, n: i32) {
    for i in threads(n) {
        let (a, b) = (x.at(i), y.at(i));
        let (u, v) = (a.to_bits(), b.to_bits());
        let (s, t) = (u as i32, v as i32);
        let floats = [
            a + b,
            a - b,
            a * b,
            a / b,
            -a,
            a.abs(),
            a.sqrt(),
            a.floor(),
            a.ceil(),
            a.round_ties_even(),
            a.mul_add(b, a),
            fmax(a, b),
            fmin(a, b),
            s as f32,
            u as f32,
            (s as i64 * t as i64) as f32,
            exp2(if a.abs() < 100.0_f32 { a } else { 1.0_f32 }),
            exp2_raised(if a < 100.0_f32 { a } else { 1.0_f32 }),
            farther(a, b),
            greater(a, b),
            lesser(a, b),
        ];
        for k in 0..21 {
            out.put(i * 55_i32 + k as i32, floats[k].to_bits());
        }
        let ints = [
            u.wrapping_add(v),
            u.wrapping_sub(v),
            u.wrapping_mul(v),
            u / 77_u32,
            u % 77_u32,
            u & v,
            u | v,
            u ^ v,
            u << (v & 31_u32),
            u >> (v & 31_u32),
            mul_hi(u, v),
            dot4(u, v),
            popc(u),
            funnel(u, v, 13),
            (s / 10_i32) as u32,
            (s % 10_i32) as u32,
            (s >> (v & 31_u32)) as u32,
            s.max(t) as u32,
            s.min(t) as u32,
            (a as i32) as u32,
            a as u32,
            (u as u8) as u32,
            (if (s < t) & !(a > b) { 1_u32 } else { 2_u32 }),
            pick(u, v, u ^ (v >> 7)),
            opaque(u),
            mul_bf16x2(u & 0xbfff_bfff_u32, v & 0xbfff_bfff_u32),
            min_u16x2(u, v),
            max_u16x2(u, v),
            add_dot4(u, v, u ^ (v >> 9)),
            shifted_out(u, v & 63_u32),
            shifted_out(u, v),
            add_squares_bf16x2(u, v & 0xbfff_bfff_u32),
            greater_bf16x2(u & 0xbfff_bfff_u32, v & 0xbfff_bfff_u32),
            lesser_bf16x2(u & 0xbfff_bfff_u32, v & 0xbfff_bfff_u32),
        ];
        for k in 0..34 {
            out.put(i * 55_i32 + (21 + k) as i32, ints[k]);
        }
        halves.put(i, f16::from_f32(a));
        brains.put(i, bf16::from_f32(a));
        wide.put(i, ((s as i64 * t as i64) >> 7_i64).wrapping_add(a as i64));
    }
}

#[test]
fn arithmetic_is_that_of_rust() {
    let random = Random(Cell::new(1));
    let special = [0.0, -0.0, 1.5, 2.5, -2.5, f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 3e9, -3e9, 1e-40, 65519.9, 65520.0, 1e20, f32::MAX, 0.1];
    let number = |i: usize| if i < 256 { special[i % 16] } else { f32::from_bits(random.bits() as u32) };
    let x: Vec<f32> = (0..2000).map(number).collect();
    let y: Vec<f32> = (0..2000).map(|i| if i < 256 { special[i / 16] } else { number(i) }).collect();
    let (gx, gy) = (Global::new(&x), Global::new(&y));
    let (mut out, mut halves, mut brains, mut wide) = (Global::<u32>::zeroed(110_000), Global::<f16>::zeroed(2000), Global::<bf16>::zeroed(2000), Global::<i64>::zeroed(2000));
    launch([1, 1, 1], || arithmetic(Pair, &gx, &gy, &mut out, &mut halves, &mut brains, &mut wide, 2000));
    let tile = arithmetic::build(&Pair).unwrap();
    for p in [tile.clone(), passes::simplify::run(tile.clone()), passes::run(&tile).unwrap()] {
        let mut args = vec![buffer(&x), buffer(&y), buffer(&[0_u32; 110_000]), buffer(&[0_u16; 2000]), buffer(&[0_u16; 2000]), buffer(&[0_i64; 2000]), Arg::Scalar(2000)];
        run(&p, [1, 1, 1], &mut args).unwrap();
        let nan = |bits: u32| f32::from_bits(bits).is_nan();
        for (i, (a, b)) in values::<u32>(&args[2]).into_iter().zip(out.to_vec()).enumerate() {
            let same = a == b || i % 55 < 21 && nan(a) && nan(b);
            assert!(same, "operation {} of {} and {}: {a:08x}, Rust has {b:08x}", i % 55, x[i / 55], y[i / 55]);
        }
        assert_eq!(values::<u16>(&args[3]), halves.to_vec().iter().map(|h| h.to_bits()).collect::<Vec<_>>());
        assert_eq!(values::<u16>(&args[4]), brains.to_vec().iter().map(|h| h.to_bits()).collect::<Vec<_>>());
        assert_eq!(values::<i64>(&args[5]), wide.to_vec());
    }
}

/// What a nested array held stays, whatever its variable becomes.
#[kernel]
fn nested(_m: Pair, x: &Global<i32>, out: &mut Global<i32>) {
    for i in threads(64) {
        let mut pairs = [[x.at(i), 1_i32], [2_i32, 3_i32]];
        for turn in strided(0_i32, 3_i32, 1) {
            let before = pairs;
            pairs = [[before[1][1], turn], [before[0][0] + 10_i32, before[0][1]]];
            out.put(i, before[0][0] * 100_i32 + before[1][1] + out.at(i));
        }
    }
}

#[test]
fn nested_arrays_are_copied() {
    let x: Vec<i32> = (0..64).collect();
    let (input, mut want) = (Global::new(&x), Global::<i32>::zeroed(64));
    launch([1, 1, 1], || nested(Pair, &input, &mut want));
    assert_eq!(want.at(5), 500 + 3 + 300 + 1 + 100);
    let tile = nested::build(&Pair).unwrap();
    for program in [passes::run(&tile).unwrap(), tile] {
        let mut args = vec![buffer(&x), buffer(&vec![0_i32; 64])];
        run(&program, [1, 1, 1], &mut args).unwrap();
        assert_eq!(values::<i32>(&args[1]), want.to_vec());
    }
}

// Random programs: branches and loops that differ from thread to thread.

const VARS: usize = 3;

fn expression(b: &B, r: &Random, vars: &[V], depth: u32) -> V {
    let part = || expression(b, r, vars, depth - 1);
    let int = |n: i32| b.typed(V::Int(i64::from(n)), DType::I32);
    if depth == 0 {
        return if r.below(4) == 0 { int(r.bits() as i32) } else { b.get(&vars[r.below(VARS as u64) as usize]) };
    }
    let ops = [BinOp::Add, BinOp::Sub, BinOp::Mul, BinOp::And, BinOp::Or, BinOp::Xor, BinOp::Max, BinOp::Min];
    match r.below(12) {
        n @ 0..8 => b.binary(ops[n as usize], part(), part()),
        8 => b.binary(BinOp::Rem, part(), V::Int(1 + r.below(99) as i64)),
        9 => b.binary(BinOp::Shr, part(), V::Int(r.below(32) as i64)),
        10 => {
            let float = b.cast(part(), DType::F32);
            b.cast(b.binary(BinOp::Mul, float.clone(), float), DType::I32)
        }
        _ => {
            let (x, y) = (part(), part());
            b.if_else(b.binary(BinOp::Lt, x.clone(), y.clone()), &|| y.clone(), &|| x.clone())
        }
    }
}

fn statements(b: &B, r: &Random, vars: &[V], depth: u32) -> V {
    for _ in 0..1 + r.below(3) {
        match r.below(4) {
            0 if depth > 0 => {
                let cond = b.binary(BinOp::Gt, expression(b, r, vars, 1), expression(b, r, vars, 1));
                b.if_else(cond, &|| statements(b, r, vars, depth - 1), &|| statements(b, r, vars, depth - 1));
            }
            1 if depth > 0 => {
                let turns = b.binary(BinOp::And, expression(b, r, vars, 1), V::Int(3));
                b.for_range(V::Int(0), turns, &|i| {
                    b.assign(&vars[0], b.binary(BinOp::Add, b.get(&vars[0]), i));
                    statements(b, r, vars, depth - 1);
                });
            }
            _ => {
                b.assign(&vars[r.below(VARS as u64) as usize], expression(b, r, vars, 2));
            }
        }
    }
    V::Unit
}

fn random_program(r: &Random, n: usize) -> Program {
    let b = B::new("random", 2, 1);
    let (x, y) = (b.buffer("x", DType::I32, false), b.buffer("y", DType::I32, true));
    let at = |i: &V, k: usize| b.binary(BinOp::Add, b.binary(BinOp::Mul, i.clone(), V::Int(VARS as i64)), V::Int(k as i64));
    b.for_parallel(Par::Threads, V::Int(n as i64), &|i| {
        let vars: Vec<V> = (0..VARS).map(|k| b.var(b.method("at", &x, vec![at(&i, k)]))).collect();
        statements(&b, r, &vars, 3);
        for (k, v) in vars.iter().enumerate() {
            b.method("put", &y, vec![at(&i, k), b.get(v)]);
        }
    });
    b.finish().unwrap()
}

#[test]
fn stages_agree_on_random_programs() {
    const N: usize = 90;
    for seed in 0..300 {
        let r = Random(Cell::new(seed));
        let tile = random_program(&r, N);
        let x: Vec<i32> = (0..N * VARS).map(|_| r.bits() as i32 >> r.below(32)).collect();
        let simple = passes::simplify::run(tile.clone());
        let thread = passes::run(&tile).unwrap();
        let results = [&tile, &simple, &thread].map(|p| {
            let mut args = vec![buffer(&x), buffer(&vec![0_i32; N * VARS])];
            run_seeded(p, [1, 1, 1], &mut args, seed).unwrap_or_else(|trap| panic!("seed {seed}: {trap}"));
            values::<i32>(&args[1])
        });
        assert_eq!(results[0], results[1], "seed {seed}: simplify changed the program");
        assert_eq!(results[0], results[2], "seed {seed}: thread IR differs");
    }
}

// Values by turn.

/// Each turn keeps two numbers over a loop of others, which may see only what is shared.
#[kernel]
fn kept_over(_m: Pair, x: &Global<i32>, out: &mut Global<i32>) {
    let mut own = by_turn::<i32>(64, 2);
    let mut all = shared::<i32>(64);
    for i in threads(64) {
        own.put(i, 0, x.at(i));
        own.put(i, 1, i);
        if x.at(i) < 0_i32 {
            own.put(i, 1, -1_i32);
        }
        all.put(63_i32 - i, x.at(i));
    }
    for i in threads(64) {
        own.put(i, 0, own.at(i, 0) + all.at(i));
    }
    for i in threads(64) {
        for k in 0..2 {
            out.put(i * 2_i32 + k as i32, own.at(i, k));
        }
    }
}

#[test]
fn turns_keep_their_own() {
    let x: Vec<i32> = (0..64).map(|i| 7 * i - 100).collect();
    let want: Vec<i32> = (0..64).flat_map(|i| [x[i] + x[63 - i], if x[i] < 0 { -1 } else { i as i32 }]).collect();
    let (gx, mut gy) = (Global::new(&x), Global::<i32>::zeroed(128));
    launch([1, 1, 1], || kept_over(Pair, &gx, &mut gy));
    assert_eq!(gy.to_vec(), want, "Rust");
    let tile = kept_over::build(&Pair).unwrap();
    for (stage, p) in [("tile", passes::simplify::run(tile.clone())), ("thread", passes::run(&tile).unwrap())] {
        for seed in 0..5 {
            let mut args = vec![buffer(&x), buffer(&[0_i32; 128])];
            run_seeded(&p, [1, 1, 1], &mut args, seed).unwrap_or_else(|trap| panic!("{stage}: {trap}"));
            assert_eq!(values::<i32>(&args[1]), want, "{stage} IR");
        }
    }
}

/// What nobody put there is no value.
#[kernel]
#[allow(dead_code)]
fn kept_nothing(_m: Pair, out: &mut Global<i32>) {
    let own = by_turn::<i32>(64, 1);
    for i in threads(64) {
        out.put(i, own.at(i, 0));
    }
}

#[test]
fn what_no_turn_kept_is_undefined() {
    let mut args = vec![buffer(&[0_i32; 64])];
    assert!(run_seeded(&kept_nothing::build(&Pair).unwrap(), [1, 1, 1], &mut args, 1).is_err());
}

/// Words of turns are a left operand of their warp, and its product is theirs.
#[kernel]
fn kept_by_lanes(_m: Pair, x: &Global<u32>, y: &Global<i8>, out: &mut Global<i32>) {
    let mut own = by_turn::<u32>(64, 10);
    let mut sums = by_turn::<i32>(64, 5);
    for i in warpwise(64) {
        for n in 0..8 {
            own.put(i, 2 + n, x.at(i * 8_i32 + n as i32));
        }
    }
    for w in warps(2) {
        sums.put_acc(w, 1, &mma(&own.left(w, 2, 64), &y.operand::<i8>(0, 64, 8, 64), 0_i32));
    }
    for i in threads(64) {
        for n in 0..4 {
            out.put(i * 4_i32 + n as i32, sums.at(i, 1 + n));
        }
    }
}

#[test]
fn what_turns_keep_passes_the_tensor_core() {
    let random = Random(Cell::new(5));
    let x: Vec<u32> = (0..64 * 8).map(|_| random.bits() as u32).collect();
    let y: Vec<i8> = (0..8 * 64).map(|_| random.bits() as i8).collect();
    let mut want = vec![0_i32; 64 * 4];
    for (w, row, col) in (0..2 * 16 * 8).map(|i| (i / 128, i / 8 % 16, i % 8)) {
        // Lane (g, t) has rows 2g and 2g + 1 and of each a quarter, in words of turns: pairs of words of a row.
        let byte = |k: usize| {
            let (t, j) = (k / 16, k % 16);
            let word = x[(32 * w + row / 2 * 4 + t) * 8 + j / 4 * 2 + row % 2];
            i32::from((word >> (8 * (j % 4))) as u8 as i8)
        };
        want[(32 * w + row / 2 * 4 + col / 2) * 4 + row % 2 * 2 + col % 2] = (0..64).map(|k| byte(k) * i32::from(y[col * 64 + k])).sum();
    }
    let (gx, gy, mut out) = (Global::new(&x), Global::new(&y), Global::<i32>::zeroed(256));
    launch([1, 1, 1], || kept_by_lanes(Pair, &gx, &gy, &mut out));
    assert_eq!(out.to_vec(), want, "Rust");
    let tile = kept_by_lanes::build(&Pair).unwrap();
    for (stage, p) in [("tile", passes::simplify::run(tile.clone())), ("thread", passes::run(&tile).unwrap())] {
        let mut args = vec![buffer(&x), buffer(&y), buffer(&[0_i32; 256])];
        run_seeded(&p, [1, 1, 1], &mut args, 3).unwrap_or_else(|trap| panic!("{stage}: {trap}"));
        assert_eq!(values::<i32>(&args[2]), want, "{stage} IR");
    }
}

/// Behind such a loop other warps' turns may still be under way.
#[kernel]
#[allow(dead_code)]
fn met_warpwise(m: Met, out: &mut Global<i32>) {
    let mut all = shared::<i32>(64);
    for i in warpwise(64) {
        all.put(i, i);
    }
    for i in threads(64) {
        out.put(i, all.at(i ^ m.by as i32));
    }
}

#[derive(Clone, Copy)]
struct Met {
    by: usize,
}

impl Meta for Met {
    fn launch(&self) -> Launch {
        Launch { warps: 2, min_blocks: 1 }
    }
}

#[test]
fn only_a_warp_waits_behind_warpwise_turns() {
    for (by, fine) in [(31, true), (63, false)] {
        let mut args = vec![buffer(&[0_i32; 64])];
        let ran = run_seeded(&passes::run(&met_warpwise::build(&Met { by }).unwrap()).unwrap(), [1, 1, 1], &mut args, 1);
        assert_eq!(ran.is_ok(), fine, "turns {by} apart");
    }
}
