//! `return` anywhere but at the very end.
use kernel_dsl::device;

#[device]
fn early(x: f32) -> f32 {
    if x < 0.0_f32 {
        return 0.0_f32;
    }
    x
}

#[device]
fn both(x: f32) -> f32 {
    if x < 0.0_f32 { return 0.0_f32 } else { return x }
}

/// This one is the last statement.
#[device]
fn last(x: f32) -> f32 {
    let y = x + x;
    return y;
}

fn main() {
    last(1.0);
}
