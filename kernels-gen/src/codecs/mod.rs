//! The shipped codecs, one screen each.
#![allow(clippy::needless_range_loop, clippy::assign_op_pattern)] // device functions have neither iterators nor `|=`

pub mod affine;
pub mod bf16;
pub mod e8c;
pub mod d4;
pub mod d4q;
pub mod d4q_bytes;
pub mod digits;
pub mod e2m1;
pub mod e8q;
pub mod e8q_bytes;
pub mod e8w;
pub mod e8word;
pub mod elevens;
pub mod fives;
pub mod fp8;
pub mod fp8_group;
pub mod int;
pub mod int4_head;
pub mod intc;
pub mod lattice;
pub mod lloyd;
pub mod lloyd_max;
pub mod mxfp4;
pub mod nvfp4;
pub mod places;
pub mod quads;
pub mod radix;

pub use affine::Affine;
pub use bf16::Bf16;
pub use d4q::D4Q;
pub use d4q_bytes::D4QBytes;
pub use e8c::E8C;
pub use e8q::E8Q;
pub use e8q_bytes::E8QBytes;
pub use e8w::E8W;
pub use fp8::Fp8;
pub use fp8_group::Fp8Group;
pub use int::Int;
pub use int4_head::Int4Head;
pub use intc::IntC;
pub use lloyd::Lloyd;
pub use mxfp4::Mxfp4;
pub use nvfp4::Nvfp4;
