//! Patterns that choose.
use kernel_dsl::device;

#[device]
fn matched(x: i32) -> i32 {
    match x {
        0 => 1_i32,
        _ => x,
    }
}

#[device]
fn let_if(x: i32) -> i32 {
    if let 0 = x { 1_i32 } else { x }
}

#[device]
fn let_else(x: i32) -> i32 {
    let 0 = x else { return 1_i32 };
    x
}

fn main() {}
