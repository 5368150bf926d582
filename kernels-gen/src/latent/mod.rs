//! Rows of DeepSeek-V4's attention: one vector of 512 numbers a token, key and value of all query heads at once.
//!
//! 448 numbers carry no position, the last 64 are turned by RoPE. A row is stored at a flat index, `page * rows + offset`,
//! in one of the layouts that engines have, or as integers under one scale (`integers`), which attention multiplies exactly.
//! What is coded is what the model rounds: the 448 from the normed vector in bf16, the 64 from the f32 vector.

mod attention;
mod floats;
mod format;
mod integers;
pub mod softmax;
mod whole;

pub use attention::{List, Part, Problem, Query};
pub use floats::{e8m0_above, fp8_codes};
pub use format::{Format, UnknownFormat, format};
pub use integers::{Integers, multiplier, signed};
pub use softmax::LEAF;
pub use whole::Whole;

/// Numbers of a row.
pub const DIM: usize = 512;

/// Those without a position.
pub const NOPE: usize = 448;

/// Those that RoPE turned.
pub const ROPE: usize = DIM - NOPE;

/// Numbers that a Hadamard matrix turns together, and that share a multiplier.
pub const GROUP: usize = 64;
