//! Lesson 1: a kernel is a Rust function that describes one block.
//!
//! A block knows its number, `block_id(0)`, and spreads a loop over its threads with `threads(n)`. Sizes
//! that are fixed when the kernel is built live in a meta value, the first parameter; sizes of a launch,
//! like `n` here, are ordinary arguments.
//!
//! `#[kernel]` leaves the function as it is, so calling it runs the kernel on the CPU. It also adds
//! `add::build`, which records the body for the GPU. Both halves come from one text, and f32 addition
//! rounds alike on both, so the bits must agree.
//!
//! Cost: reads 8 bytes and writes 4 for each element, one addition: bound by memory.
//!
//!     cargo run --release --example 01_vector_add

#[path = "support/mod.rs"]
mod support;

use kvfuse::kernel_dsl::Source;
use kvfuse::kernel_dsl::prelude::*;
use kvfuse::kernel_dsl::tile::launch;
use kvfuse::runtime::{Arg, Device, Memory};
use support::{Failure, numbers, same_bits, verdict};

/// What is known when the kernel is built.
#[derive(Clone, Copy)]
pub struct AddMeta {
    /// Elements of a block.
    pub block: usize,
}

impl Meta for AddMeta {
    fn launch(&self) -> Launch {
        Launch { warps: 4, min_blocks: 1 }
    }
}

#[kernel]
pub fn add(m: AddMeta, a: &Global<f32>, b: &Global<f32>, out: &mut Global<f32>, n: i32) {
    let first = block_id(0) * m.block as i32;
    for i in threads(m.block) {
        let at = first + i;
        // The last block may reach past the end.
        if at < n {
            out.put(at, a.at(at) + b.at(at));
        }
    }
}

fn lesson() -> Result<(), Failure> {
    let (m, n) = (AddMeta { block: 1024 }, 100_000);
    let (a, b) = (numbers(n, 1), numbers(n, 2));
    let grid = [n.div_ceil(m.block) as u32, 1, 1];

    // On the CPU: the function itself, once a block.
    let (ga, gb, mut out) = (Global::new(&a), Global::new(&b), Global::zeroed(n));
    launch(grid, || add(m, &ga, &gb, &mut out, n as i32));
    let plain: Vec<f32> = a.iter().zip(&b).map(|(x, y)| x + y).collect();
    same_bits("CPU kernel = plain loop", &out.bytes, &Global::new(&plain).bytes)?;

    // For the GPU: build the kernel's program, print it as CUDA C++.
    let source = Source::of(&add::build(&m)?)?;
    println!("`{}` is {} lines of CUDA, {} threads a block", source.name, source.cuda.lines().count(), source.threads);

    // On the GPU: compile, copy, launch, copy back. Later lessons leave these lines to `support::gpu`.
    let device = match Device::open(0) {
        Ok(device) => device,
        Err(why) => {
            println!("GPU: none ({why})");
            return support::compiled(&source);
        }
    };
    let (kernel, stream) = (device.kernel(&source)?, device.stream()?);
    let (da, db) = (Memory::from_slice(&device, &a)?, Memory::from_slice(&device, &b)?);
    let sums = Memory::zeroed(&device, 4 * n)?;
    let args = [Arg::Ptr(da.span()), Arg::Ptr(db.span()), Arg::Ptr(sums.span()), Arg::I32(n as i32)];
    kernel.launch(&stream, grid, &args)?;
    println!("GPU: {}", device.name());
    same_bits("GPU = CPU", &sums.download::<u8>(&stream, 0, 4 * n)?, &out.bytes)
}

fn main() -> std::process::ExitCode {
    verdict(lesson())
}
