//! Values that travel together: `#[device]` on a struct.

use kernel_dsl::ir::Param;
use kernel_dsl::ir::interp::{Arg, run};
use kernel_dsl::prelude::*;
use kernel_dsl::tile::launch;

#[derive(Clone, Copy)]
struct Shape {
    d: usize,
}

impl Meta for Shape {
    fn launch(&self) -> Launch {
        Launch { warps: 1, min_blocks: 1 }
    }
}

/// Rows of a tensor.
#[device]
struct Rows<T: Float> {
    base: Global<T>, // [tokens, d], strided
    stride: i32,
}

/// What a kernel gives.
#[device]
struct Sums {
    #[out]
    of: Global<f32>,
    #[out]
    count: Global<i32>,
    by: f32,
}

/// A row's extremes and where it lies: made, chosen and changed on the device.
#[device]
#[derive(Clone, Copy)]
struct Range {
    low: f32,
    high: f32,
}

#[device]
fn first<T: Float>(rows: &Rows<T>, token: i32) -> f32 {
    rows.base.at(token * rows.stride).to_f32()
}

#[device]
fn wider(range: Range, x: f32) -> Range {
    if x < range.low {
        Range { low: x, high: range.high }
    } else {
        // In another order, and of a value of its own.
        Range { high: fmax(range.high, x), low: range.low }
    }
}

/// Changed in place, by a function that a function calls.
#[device]
fn lift(range: &mut Range, by: f32) {
    range.high = range.high + by;
}

#[device]
fn lift_twice(range: &mut Range, by: f32) {
    lift(range, by);
    lift(range, by);
}

#[device]
fn add(sums: &mut Sums, i: i32, range: &Range) {
    sums.of.put(i, (range.high - range.low) * sums.by);
    sums.count.put(i, 1_i32);
}

/// Arguments that a kernel took one by one, together.
#[device]
struct Cache<'a> {
    rows: &'a Global<f32>, // [rows, 32]
    least: &'a mut Global<f32>,
    stride: i32,
}

/// What a walk over rows has so far: tiles that functions change in place.
#[device]
#[derive(Clone)]
struct Walk {
    sums: [Tile<f32>; 2],
    least: f32,
    rows: i32,
}

#[device]
fn add_row(cache: &Cache, walk: &mut Walk, row: i32) {
    let x = cache.rows.row(row * cache.stride, 32);
    for i in 0..2 {
        walk.sums[i] = &walk.sums[i] + &(&x * (i as i32 as f32 + 1.0_f32));
    }
    walk.least = fmin(walk.least, cache.rows.at(row * cache.stride));
    walk.rows = walk.rows + 1_i32;
}

/// Every third row ends a walk; a fresh one begins.
#[device]
fn end_walk(cache: &mut Cache, walk: &mut Walk, out: &mut Global<f32>, at: i32) {
    for i in 0..2 {
        out.put_row((2_i32 * at + i as i32) * 32_i32, &walk.sums[i]);
    }
    cache.least.put(at, walk.least + walk.rows as f32);
    *walk = fresh();
}

#[device]
fn fresh() -> Walk {
    Walk { sums: [vector(32, 0.0_f32), vector(32, 0.0_f32)], least: 1.0e9_f32, rows: 0_i32 }
}

#[kernel]
fn thirds(_m: Shape, rows: &Global<f32>, out: &mut Global<f32>, least: &mut Global<f32>, stride: i32, count: i32) {
    let mut cache = Cache { rows, stride, least };
    for w in warps(1) {
        let mut walk = Walk { sums: [vector(32, 0.0_f32), vector(32, 0.0_f32)], least: 1.0e9_f32, rows: 0_i32 };
        for row in strided(w, count, 1) {
            add_row(&cache, &mut walk, row);
            if row % 3_i32 == 2_i32 {
                end_walk(&mut cache, &mut walk, out, row / 3_i32);
            }
        }
    }
}

#[test]
fn state_of_a_loop_is_a_struct() {
    let (count, stride) = (9, 40);
    let rows: Vec<f32> = (0..count * stride).map(|i| ((i * i * 31) % 17) as f32 - 8.0).collect();
    let (mut out, mut least) = (Global::zeroed(2 * 3 * 32), Global::zeroed(3));
    launch([1, 1, 1], || thirds(Shape { d: 0 }, &Global::new(&rows), &mut out, &mut least, stride as i32, count as i32));
    for third in 0..3 {
        let own = |row: usize, e: usize| rows[(3 * third + row) * stride + e];
        for e in 0..32 {
            let sum = own(0, e) + own(1, e) + own(2, e);
            assert_eq!((out.at((2 * third * 32 + e) as i32), out.at(((2 * third + 1) * 32 + e) as i32)), (sum, 2.0 * sum), "third {third}, element {e}");
        }
        assert_eq!(least.at(third as i32), own(0, 0).min(own(1, 0)).min(own(2, 0)) + 3.0);
    }
    let poison = |len: usize| Arg::Buffer(vec![0xee; 4 * len]);
    let program = thirds::build(&Shape { d: 0 }).unwrap();
    assert_eq!(program.params.len(), 5, "a struct of references adds no arguments");
    for program in [&program, &kernel_dsl::passes::run(&program).unwrap()] {
        let mut args = vec![Arg::Buffer(Global::new(&rows).bytes), poison(2 * 3 * 32), poison(3), Arg::Scalar(stride as u64), Arg::Scalar(count as u64)];
        run(program, [1, 1, 1], &mut args).unwrap();
        let bytes = |i: usize| match &args[i] {
            Arg::Buffer(b) => b.clone(),
            Arg::Scalar(_) => panic!("a buffer"),
        };
        assert_eq!((bytes(1), bytes(2)), (out.bytes.clone(), least.bytes.clone()));
    }
}

#[kernel]
fn spread<T: Float>(m: Shape, x: &Rows<T>, y: &Rows<f32>, sums: &mut Sums, tokens: i32) {
    for i in threads(32) {
        if i < tokens {
            let mut range = Range { low: first::<T>(x, i), high: first::<T>(x, i) };
            for k in 0..m.d as i32 {
                range = wider(range, x.base.at(i * x.stride + k).to_f32());
                lift_twice(&mut range, y.base.at(i * y.stride));
            }
            add(sums, i, &range);
        }
    }
}

#[test]
fn fields_are_arguments_in_order() {
    let program = spread::build::<bf16>(&Shape { d: 4 }).unwrap();
    let names: Vec<&str> = program
        .params
        .iter()
        .map(|p| match p {
            Param::Buffer { name, .. } | Param::Scalar { name, .. } => name.as_str(),
        })
        .collect();
    assert_eq!(names, ["x_base", "x_stride", "y_base", "y_stride", "sums_of", "sums_count", "sums_by", "tokens"]);
    let written: Vec<bool> = program
        .params
        .iter()
        .filter_map(|p| match p {
            Param::Buffer { writable, .. } => Some(*writable),
            Param::Scalar { .. } => None,
        })
        .collect();
    assert_eq!(written, [false, false, true, true]);
}

#[test]
fn the_interpreter_does_what_rust_does() {
    let (tokens, stride, d) = (9, 7, 5);
    let x: Vec<f32> = (0..tokens * stride).map(|i| ((i * i * 31) % 17) as f32 - 8.0).collect();
    let y = vec![1.0_f32; tokens];
    let m = Shape { d };
    let rows = Rows { base: Global::new(&x), stride: stride as i32 };
    let others = Rows { base: Global::new(&y), stride: 1 };
    let mut sums = Sums { of: Global::zeroed(tokens), count: Global::zeroed(tokens), by: 0.5 };
    launch([1, 1, 1], || spread(m, &rows, &others, &mut sums, tokens as i32));
    for (i, row) in x.chunks(stride).enumerate() {
        let low = row[..d].iter().fold(f32::MAX, |a, x| a.min(*x));
        // The highest one is raised by 2 after each coordinate.
        let mut high = row[0];
        for x in &row[..d] {
            high = high.max(*x) + 2.0;
        }
        assert_eq!(sums.of.to_vec()[i], (high - low) * 0.5, "row {i}");
    }
    let poison = || Arg::Buffer(vec![0xee; 4 * tokens]);
    let scalar = |bits: u32| Arg::Scalar(u64::from(bits));
    let mut args = vec![Arg::Buffer(rows.base.bytes.clone()), scalar(stride as u32), Arg::Buffer(others.base.bytes.clone()), scalar(1), poison(), poison(), scalar(0.5_f32.to_bits()), scalar(tokens as u32)];
    run(&spread::build::<f32>(&m).unwrap(), [1, 1, 1], &mut args).unwrap();
    let bytes = |i: usize| match &args[i] {
        Arg::Buffer(b) => b.clone(),
        Arg::Scalar(_) => panic!("a buffer"),
    };
    assert_eq!(bytes(4), sums.of.bytes);
    assert_eq!(bytes(5), sums.count.bytes);
}
