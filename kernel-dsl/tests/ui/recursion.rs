//! Functions that call themselves by name. Longer circles are found while building.
#![allow(unconditional_recursion)]

use kernel_dsl::device;

#[device]
fn factorial(n: i32) -> i32 {
    if n < 2_i32 { 1_i32 } else { n * factorial(n - 1_i32) }
}

struct Codec;

#[kernel_dsl::codec]
impl Codec {
    fn decode(x: u32) -> u32 {
        Self::decode(x)
    }
}

fn main() {}
