//! A kernel's stages through the interpreter, and what goes in and comes out.
#![allow(dead_code)] // each test binary uses its part

use crate::support::Random;
use kernel_dsl::ir::Program;
use kernel_dsl::ir::interp::{Arg, run_seeded};
use kernel_dsl::passes;
use kernel_dsl::prelude::*;
use kernels_gen::kernels::Elem as Memory;

pub fn stages(tile: Program) -> [(&'static str, Program); 3] {
    let piped = passes::simplify::run(passes::pipeline::run(&tile).unwrap());
    let thread = passes::run(&tile).unwrap();
    [("tile", tile), ("pipelined", piped), ("thread", thread)]
}

/// Runs one stage; the arguments come back as the kernel leaves them.
pub fn interpreted(what: &str, stage: &(&str, Program), grid: [u32; 3], mut args: Vec<Arg>) -> Vec<Vec<u8>> {
    let seed = what.len() as u64;
    if let Err(trap) = run_seeded(&stage.1, grid, &mut args, seed) {
        panic!("{what}, {} IR: {trap}", stage.0);
    }
    args.into_iter().filter_map(|a| if let Arg::Buffer(bytes) = a { Some(bytes) } else { None }).collect()
}

/// Runs the thread IR that counts what it moves of `cache`: the buffers, and bytes read and written.
pub fn counted(what: &str, tile: &Program, grid: [u32; 3], mut args: Vec<Arg>) -> (Vec<Vec<u8>>, [i64; 2]) {
    args.push(buffer(&Global::<i64>::zeroed(2)));
    let counting = passes::count::run(&passes::run(tile).unwrap(), "cache");
    let mut bytes = interpreted(what, &("counting", counting), grid, args);
    let mut moved = Global::<i64>::zeroed(2);
    moved.bytes = bytes.pop().unwrap();
    (bytes, [moved.at(0), moved.at(1)])
}

pub fn buffer<T: Elem>(x: &Global<T>) -> Arg {
    Arg::Buffer(x.bytes.clone())
}

pub fn scalar<T: Elem>(x: T) -> Arg {
    Arg::Scalar(x.to_bits64())
}

/// What a kernel is built for whose rows are of `T`.
pub fn memory<T: Float>() -> Memory {
    if T::DTYPE == DType::F32 { Memory::F32 } else { Memory::Bf16 }
}

pub fn global<T: Float>(x: &[f32]) -> Global<T> {
    Global::new(&x.iter().map(|x| T::from_f32(*x)).collect::<Vec<T>>())
}

pub fn assert_bytes(what: &str, got: &[u8], want: &[u8]) {
    let bad: Vec<usize> = (0..want.len()).filter(|i| got.get(*i) != Some(&want[*i])).collect();
    if let Some(i) = bad.first() {
        panic!("{what}: {} of {} bytes differ, first byte {i}: {:02x?}, wanted {:02x}", bad.len(), want.len(), got.get(*i), want[*i]);
    }
}

pub fn shuffled(n: usize, random: &mut Random) -> Vec<usize> {
    let mut order: Vec<usize> = (0..n).collect();
    for i in (1..n).rev() {
        order.swap(i, (random.bits() % (i as u64 + 1)) as usize);
    }
    order
}
