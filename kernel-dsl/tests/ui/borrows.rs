//! rustc's own: two `&mut` views of one buffer, and a float sum without a stated order.
use kernel_dsl::prelude::*;

#[device]
fn swap(a: &mut Global<f32>, b: &mut Global<f32>) {
    let x = a.at(0);
    a.put(0, b.at(0));
    b.put(0, x);
}

#[device]
fn alias(out: &mut Global<f32>) {
    swap(out, out);
}

#[device]
fn sums(x: &Tile<f32>) -> Tile<f32> {
    x.sum_rows()
}

fn main() {}
