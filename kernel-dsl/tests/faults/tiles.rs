//! Faults of tiles and the tensor core.

use crate::*;

const HERE: Here = Here { file: file!(), text: include_str!("tiles.rs") };

#[kernel]
pub fn outside_warp(_m: M, out: &mut Global<f32>) {
    let t = acc(16, 8, 0.0_f32); // outside_warp
    for _ in warps(1) {
        out.put_acc(0, 8, 1, 8, &t);
    }
}

#[kernel]
pub fn sizes(_m: M, out: &mut Global<f32>) {
    for _ in warps(1) {
        let t = &acc(16, 8, 0.0_f32)
            + &acc(16, 16, 1.0_f32); // sizes
        out.put_acc(0, 8, 1, 8, &t);
    }
}

#[kernel]
pub fn changed(_m: M, out: &mut Global<f32>) {
    for _ in warps(1) {
        let mut t = acc(16, 8, 0.0_f32);
        t = acc(16, 16, 1.0_f32); // changed
        out.put_acc(0, 8, 1, 8, &t);
    }
}

#[kernel]
pub fn inner_sizes(_m: M, a: &Global<bf16>, b: &Global<bf16>, out: &mut Global<f32>) {
    for _ in warps(1) {
        let left = a.left(0, 64, 16, 64);
        let right = b.operand::<bf16>(0, 64, 8, 32);
        out.put_acc(0, 8, 1, 8, &mma(&left, &right, 0.0_f32)); // inner_sizes
    }
}

#[kernel]
pub fn layout(_m: M, b: &Global<bf16>, out: &mut Global<f32>) {
    for _ in warps(1) {
        let left = acc(16, 32, 0.0_f32).cast::<bf16>();
        let right = b.operand::<bf16>(0, 64, 8, 32);
        out.put_acc(0, 8, 1, 8, &mma(&left, &right, 0.0_f32)); // layout
    }
}

#[kernel]
pub fn ragged(m: M, out: &mut Global<f32>) {
    for _ in warps(1) {
        out.put_row(0, &vector(m.n, 0.0_f32)); // ragged
    }
}

#[kernel]
pub fn stride(_m: M, a: &Global<bf16>, b: &Global<bf16>, out: &mut Global<f32>) {
    for _ in warps(1) {
        let left = a.left(0, 32, 16, 32);
        let right = b.operand::<bf16>(0, 72, 8, 32); // stride
        out.put_acc(0, 8, 1, 8, &mma(&left, &right, 0.0_f32));
    }
}

#[kernel]
fn halved(_m: M, a: &Global<i8>, out: &mut Global<i32>) {
    let room = shared::<i8>(4096);
    for _ in warps(2) {
        let sums = mma_shared(&a.left(0, 64, 16, 64), &room, 0, 512, 8, 0_i32); // halved
        out.put_acc(0, 8, 1, 8, &sums);
    }
}

#[kernel]
fn apart(_m: M, out: &mut Global<i32>) {
    let room = shared::<i8>(65536);
    for _ in warps(2) {
        let sums = mma_lines(&room, 0, 1024, &room, 16384, 1000, 1, 16, 1); // apart
        out.put_acc(0, 16, 1, 16, &sums);
    }
}

#[test]
fn blame_their_lines() {
    let m = &M { n: 33 };
    HERE.blames(outside_warp::build(m), "outside_warp", "`Full` works on a warp's tile; put it inside `for w in warps(n)`");
    HERE.blames(sizes::build(m), "sizes", "`Add` does not fit f32 [16, 8] MmaC and f32 [16, 16] MmaC; make the inner sizes equal or use a `rows` or `cols` tile");
    HERE.blames(changed::build(m), "changed", "`=` does not fit f32 [16, 8] MmaC and f32 [16, 16] MmaC; make the inner sizes equal or use a `rows` or `cols` tile");
    HERE.blames(inner_sizes::build(m), "inner_sizes", "`mma` does not fit bf16 [16, 64] MmaA and bf16 [32, 8] MmaB; make the inner sizes equal or use a `rows` or `cols` tile");
    HERE.blames(layout::build(m), "layout", "`mma` wants a left and a right operand, not bf16 [16, 32] MmaC and bf16 [32, 8] MmaB; convert it first (`to_operand`, `split_bytes`, `operand`)");
    HERE.blames(ragged::build(m), "ragged", "a tile of f32 [1, 33] Row does not fill a warp; make its length a multiple of 32");
    HERE.blames(halved::build(m), "halved", "`mma_shared` is made by four warps together and the block has 2; launch a multiple of four");
    HERE.blames(apart::build(m), "apart", "`mma_lines` does not fit i8 [16, 128] MmaA and i8 [128, 16] MmaB; make the inner sizes equal or use a `rows` or `cols` tile");
    HERE.blames(stride::build(m), "stride", "rows 72 bytes apart cannot be read 16 bytes at a time; pad them to a multiple of 16");
}

#[test]
fn of_floats_have_no_free_sums() {
    let words = "a float sum over an accumulator has no fixed order; sum integers, or a `row`, whose order is stated";
    by_hand(|b| drop(b.method("sum_rows", &b.full((V::Int(16), V::Int(8)), kernel_dsl::ir::Layout::MmaC, b.typed(V::Int(0), DType::F32)), vec![])), words);
}
