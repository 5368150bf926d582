//! Expressions that stand for nothing on the device.
use kernel_dsl::device;

#[device]
fn text(_x: f32) -> u32 {
    let _s = "text";
    0_u32
}

#[device]
fn trial(x: f32) -> f32 {
    let _y = Some(x)?;
    x
}

fn main() {}
