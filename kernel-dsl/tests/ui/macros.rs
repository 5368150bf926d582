//! Macros of the standard library.
use kernel_dsl::device;

#[device]
fn noisy(x: f32) -> f32 {
    println!("{x}");
    x
}

#[device]
fn checked(x: f32) -> f32 {
    assert!(x > 0.0);
    if x > 1.0_f32 { panic!() }
    x
}

#[device]
fn grown(x: f32) -> f32 {
    let v = vec![x];
    v[0]
}

fn main() {}
