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

#[device]
fn both(x: &Global<u8>, at: i32) -> (i32, Tile<i8>) {
    (x.load::<i32>(at), x.operand::<i8>(at, 64, 8, 64))
}

/// Branches that read memory give a number and an operand.
#[kernel]
fn branched(_m: M, x: &Global<u8>, y: &Global<u8>, out: &mut Global<i32>, n: i32) {
    for _ in warps(1) {
        let (add, right) = if n > 0_i32 { both(x, 0_i32) } else { both(y, 64_i32) };
        out.put_acc(0, 8, 1, 8, &(mma(&x.packed_left::<i8>(0, 16, 64), &right, &acc(16, 8, 0_i32)) + add));
    }
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

/// Left operands in the order of the lanes' registers, signed bytes on both sides, a column's bytes stored as words.
#[kernel]
fn signed(_m: M, a: &Global<i8>, b: &Global<i8>, sums: &mut Global<i32>, bytes: &mut Global<i8>) {
    let mut column = shared::<i8>(8 * 48);
    for _ in warps(1) {
        let left: Tile<i8> = a.packed_left::<i8>(64, 32, 128);
        let product = mma(&left, &b.operand::<i8>(0, 128, 8, 128), 0_i32);
        sums.put_acc(0, 8, 1, 8, &product);
        column.put_acc(0, 1, 48, 8, &product.cast::<i8>());
        bytes.save_acc::<i8>(16, 1, 32, 3, &product.cast::<i8>());
    }
    for i in threads(256) {
        bytes.put(256_i32 + i, column.at(i / 32 * 48_i32 + i % 32));
    }
}

#[test]
fn signed_bytes_are_multiplied_exactly_from_packed_operands() {
    let byte = |i: usize| (i * i * 31 + i * 7 + 128) as u8 as i8;
    let (left, right): (Vec<i8>, Vec<i8>) = ((0..32 * 128).map(byte).collect(), (0..8 * 128).map(|i| byte(i + 77)).collect());
    let mut packed = vec![0_i8; 64 + 32 * 128];
    (0..32 * 128).for_each(|i| packed[64 + kernel_dsl::pack::left_byte(32, 128, i / 128, i % 128)] = left[i]);
    let sum = |row: usize, col: usize| (0..128).map(|k| i32::from(left[row * 128 + k]) * i32::from(right[col * 128 + k])).sum::<i32>();
    let want: Vec<i32> = (0..256).map(|i| sum(i / 8, i % 8)).collect();
    let mut bytes = vec![0_i8; 512];
    for (row, col) in (0..256).map(|i| (i / 8, i % 8)) {
        bytes[256 + col * 32 + row] = want[row * 8 + col] as i8;
        if col < 3 {
            bytes[16 + col * 32 + row] = want[row * 8 + col] as i8;
        }
    }
    let (a, b) = (Global::new(&packed), Global::new(&right));
    let (mut sums, mut out) = (Global::<i32>::zeroed(256), Global::<i8>::zeroed(512));
    launch([1, 1, 1], || signed(M, &a, &b, &mut sums, &mut out));
    assert_eq!((sums.bytes.clone(), out.bytes.clone()), (Global::new(&want).bytes, Global::new(&bytes).bytes));
    let tile = signed::build(&M).unwrap();
    for program in [kernel_dsl::passes::run(&tile).unwrap(), tile] {
        let mut args = [Arg::Buffer(a.bytes.clone()), Arg::Buffer(b.bytes.clone()), Arg::Buffer(vec![0; 1024]), Arg::Buffer(vec![0; 512])];
        run(&program, [1, 1, 1], &mut args).unwrap();
        assert!(args[2] == Arg::Buffer(sums.bytes.clone()) && args[3] == Arg::Buffer(out.bytes.clone()), "lowered: {}", program.lowered);
    }
}

/// Half bytes in words of eight, the first dims lowest.
#[device]
fn nibbles(code: [u32; 4]) -> [u32; 4] {
    let (even, odd) = (code[0] & 0x0f0f_0f0f_u32, (code[0] >> 4) & 0x0f0f_0f0f_u32);
    [pick(even, odd, 0x5140_u32), pick(even, odd, 0x7362_u32), 0_u32, 0_u32]
}

#[derive(Clone, Copy)]
struct Two;

impl Meta for Two {
    fn launch(&self) -> Launch {
        Launch { warps: 2, min_blocks: 1 }
    }
}

/// Each warp unpacks codes where they lie in memory and leaves them for the other; what it puts by outlasts the loop.
#[kernel]
fn passed_on(_m: Two, codes: &Global<u8>, b: &Global<i8>, sums: &mut Global<i32>) {
    let mut room = shared::<i32>(2 * 32 * 64 / 4);
    let mut by = put_by_warp::<i32>(2, 2, 32, 8);
    for w in warps(2) {
        let keys: Tile<u8> = codes.keys((16_i32 + w * 1024_i32) as i64, 32, 64, 8, |x| nibbles(x));
        room.save_left::<u8>(w * 2048_i32, &keys);
        by.put(w, 1_i32, &(acc(32, 8, 5_i32) + w));
    }
    for w in warps(2) {
        let other = room.packed_left::<u8>((1_i32 - w) * 2048_i32, 32, 64);
        sums.put_acc(w * 256_i32, 8, 1, 8, &mma(&other, &b.operand::<i8>(0, 64, 8, 64), &by.at(w, 1_i32)));
    }
}

#[test]
fn codes_unpacked_in_memory_pass_from_warp_to_warp() {
    let byte = |i: usize| (i * i * 29 + i * 11 + 3) as u8;
    let codes: Vec<u8> = (0..16 + 2 * 1024).map(byte).collect();
    let right: Vec<i8> = (0..8 * 64).map(|i| byte(i + 5) as i8).collect();
    let packing = kernel_dsl::ir::Packing { bits: 32, d: 64, feed: kernel_dsl::ir::Feed::Keys, lane: DType::U8, group: Default::default() };
    let lane = |w: usize, token: usize, dim: usize| (packing.code(&codes[16 + 1024 * w..], token, dim / 8)[0] >> (4 * (dim % 8)) & 15) as i32;
    let sum = |w: usize, token: usize, col: usize| (0..64).map(|k| lane(1 - w, token, k) * i32::from(right[col * 64 + k])).sum::<i32>();
    let want: Vec<i32> = (0..512).map(|i| 5 + (i / 256) as i32 + sum(i / 256, i % 256 / 8, i % 8)).collect();
    let (a, b, mut sums) = (Global::new(&codes), Global::new(&right), Global::<i32>::zeroed(512));
    launch([1, 1, 1], || passed_on(Two, &a, &b, &mut sums));
    assert_eq!(sums.to_vec(), want);
    let tile = passed_on::build(&Two).unwrap();
    for program in [kernel_dsl::passes::run(&tile).unwrap(), tile] {
        let mut args = [Arg::Buffer(a.bytes.clone()), Arg::Buffer(b.bytes.clone()), Arg::Buffer(vec![0; 2048])];
        run(&program, [1, 1, 1], &mut args).unwrap();
        assert!(args[2] == Arg::Buffer(sums.bytes.clone()), "lowered: {}", program.lowered);
    }
}

/// Two bytes of a row as neighbouring rows: left operands that become right ones, spread columns, and what is made of sums.
#[kernel]
fn two_by_two(_m: M, q: &Global<i8>, k: &Global<i8>, out: &mut Global<i32>, floats: &mut Global<f32>) {
    let mut room = shared::<i32>(2 * 32 * 128 / 4);
    let mut left = shared::<i8>(16 * 128);
    let mut sevens = shared::<i32>(36);
    for i in threads(36) {
        sevens.put(i, 7_i32 * (i - 4_i32));
    }
    for i in threads(512) {
        left.save::<u32>(i * 4_i32, q.load::<u32>((i * 4_i32) as i64));
    }
    for _ in warps(1) {
        room.save_spread::<i8>(0, &k.left(0, 128, 32, 128));
        room.save_right::<i8>(4096, &k.left(0, 32, 128, 32));
    }
    for w in warps(1) {
        let sums = mma(&left.left(0, 128, 16, 128), &room.packed_right::<i8>(0, 128, 32), 0_i32);
        let scores = sums.fold_rows(128) + &spread_ids() + &sevens.spread(4);
        out.put_acc(0, 32, 1, 32, &scores);
        out.put_rows(256, 1, &scores.max_cols());
        out.put_rows(264, 1, &scores.or_cols());
        out.put_rows(272, 1, &scores.max_cols().twice_rows());
        let both = scores.split_rows();
        out.put_acc(288, 8, 1, 8, &mma(&both, &right(32, 8, 1_u8), &acc(16, 8, 3_i32)).swap_rows());
        out.put_acc(416, 128, 1, 128, &mma(&left.left(0, 32, 16, 32), &room.packed_right::<i8>(4096, 32, 128), w));
        let (first, second) = scores.cast::<f32>().pair_sums();
        floats.put_acc(0, 8, 1, 8, &first);
        floats.put_acc(64, 8, 1, 8, &second);
        floats.put_acc(128, 32, 1, 32, &sums.cast::<f32>().fold_rows(3));
    }
}

#[test]
fn rows_two_by_two() {
    use kernel_dsl::pack::spread;
    let byte = |i: usize| (i * i * 37 + i * 13 + 100) as u8 as i8;
    let (q, k): (Vec<i8>, Vec<i8>) = ((0..16 * 128).map(byte).collect(), (0..32 * 128).map(|i| byte(i + 31)).collect());
    let dot = |row: usize, token: usize| (0..128).map(|d| i32::from(q[row * 128 + d]) * i32::from(k[token * 128 + d])).sum::<i32>();
    let score = |row: usize, token: usize| 128 * dot(2 * row, token) + dot(2 * row + 1, token) + 8 * token as i32;
    let (mut want, mut floats) = (vec![0; 416 + 16 * 128], vec![0.0_f32; 128 + 256]);
    for row in 0..8 {
        let of: Vec<i32> = (0..32).map(|token| score(row, token)).collect();
        for (token, x) in of.iter().enumerate() {
            want[row * 32 + spread(token)] = *x;
            floats[128 + row * 32 + spread(token)] = (dot(2 * row, token) as f32).mul_add(3.0, dot(2 * row + 1, token) as f32);
        }
        want[256 + row] = *of.iter().max().unwrap();
        want[264 + row] = of.iter().fold(0, |a, b| a | b);
        (0..2).for_each(|twice| want[272 + 2 * row + twice] = want[256 + row]);
        for col in 0..8 {
            want[288 + 16 * row + col] = 3 + of.iter().map(|x| x & 255).sum::<i32>();
            want[288 + 16 * row + 8 + col] = 3 + of.iter().map(|x| x >> 8 & 255).sum::<i32>();
            floats[8 * row + col] = of[4 * col] as f32 + of[4 * col + 1] as f32;
            floats[64 + 8 * row + col] = of[4 * col + 2] as f32 + of[4 * col + 3] as f32;
        }
    }
    for (row, col) in (0..16 * 128).map(|i| (i / 128, i % 128)) {
        want[416 + row * 128 + col] = (0..32).map(|d| i32::from(q[row * 32 + d]) * i32::from(k[col * 32 + d])).sum::<i32>();
    }
    let (a, b, mut out, mut real) = (Global::new(&q), Global::new(&k), Global::<i32>::zeroed(want.len()), Global::<f32>::zeroed(floats.len()));
    launch([1, 1, 1], || two_by_two(M, &a, &b, &mut out, &mut real));
    assert_eq!((out.to_vec(), real.to_vec()), (want, floats));
    let tile = two_by_two::build(&M).unwrap();
    for program in [kernel_dsl::passes::run(&tile).unwrap(), tile] {
        let mut args = [Arg::Buffer(a.bytes.clone()), Arg::Buffer(b.bytes.clone()), Arg::Buffer(vec![0; out.bytes.len()]), Arg::Buffer(vec![0; real.bytes.len()])];
        run(&program, [1, 1, 1], &mut args).unwrap();
        assert!(args[2] == Arg::Buffer(out.bytes.clone()) && args[3] == Arg::Buffer(real.bytes.clone()), "lowered: {}", program.lowered);
    }
}

#[test]
fn branches_give_operands_in_tuples() {
    let bytes = |seed: usize| Global::<u8>::new(&(0..2048).map(|i| ((i * 37 + seed) % 251) as u8).collect::<Vec<u8>>());
    let (x, y) = (bytes(3), bytes(8));
    let tile = branched::build(&M).unwrap();
    for program in [kernel_dsl::passes::run(&tile).unwrap(), tile] {
        for n in [0, 1] {
            let mut out = Global::<i32>::zeroed(128);
            launch([1, 1, 1], || branched(M, &x, &y, &mut out, n));
            let mut args = [Arg::Buffer(x.bytes.clone()), Arg::Buffer(y.bytes.clone()), Arg::Buffer(vec![0; 512]), word(n)];
            run(&program, [1, 1, 1], &mut args).unwrap();
            assert_eq!(args[2], Arg::Buffer(out.bytes.clone()));
        }
    }
}
