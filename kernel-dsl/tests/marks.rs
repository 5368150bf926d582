//! Which token of a page has which number, as left operands of the tensor core; and what it has along it.

use kernel_dsl::ir::interp::{Arg, run};
use kernel_dsl::passes;
use kernel_dsl::prelude::*;
use kernel_dsl::tile::launch;

#[derive(Clone, Copy)]
struct One;

impl Meta for One {
    fn launch(&self) -> Launch {
        Launch { warps: 1, min_blocks: 1 }
    }
}

/// Sums of the tokens' rows by their numbers, and the row of each token's number.
#[kernel]
fn sorts(_m: One, numbers: &Global<u8>, rows: &Global<u8>, sums: &mut Global<i32>, found: &mut Global<i32>) {
    let ring = ring(2, 32);
    for _ in warps(1) {
        for t in stream(0_i32, 2_i32, 1, 2) {
            let page = ring.copy(numbers, t as i64 * 32_i64);
            let x = rows.operand::<u8>(0, 32, 8, 32);
            sums.put_acc(t * 256_i32, 8, 1, 8, &mma(&page.marks(0), &x, 0_i32));
            found.put_acc(t * 256_i32, 8, 1, 8, &mma(&page.key_marks(0), &x, 0_i32));
        }
    }
}

#[test]
fn tokens_are_found_by_their_numbers() {
    let numbers: Vec<u8> = (0..64).map(|i| (i * i * 7 + i * 13) as u8).collect();
    let rows: Vec<u8> = (0..8 * 32).map(|i| (i * 59 % 251) as u8).collect();
    let (numbers, rows) = (Global::new(&numbers), Global::new(&rows));
    let (mut sums, mut found) = (Global::<i32>::zeroed(512), Global::<i32>::zeroed(512));
    launch([1, 1, 1], || sorts(One, &numbers, &rows, &mut sums, &mut found));
    for (page, number, col) in (0..2).flat_map(|p| (0..32).flat_map(move |n| (0..8).map(move |c| (p, n, c)))) {
        let own = |t: usize| usize::from(numbers.at(page * 32 + t)) % 32;
        let sum: i32 = (0..32).filter(|t| own(*t) == number).map(|t| i32::from(rows.at(col * 32 + t))).sum();
        assert_eq!(sums.at(page * 256 + number * 8 + col), 128 * sum);
        assert_eq!(found.at(page * 256 + number * 8 + col), 128 * i32::from(rows.at(col * 32 + own(number))));
    }
    let tile = sorts::build(&One).unwrap();
    for program in [passes::run(&tile).unwrap(), tile] {
        let mut args = [&numbers, &rows].map(|x| Arg::Buffer(x.bytes.clone())).to_vec();
        args.extend([(); 2].map(|()| Arg::Buffer(vec![0; 2048])));
        run(&program, [1, 1, 1], &mut args).unwrap();
        assert_eq!(args[2..], [&sums, &found].map(|x| Arg::Buffer(x.bytes.clone())));
    }
}

/// Each token's row of its number times what it has along it, and a row that is all tokens'.
#[kernel]
fn lengthens(_m: One, tokens: &Global<u8>, rows: &Global<u8>, found: &mut Global<f32>) {
    let ring = ring(2, 160);
    for _ in warps(1) {
        for t in stream(0_i32, 1_i32, 1, 2) {
            let page = ring.copy(tokens, t as i64);
            found.put_acc(0, 16, 1, 16, &mma(&page.key_lengths(128, 0), &rows.packed_right::<f16>(0, 16, 16), &rows.alike::<f32>(512, 32, 16)));
        }
    }
}

#[test]
fn tokens_have_lengths_along_their_numbers() {
    let halves = |x: &[f32]| x.iter().flat_map(|x| f16::from_f32(*x).to_le_bytes()).collect::<Vec<u8>>();
    let numbers: Vec<u8> = (0..32).map(|i| (i * i * 7 + i * 13) as u8).collect();
    let lengths: Vec<f32> = (0..32).map(|i| (i * 97 % 2000) as f32 - 700.0).collect();
    let tokens = [lengths.iter().flat_map(|x| halves(&[9.0, *x])).collect(), numbers.clone()].concat();
    let row = |k: usize, column: usize| ((k * 16 + column) * 59 % 251) as f32 - 99.0;
    let mut rows = vec![0; 640];
    (0..16).for_each(|c| [0, 8].iter().for_each(|twice| rows[512 + c / 2 * 16 + c % 2 * 4 + twice..][..4].copy_from_slice(&(7.0 - c as f32).to_le_bytes())));
    (0..256).for_each(|i| rows[kernel_dsl::pack::right_byte(32, 2 * (i / 16), i % 16)..][..2].copy_from_slice(&halves(&[row(i / 16, i % 16)])));
    let (tokens, rows, mut found) = (Global::<u8>::new(&tokens), Global::new(&rows), Global::<f32>::zeroed(512));
    launch([1, 1, 1], || lengthens(One, &tokens, &rows, &mut found));
    for (token, column) in (0..32).flat_map(|t| (0..16).map(move |c| (t, c))) {
        assert_eq!(found.at(token * 16 + column), 7.0 - column as f32 + lengths[token] * row(usize::from(numbers[token]) % 16, column), "token {token}, column {column}");
    }
    let tile = lengthens::build(&One).unwrap();
    for program in [passes::run(&tile).unwrap(), tile] {
        let mut args = [&tokens, &rows].map(|x| Arg::Buffer(x.bytes.clone())).to_vec();
        args.push(Arg::Buffer(vec![0; 2048]));
        run(&program, [1, 1, 1], &mut args).unwrap();
        assert_eq!(args[2], Arg::Buffer(found.bytes.clone()));
    }
}
