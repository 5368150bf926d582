//! Results through parameters.
use kernel_dsl::device;

#[device]
fn add_to(sum: &mut f32, x: f32) {
    *sum = *sum + x;
}

#[device]
fn fill(all: &mut [f32; 8]) {
    all[0] = 0.0_f32;
}

fn main() {}
