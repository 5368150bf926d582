//! Structs that device code may not have.
use kernel_dsl::prelude::*;

#[derive(Clone, Copy)]
struct M;

impl Meta for M {
    fn launch(&self) -> Launch {
        Launch { warps: 1, min_blocks: 1 }
    }
}

struct Plain {
    x: f32,
}

#[device]
fn of_rust(p: &Plain) -> f32 {
    p.x
}

#[device]
struct Pair(f32, f32);

#[device]
struct Wide {
    #[out]
    x: f64,
}

/// Tiles and shared arrays are no arguments.
#[device]
struct Scratch {
    sums: Shared<f32>,
}

#[kernel]
fn takes(_m: M, s: &Scratch, out: &mut Global<f32>) {
    out.put(0, s.sums.at(0));
}

#[device]
fn updated(p: Plain) -> f32 {
    let q = Plain { ..p };
    q.x
}

fn main() {}
