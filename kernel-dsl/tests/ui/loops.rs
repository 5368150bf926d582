//! Loops without a range, and ways out of them.
use kernel_dsl::device;

#[device]
fn halved(x: f32) -> f32 {
    let mut y = x;
    while y > 1.0_f32 {
        y = y * 0.5_f32;
    }
    loop {
        y = y * 0.5_f32;
    }
}

#[device]
fn first(x: [f32; 8]) -> f32 {
    let mut y = 0.0_f32;
    for i in 0..8 {
        if x[i] > 0.0_f32 {
            y = x[i];
            break;
        }
        if x[i] < 0.0_f32 {
            continue;
        }
    }
    y
}

#[device]
fn summed(x: [f32; 8]) -> f32 {
    let mut y = 0.0_f32;
    for i in 0..=7 {
        y = y + x[i];
    }
    for v in x {
        y = y + v;
    }
    y
}

fn main() {}
