//! Types that no device value has.
use kernel_dsl::device;

#[device]
fn wide(x: f64) -> f64 {
    x
}

#[device]
fn named(_name: String, _bytes: &[u8]) -> u32 {
    0_u32
}

#[device]
fn inside(x: i32) -> f32 {
    let y: f64 = 2.0;
    let z = 1.0_f64;
    (x as u64) as f32 + y as f32 + z as f32
}

fn main() {}
