//! Faults of single numbers.

use crate::*;

const HERE: Here = Here { file: file!(), text: include_str!("numbers.rs") };

#[kernel]
pub fn untyped(m: M, out: &mut Global<i32>) {
    let mut x = m.n; // untyped
    x = x + 1;
    out.put(0, x as i32);
}

#[kernel]
pub fn divisor(_m: M, out: &mut Global<i32>, n: i32, k: i32) {
    let half = n / 2_i32;
    out.put(
        0,
        half + (n / k), // divisor
    );
}

#[kernel]
pub fn shift(_m: M, out: &mut Global<i32>, n: i32) {
    out.put(0, 1_i32 << (n & 31_i32));
    out.put(1, 1_i32 << (n & 32_i32)); // shift
}

#[kernel]
pub fn narrow(_m: M, out: &mut Global<u8>, x: f32) {
    out.put(0, x as i32 as u8);
    out.put(1, x as u8); // narrow
}

#[kernel]
pub fn larger(_m: M, out: &mut Global<f32>, x: f32, n: i32) {
    let y = n.max(0_i32) as f32;
    let z = fmax(
        y,
        x.max(y), // larger
    );
    out.put(0, z);
}

#[kernel]
pub fn unknown(_m: M, out: &mut Global<u32>, n: u32) {
    out.put(0, n.leading_zeros()); // unknown
}

#[test]
fn blame_their_lines() {
    let m = &M { n: 4 };
    HERE.blames(untyped::build(m), "untyped", "the type of this number is not known here; give it a suffix, as in `1_i32`, or convert it with `as`");
    HERE.blames(divisor::build(m), "divisor", "integer division needs a divisor known when the kernel is built; compute it from the meta value, or multiply by a reciprocal the caller passes");
    HERE.blames(shift::build(m), "shift", "a shift count must be a constant or masked to the width; write `a << (n & 31)`");
    HERE.blames(narrow::build(m), "narrow", "a float becomes u8 only after you say what happens outside its range; clamp it, then write `as i32 as u8`");
    HERE.blames(larger::build(m), "larger", "`.max()` leaves the sign of zero open; write `if a < b { b } else { a }` or use `fmax`");
    HERE.blames(unknown::build(m), "unknown", "`.leading_zeros()` has no device form on u32; see the list of operations in `kernel_dsl::prelude`");
}

#[test]
fn of_two_types_do_not_mix() {
    let words = "`Add` takes two values of one type, not i32 and u32; convert one with `as`";
    by_hand(|b| drop(b.binary(BinOp::Add, b.typed(V::Int(1), DType::I32), b.typed(V::Int(1), DType::U32))), words);
}
