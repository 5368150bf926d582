//! The shipped codecs, one screen each.
#![allow(clippy::needless_range_loop, clippy::assign_op_pattern)] // device functions have neither iterators nor `|=`

pub mod bf16;
pub mod e8q38;
pub mod e8w4;
pub mod int4;
pub mod lattice;

pub use bf16::Bf16;
pub use e8q38::E8Q38;
pub use e8w4::E8W4;
pub use int4::Int4;
