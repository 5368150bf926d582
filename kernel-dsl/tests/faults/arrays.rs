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

#[test]
fn blame_their_lines() {
    let m = &M { n: 9 };
    HERE.blames(outside::build(m), "outside", "index 9 is outside an array of 4; keep it below the length");
    HERE.blames(device_index::build(m), "device_index", "this index is known only on the device, which would put the array in local memory; index with the variable of a `for` over known bounds, or use `shared`");
    HERE.blames(device_size::build(m), "device_size", "the columns of a tile must be known when the kernel is built; compute it from the meta value");
    HERE.blames(not_mutable::build(m), "not_mutable", "this value cannot be assigned to; declare it with `let mut`");
    HERE.blames(too_large::build(m), "too_large", "the block needs 404096 bytes of shared memory and has 232448 (1000 x f32, 100000 x f32); use fewer stages, warps or a smaller tile");
}
