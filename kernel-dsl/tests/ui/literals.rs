//! Numbers whose type only rustc could tell.
use kernel_dsl::device;

#[device]
fn counted(x: f32) -> f32 {
    let n = 1;
    let zeros = [0.0; 8];
    let (a, b) = (-1, 2);
    x + zeros[0] + (n + a + b) as f32
}

fn main() {}
