//! What every operation means: runs a program of either stage, one block after another, on plain bytes.
//!
//! It is slow and strict. Memory nobody wrote is poisoned, every access is checked, parallel iterations come in
//! a shuffled order, and two threads that meet at a byte without a barrier stop the run. A pass is right if a
//! program gives the same bytes before and after it.

mod cores;
mod element;
mod matrix;
mod memory;
mod scalar;
mod shadow;
mod thread;
mod thread_memory;
mod tile;
mod tile_memory;
mod tile_ops;
mod trap;
mod turns;
mod warp;

pub use trap::{Clash, Trap, Wrong};

use super::{Param, Program, Span};

/// One argument of a kernel, in the order of its parameters.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Arg {
    Buffer(Vec<u8>),
    /// Bits, zero-extended.
    Scalar(u64),
}

/// A machine for programs of one stage.
trait Stage {
    /// Runs one block from fresh shared memory.
    fn block(&mut self, block: [u32; 3], buffers: &mut [memory::Region]) -> Result<(), Trap>;
}

/// Runs the kernel over the grid, axis 0 fastest. Buffers hold what it wrote, also after a trap.
pub fn run(program: &Program, grid: [u32; 3], args: &mut [Arg]) -> Result<(), Trap> {
    run_seeded(program, grid, args, 0)
}

/// As `run`; the seed picks the order of parallel iterations at tile stage.
pub fn run_seeded(program: &Program, grid: [u32; 3], args: &mut [Arg], seed: u64) -> Result<(), Trap> {
    let start = |what| Trap { what, span: Span { file: "", line: 0 }, block: [0; 3] };
    let mut buffers = memory::take(program, args).map_err(start)?;
    let scalars: Vec<(super::Id, u64)> = program
        .params
        .iter()
        .zip(args.iter())
        .filter_map(|(p, a)| match (p, a) {
            (Param::Scalar { id, dtype, .. }, Arg::Scalar(bits)) => Some((*id, scalar::truncated(*dtype, *bits))),
            _ => None,
        })
        .collect();
    let mut machine: Box<dyn Stage> = if program.lowered { Box::new(thread::Machine::new(program, scalars)) } else { Box::new(tile::Machine::new(program, scalars, seed)) };
    let mut result = Ok(());
    'grid: for z in 0..grid[2] {
        for y in 0..grid[1] {
            for x in 0..grid[0] {
                result = machine.block([x, y, z], &mut buffers);
                if result.is_err() {
                    break 'grid;
                }
            }
        }
    }
    memory::give_back(buffers, args);
    result
}
