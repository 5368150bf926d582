//! Faults of rings and of the loops that run their copies ahead.

use crate::*;

const HERE: Here = Here { file: file!(), text: include_str!("copies.rs") };

#[kernel]
pub fn odd_bytes(_m: M, out: &mut Global<i32>) {
    let ring = ring(2, 24); // odd_bytes
    out.put(0, 0_i32);
}

#[kernel]
pub fn one_stage(_m: M, out: &mut Global<i32>) {
    let ring = ring(1, 64); // one_stage
    out.put(0, 0_i32);
}

#[kernel]
pub fn one_turn(_m: M, src: &Global<u8>, out: &mut Global<i32>) {
    let ring = ring(2, 64);
    for _ in warps(2) {
        for i in stream(0_i32, 8_i32, 1, 1) { // one_turn
            out.put(i, ring.copy(src, i * 64_i32).load::<i32>(0));
        }
    }
}

#[kernel]
pub fn none(_m: M, out: &mut Global<i32>) {
    for _ in warps(2) {
        for i in stream(0_i32, 8_i32, 1, 2) { // none
            out.put(i, i);
        }
    }
}

#[kernel]
pub fn chased(_m: M, src: &Global<u8>, out: &mut Global<i32>) {
    let ring = ring(2, 64);
    for _ in warps(2) {
        let mut at = 0_i32;
        for i in stream(0_i32, 8_i32, 1, 2) { // chased
            let page = ring.copy(src, at);
            at = page.load::<i32>(0);
            out.put(i, at);
        }
    }
}

#[kernel]
pub fn rewritten(_m: M, src: &Global<u8>, order: &mut Global<i32>) {
    let ring = ring(2, 64);
    for _ in warps(2) {
        for i in stream(0_i32, 8_i32, 1, 2) { // rewritten
            let page = ring.copy(src, order.at(i) * 64_i32);
            order.put(i + 1_i32, page.load::<i32>(0));
        }
    }
}

#[kernel]
pub fn twice(_m: M, src: &Global<u8>, out: &mut Global<i32>) {
    let ring = ring(2, 64);
    for _ in warps(2) {
        for i in stream(0_i32, 8_i32, 1, 2) { // twice
            let (a, b) = (ring.copy(src, i * 128_i32), ring.copy(src, i * 128_i32 + 64_i32));
            out.put(i, a.load::<i32>(0) + b.load::<i32>(0));
        }
    }
}

#[test]
fn blame_their_lines() {
    let m = &M { n: 4 };
    let moved = |why: &str| format!("this copy cannot be moved ahead of its loop: {why}; compute its address from the loop variable and values from outside the loop");
    HERE.blames(odd_bytes::build(m), "odd_bytes", "an asynchronous copy of 24 bytes is not a multiple of 16; pad the block or load it directly");
    HERE.blames(one_stage::build(m), "one_stage", "a ring or stream cannot have 1 stages; use 2 to 8");
    HERE.blames(one_turn::build(m), "one_turn", "a ring or stream cannot have 1 stages; use 2 to 8");
    HERE.blames(none::build(m), "none", &moved("the loop holds no copy"));
    HERE.blames(chased::build(m), "chased", &moved("its address depends on what the loop changes"));
    HERE.blames(rewritten::build(m), "rewritten", &moved("its address depends on what the loop changes"));
    HERE.blames(twice::build(m), "twice", &moved("the loop copies through its ring more than once"));
}
