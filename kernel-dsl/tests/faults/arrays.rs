//! Faults of indices, sizes and memory.

use crate::*;

const HERE: Here = Here { file: file!(), text: include_str!("arrays.rs") };

#[kernel]
pub fn outside(m: M, out: &mut Global<f32>) {
    let v = [0.0_f32; 4];
    out.put(0, v[m.n]); // outside
}

#[kernel]
pub fn device_index(_m: M, out: &mut Global<f32>, n: i32) {
    let v = [0.0_f32; 4];
    for i in 0..4 {
        out.put(i, v[i]);
    }
    out.put(0, v[n as usize]); // device_index
}

#[kernel]
pub fn device_size(_m: M, out: &mut Global<f32>, n: i32) {
    for _ in warps(1) {
        let v = vector(n as usize, 0.0_f32); // device_size
        out.put_row(0, &v);
    }
}

#[kernel]
pub fn not_mutable(mut m: M, out: &mut Global<i32>) {
    m.n = 3; // not_mutable
    out.put(0, m.n as i32);
}

#[kernel]
pub fn too_large(_m: M, out: &mut Global<f32>) {
    let small = shared::<f32>(1000);
    let large = shared::<f32>(100_000); // too_large
    out.put(0, small.at(0) + large.at(0));
}

#[kernel]
pub fn other_turn(_m: M, out: &mut Global<f32>) {
    let mut own = by_turn::<f32>(64, 1);
    for i in threads(64) {
        own.put(i, 0, i as f32);
    }
    for i in threads(64) {
        out.put(i, own.at(i ^ 1_i32, 0)); // other_turn
    }
}

#[kernel]
pub fn some_turns(_m: M, out: &mut Global<f32>) {
    let mut own = by_turn::<f32>(64, 1);
    for i in threads(32) {
        own.put(i, 0, i as f32); // some_turns
    }
    out.put(0, 0.0_f32);
}

#[kernel]
pub fn other_block(_m: M, out: &mut Global<f32>) {
    let own = by_turn::<f32>(128, 1); // other_block
    out.put(0, own.at(0, 0));
}

#[kernel]
pub fn past_the_end(_m: M, out: &mut Global<f32>) {
    let own = by_turn::<f32>(64, 2);
    for i in threads(64) {
        out.put(i, own.at(i, 2)); // past_the_end
    }
}

#[test]
fn blame_their_lines() {
    let m = &M { n: 9 };
    HERE.blames(outside::build(m), "outside", "index 9 is outside an array of 4; keep it below the length");
    HERE.blames(device_index::build(m), "device_index", "this index is known only on the device, which would put the array in local memory; index with the variable of a `for` over known bounds, or use `shared`");
    HERE.blames(device_size::build(m), "device_size", "the columns of a tile must be known when the kernel is built; compute it from the meta value");
    HERE.blames(not_mutable::build(m), "not_mutable", "this value cannot be assigned to; declare it with `let mut`");
    let turns = "kept values belong to a turn of a loop over all threads of the block; index with the variable of `for i in threads(n)`, n being 32 times the warps, or use `shared`";
    HERE.blames(other_turn::build(m), "other_turn", turns);
    HERE.blames(some_turns::build(m), "some_turns", turns);
    HERE.blames(other_block::build(m), "other_block", turns);
    HERE.blames(past_the_end::build(m), "past_the_end", "index 2 is outside an array of 2; keep it below the length");
    HERE.blames(too_large::build(m), "too_large", "the block needs 404096 bytes of shared memory and has 232448 (1000 x f32, 100000 x f32); use fewer stages, warps or a smaller tile");
}
