//! A codec of one's own, in a package of one's own: `toy3`, three bits a coordinate under one step a vector.
//!
//! Once it is registered it has a name like any other codec: here the whole harness runs with it, and plans, the C library,
//! parity and benches of this program would find it too. Try
//!
//!     cargo run --release -- validate --codec toy3,int3
//!     cargo run --release -- ppl --codec toy3,toy3/int4,int3 --passages 2
//!     cargo run --release -- emit --kernel decode_attention --codec toy3
//!
//! `--target-dir ../../target` spares building what the workspace has built.

use std::process::ExitCode;

use kernel_dsl::prelude::*;
use kvfuse::kernels_gen::codec::{Codec, Spec};
use kvfuse::kernels_gen::registry::register;

#[derive(Debug)]
struct Toy3;

#[codec]
impl Codec for Toy3 {
    fn name(&self) -> String {
        "toy3".into()
    }

    // 24 bits for eight coordinates, half way around zero: levels -7/2, -5/2, .. 7/2 steps.
    fn spec(&self) -> Spec {
        Spec::integers(24, 7)
    }

    fn side(&self, _norm: f32, top: f32) -> [f32; 2] {
        [top / 4.0_f32, 0.0_f32]
    }

    fn encode(&self, y: [f32; 8], side: [f32; 2]) -> [u32; 4] {
        let inverse = if side[0] > 0.0_f32 { 1.0_f32 / side[0] } else { 0.0_f32 };
        let mut word = 0_u32;
        for i in 0..8 {
            let level = fmin(fmax(y[i].mul_add(inverse, 3.5_f32).round_ties_even(), 0.0_f32), 7.0_f32) as u32;
            word = word | (level << (3 * i));
        }
        [word, 0_u32, 0_u32, 0_u32]
    }

    fn decode(&self, code: [u32; 4]) -> [u32; 4] {
        let mut lanes = [0_u32; 4];
        for i in 0..8 {
            lanes[i / 4] = lanes[i / 4] | (((code[0] >> (3 * i)) & 7_u32) << (8 * (i % 4)));
        }
        lanes
    }

    fn scale(&self, side: [f32; 2]) -> f32 {
        side[0]
    }
}

fn main() -> ExitCode {
    match register(&Toy3) {
        Ok(_) => harness::command::main(),
        Err(why) => {
            eprintln!("error: {why}");
            ExitCode::FAILURE
        }
    }
}
