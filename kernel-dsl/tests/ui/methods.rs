//! Methods that no device value has.
use kernel_dsl::device;

#[device]
fn power(x: f32) -> f32 {
    x.exp2()
}

#[device]
fn nearest(x: f32) -> f32 {
    x.round()
}

#[device]
fn forced(x: i32) -> i32 {
    i32::checked_add(x, 1_i32).unwrap()
}

#[device]
fn total(x: [f32; 8]) -> f32 {
    let mut sum = 0.0_f32;
    for v in x.iter() {
        sum = sum + v;
    }
    for i in (0..8).step_by(2) {
        sum = sum + x[i];
    }
    sum
}

fn main() {}
