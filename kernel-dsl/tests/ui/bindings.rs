//! What may be bound, and where.
use kernel_dsl::device;

#[device]
fn taken_apart(x: [f32; 2]) -> f32 {
    let [a, b] = x;
    a + b
}

#[device]
fn parameter((a, b): (f32, f32)) -> f32 {
    a + b
}

#[device]
fn later(x: f32) -> f32 {
    let y;
    y = x;
    y
}

#[device]
fn nested(x: f32) -> f32 {
    const HALF: f32 = 0.5;
    x * HALF
}

fn main() {}
