//! Expressions that stand for nothing on the device.
use kernel_dsl::device;

struct Pair {
    a: f32,
}

#[device]
fn text(_x: f32) -> u32 {
    let _s = "text";
    0_u32
}

#[device]
fn record(x: f32) -> f32 {
    let p = Pair { a: x };
    p.a
}

#[device]
fn trial(x: f32) -> f32 {
    let _y = Some(x)?;
    x
}

fn main() {}
