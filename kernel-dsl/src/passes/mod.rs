//! From tile IR to what the printer takes. Each pass keeps the meaning: the interpreter runs before and after it.

pub mod alloc_shared;
pub mod count;
pub mod lower;
pub mod pipeline;
pub mod simplify;

mod alike;
mod lower_cores;
mod lower_emit;
mod lower_fold;
mod lower_halves;
mod lower_kept;
mod lower_marks;
mod lower_memory;
mod lower_mma;
mod lower_reduce;
mod lower_shared;
mod lower_turned;
mod lower_twos;
mod lower_unpack;
mod lower_vectors;

pub(crate) use lower_mma::kind_of;

use crate::ir::Program;
use crate::report::Report;

/// All passes in order: tile IR in, thread IR out.
pub fn run(program: &Program) -> Result<Program, Report> {
    let piped = simplify::run(pipeline::run(program)?);
    let placed = alloc_shared::run(piped)?;
    let lowered = simplify::run(lower::run(placed)?);
    crate::ir::verify::thread(&lowered)?;
    Ok(lowered)
}
