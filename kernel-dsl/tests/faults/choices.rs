//! Faults of branches, loops and calls.

use crate::*;

const HERE: Here = Here { file: file!(), text: include_str!("choices.rs") };

#[kernel]
pub fn uneven(_m: M, a: &Global<f32>, b: &Global<f32>, out: &mut Global<f32>, n: i32) {
    let x = if n > 0_i32 { a } else { b }; // uneven
    out.put(0, x.at(0));
}

#[device]
fn kept(x: f32) -> f32 {
    let mut y = 0.0_f32;
    if x > 0.0_f32 {
        y = x; // impure
    }
    y
}

#[kernel]
pub fn impure(_m: M, x: &Global<f32>, out: &mut Global<f32>) {
    for _ in warps(1) {
        out.put_row(0, &x.row(0, 32).map(kept));
    }
}

#[device]
fn counted(n: i32) -> i32 {
    let mut y = 0_i32;
    for i in 0_i32..n { // bound
        y = y + i;
    }
    y
}

#[kernel]
pub fn bound(_m: M, x: &Global<i32>, out: &mut Global<i32>) {
    for _ in warps(1) {
        out.put_row(0, &x.row(0, 32).map(counted));
    }
}

#[device]
fn gathered(x: f32) -> f32 {
    let mut y = 0.0_f32;
    for _ in 0..2 {
        y = y + x; // gathered
    }
    y
}

#[kernel]
pub fn element(_m: M, x: &Global<f32>, out: &mut Global<f32>) {
    for _ in warps(1) {
        out.put_row(0, &x.row(0, 32).map(gathered));
    }
}

#[device]
fn even(n: i32) -> i32 {
    if n == 0_i32 { 1_i32 } else { odd(n - 1_i32) }
}

#[device]
fn odd(n: i32) -> i32 {
    if n == 0_i32 { 0_i32 } else { even(n - 1_i32) } // recursion
}

#[kernel]
pub fn recursion(_m: M, out: &mut Global<i32>, n: i32) {
    out.put(0, even(n));
}

#[kernel]
pub fn nested(_m: M, out: &mut Global<i32>) {
    for i in threads(8) {
        for w in warps(2) { // nested
            out.put(i, w);
        }
    }
}

#[kernel]
pub fn lanes_alone(_m: M, out: &mut Global<i32>) {
    for i in lanes(8) { // lanes_alone
        out.put(i, i);
    }
}

#[test]
fn blame_their_lines() {
    let m = &M { n: 4 };
    let inside = "this parallel loop stands inside another of its kind; use `lanes` inside `warps`, and `warps` or `threads` only at block level";
    HERE.blames(uneven::build(m), "uneven", "the branches of this `if` give values the device cannot choose between; let both give numbers or tiles of one type");
    HERE.blames(impure::build(m), "impure", "a condition that differs by element cannot guard an assignment, a store or a loop; compute both values and choose between them");
    HERE.blames(bound::build(m), "bound", "the bounds of this loop differ by element; loop to a bound that all share and choose by element inside");
    HERE.blames(element::build(m), "gathered", "this variable holds one number and is given one for each element; start it from an element, as in `x * 0.0_f32`");
    HERE.blames(recursion::build(m), "recursion", "device functions may not call themselves (`even` → `odd` → `even`); write a `for` loop");
    HERE.blames(nested::build(m), "nested", inside);
    HERE.blames(lanes_alone::build(m), "lanes_alone", inside);
}
