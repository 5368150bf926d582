//! Closures alone, and one of too many parameters where a function of one belongs.
use kernel_dsl::prelude::*;

#[device]
fn twice(x: f32) -> f32 {
    let f = |v: f32| v + v;
    f(x)
}

#[device]
fn mapped(x: &Tile<f32>) -> Tile<f32> {
    x.map(|v, w| v + w)
}

fn main() {}
