//! The language: block programs over tiles in plain Rust, run on the CPU and emitted as CUDA C++.
//!
//! A `#[kernel]` is one block's program, a `#[device]` function what it calls. Each stays an ordinary
//! Rust function, the scalar reference; beside it stands a builder that records tile IR. Passes lower
//! the IR to the registers of one lane, and a printer turns it into CUDA C++ for NVRTC.

extern crate self as kernel_dsl;

pub mod build;
pub mod dtype;
pub mod emit;
pub mod ir;
pub mod math;
pub mod ops;
pub mod pack;
mod pairs;
pub mod passes;
pub mod report;
mod source;
pub mod tile;

pub use kernel_dsl_macros::{codec, device, kernel};
pub use report::Report;
pub use source::{Launch, Meta, Source};

/// What a file of kernels imports.
pub mod prelude {
    pub use crate::dtype::{DType, Elem, Float, bf16, f16};
    pub use crate::math::*;
    pub use crate::ops::*;
    pub use crate::tile::{ByTurn, ByWarp, Global, Page, PutBy, PutByWarp, Ring, Shared, Tile};
    pub use crate::{Launch, Meta, codec, device, kernel};
}
