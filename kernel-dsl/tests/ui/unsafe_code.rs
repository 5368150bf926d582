//! `unsafe` and raw pointers.
#![allow(unused)]

use kernel_dsl::device;

#[device]
fn block(x: f32) -> f32 {
    unsafe { x }
}

#[device]
unsafe fn function(x: f32) -> f32 {
    x
}

#[device]
fn pointer(_x: *const f32) -> f32 {
    0.0_f32
}

fn main() {}
