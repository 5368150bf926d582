//! What a kernel may take and give.
#![allow(unused)]

use kernel_dsl::prelude::*;

#[derive(Clone, Copy)]
struct M;

impl Meta for M {
    fn launch(&self) -> Launch {
        Launch { warps: 1, min_blocks: 1 }
    }
}

#[kernel]
fn returns(_m: M, x: &Global<f32>) -> f32 {
    x.at(0)
}

#[kernel]
fn no_meta(x: &Global<f32>, out: &mut Global<f32>) {
    out.put(0, x.at(0));
}

#[kernel]
fn nothing() {}

#[kernel]
fn odd_parameters(_m: M, x: &[f32], n: &mut i32, name: String) {}

fn main() {}
