//! Lesson 7: what becomes of a kernel, stage by stage.
//!
//! 1. Tile IR is what the builder records: whole tiles, a warp's program, loops as written.
//! 2. The pipeline pass moves the copies of a `stream` loop ahead: two fetches before the loop, and in
//!    each turn a wait for the oldest copy and a fetch for the turn two ahead.
//! 3. Thread IR is one lane's program: tiles have become registers, parallel loops have become indices.
//! 4. CUDA C++ is thread IR printed, a line an operation, with `#line` back to this file.
//!
//! Each statement ends in the Rust line it comes from. The interpreter defines what every operation does,
//! in tile IR and in thread IR, so a pass can be checked: run before and after it, the bytes must agree.
//! That needs no GPU, which makes it the first thing to do when a kernel misbehaves.
//!
//!     cargo run --release --example 07_every_stage

#[path = "support/mod.rs"]
mod support;

use kvfuse::kernel_dsl::ir::interp::{self, Arg as Value};
use kvfuse::kernel_dsl::ir::print::print;
use kvfuse::kernel_dsl::prelude::*;
use kvfuse::kernel_dsl::tile::launch;
use kvfuse::kernel_dsl::{Source, passes};
use kvfuse::runtime::Arg;
use support::{Failure, gpu, same_bits, verdict};

/// Bytes of a page: what one asynchronous copy brings.
const PAGE: usize = 128;

#[derive(Clone, Copy)]
pub struct TwiceMeta {
    pub stages: usize,
}

impl Meta for TwiceMeta {
    fn launch(&self) -> Launch {
        Launch { warps: 1, min_blocks: 1 }
    }
}

/// Doubles the 32 numbers of each page.
#[kernel]
pub fn twice(m: TwiceMeta, src: &Global<u8>, out: &mut Global<i32>, pages: i32) {
    let ring = ring(m.stages, PAGE);
    for _ in warps(1) {
        for t in stream(0_i32, pages, 1, m.stages) {
            let page = ring.copy(src, t as i64 * PAGE as i64);
            for i in lanes(32) {
                out.put(t * 32_i32 + i, page.load::<i32>(i * 4_i32) * 2_i32);
            }
        }
    }
}

fn lesson() -> Result<(), Failure> {
    let (m, pages) = (TwiceMeta { stages: 3 }, 10);
    let numbers = Global::new(&(0..32 * pages).collect::<Vec<i32>>());
    let (src, mut out) = (Global::<u8>::new(&numbers.bytes), Global::<i32>::zeroed(32 * pages as usize));
    launch([1, 1, 1], || twice(m, &src, &mut out, pages));

    let tile = twice::build(&m)?;
    let piped = passes::simplify::run(passes::pipeline::run(&tile)?);
    let thread = passes::run(&tile)?;
    for (what, program) in [("tile IR", &tile), ("tile IR, pipelined", &piped), ("thread IR", &thread)] {
        println!("=== {what}\n{}", print(program));
    }
    let source = Source::of(&tile)?;
    let prelude = source.cuda.find("extern \"C\" __global__").unwrap_or(0);
    println!("=== CUDA, after {} lines of prelude\n{}", source.cuda[..prelude].lines().count(), &source.cuda[prelude..]);

    // Every stage through the interpreter, against the Rust function.
    for (what, program) in [("tile IR", &tile), ("tile IR, pipelined", &piped), ("thread IR", &thread)] {
        let blank = vec![0xff; out.bytes.len()];
        let mut args = [Value::Buffer(src.bytes.clone()), Value::Buffer(blank), Value::Scalar(pages as u64)];
        interp::run(program, [1, 1, 1], &mut args).map_err(|trap| trap.to_string())?;
        let Value::Buffer(got) = &args[1] else { return Err("the second argument is a buffer".into()) };
        same_bits(&format!("{what} = CPU kernel"), got, &out.bytes)?;
    }
    match gpu(&source, [1, 1, 1], &[&src.bytes, &vec![0xff; out.bytes.len()]], &[Arg::I32(pages)])? {
        Some(back) => same_bits("GPU = CPU kernel", &back[1], &out.bytes),
        None => Ok(()),
    }
}

fn main() -> std::process::ExitCode {
    verdict(lesson())
}
