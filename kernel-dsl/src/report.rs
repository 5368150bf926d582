//! Errors of the builder and the passes, with the Rust line they come from.
//!
//! Every message is written here once: what is wrong, then what to write instead.

use crate::ir::Span;
use std::fmt;

/// What went wrong while a kernel was built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    pub what: Fault,
    pub span: Option<Span>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    Untyped,
    Types {
        op: String,
        left: String,
        right: String,
    },
    Shapes {
        op: String,
        left: String,
        right: String,
    },
    Layout {
        op: String,
        wants: String,
        got: String,
    },
    NotBuilderTime {
        what: &'static str,
    },
    DeviceIndex,
    IndexOutside {
        index: i64,
        len: usize,
    },
    NoMethod {
        name: String,
        on: String,
    },
    NoField {
        name: &'static str,
    },
    NotMutable,
    UnevenBranches,
    ImpureSelect,
    ElementBound,
    ElementInScalar,
    Recursion {
        circle: String,
    },
    FloatOrder {
        axis: &'static str,
    },
    FloatMinMax {
        name: String,
    },
    FloatCast {
        to: &'static str,
    },
    TileSize {
        tile: String,
        wants: &'static str,
    },
    OperandStride {
        stride: usize,
        step: usize,
    },
    TileOutsideWarp {
        op: String,
    },
    NestedParallel,
    CopyAlignment {
        bytes: usize,
    },
    SharedMemory {
        want: usize,
        limit: usize,
        arrays: String,
    },
    Stages {
        stages: usize,
    },
    PipelineSource {
        why: &'static str,
    },
    DivisorUnknown,
    /// Kept values of another turn, or of a loop that has not one turn a thread.
    OtherTurn,
    Fours {
        op: &'static str,
        warps: usize,
    },
    ShiftCount,
    StageOp {
        op: String,
        stage: &'static str,
    },
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Untyped => write!(f, "the type of this number is not known here; give it a suffix, as in `1_i32`, or convert it with `as`"),
            Fault::Types { op, left, right } => write!(f, "`{op}` takes two values of one type, not {left} and {right}; convert one with `as`"),
            Fault::Shapes { op, left, right } => write!(f, "`{op}` does not fit {left} and {right}; make the inner sizes equal or use a `rows` or `cols` tile"),
            Fault::Layout { op, wants, got } => write!(f, "`{op}` wants {wants}, not {got}; convert it first (`to_operand`, `split_bytes`, `operand`)"),
            Fault::NotBuilderTime { what } => write!(f, "{what} must be known when the kernel is built; compute it from the meta value"),
            Fault::DeviceIndex => write!(f, "this index is known only on the device, which would put the array in local memory; index with the variable of a `for` over known bounds, or use `shared`"),
            Fault::IndexOutside { index, len } => write!(f, "index {index} is outside an array of {len}; keep it below the length"),
            Fault::NoMethod { name, on } => write!(f, "`.{name}()` has no device form on {on}; see the list of operations in `kernel_dsl::prelude`"),
            Fault::NoField { name } => write!(f, "this value has no field `{name}` on the device; only the meta value, codecs and `#[device]` structs have named fields"),
            Fault::NotMutable => write!(f, "this value cannot be assigned to; declare it with `let mut`"),
            Fault::UnevenBranches => write!(f, "the branches of this `if` give values the device cannot choose between; let both give numbers or tiles of one type"),
            Fault::ImpureSelect => write!(f, "a condition that differs by element cannot guard an assignment, a store or a loop; compute both values and choose between them"),
            Fault::ElementBound => write!(f, "the bounds of this loop differ by element; loop to a bound that all share and choose by element inside"),
            Fault::ElementInScalar => write!(f, "this variable holds one number and is given one for each element; start it from an element, as in `x * 0.0_f32`"),
            Fault::Recursion { circle } => write!(f, "device functions may not call themselves ({circle}); write a `for` loop"),
            Fault::FloatOrder { axis } => write!(f, "a float sum over {axis} has no fixed order; sum integers, or a `row`, whose order is stated"),
            Fault::FloatMinMax { name } => write!(f, "`.{name}()` leaves the sign of zero open; write `if a < b {{ b }} else {{ a }}` or use `f{name}`"),
            Fault::FloatCast { to } => write!(f, "a float becomes {to} only after you say what happens outside its range; clamp it, then write `as i32 as {to}`"),
            Fault::TileSize { tile, wants } => write!(f, "a tile of {tile} does not fill a warp; make {wants}"),
            Fault::OperandStride { stride, step } => write!(f, "rows {stride} bytes apart cannot be read {step} bytes at a time; pad them to a multiple of {step}"),
            Fault::TileOutsideWarp { op } => write!(f, "`{op}` works on a warp's tile; put it inside `for w in warps(n)`"),
            Fault::NestedParallel => write!(f, "this parallel loop stands inside another of its kind; use `lanes` inside `warps`, and `warps` or `threads` only at block level"),
            Fault::CopyAlignment { bytes } => write!(f, "an asynchronous copy of {bytes} bytes is not a multiple of 16; pad the block or load it directly"),
            Fault::SharedMemory { want, limit, arrays } => write!(f, "the block needs {want} bytes of shared memory and has {limit} ({arrays}); use fewer stages, warps or a smaller tile"),
            Fault::Stages { stages } => write!(f, "a ring or stream cannot have {stages} stages; use 2 to 8"),
            Fault::PipelineSource { why } => write!(f, "this copy cannot be moved ahead of its loop: {why}; compute its address from the loop variable and values from outside the loop"),
            Fault::OtherTurn => write!(f, "kept values belong to a turn of a loop over all threads of the block; index with the variable of `for i in threads(n)`, n being 32 times the warps, or use `shared`"),
            Fault::Fours { op, warps } => write!(f, "`{op}` is made by four warps together and the block has {warps}; launch a multiple of four"),
            Fault::DivisorUnknown => write!(f, "integer division needs a divisor known when the kernel is built; compute it from the meta value, or multiply by a reciprocal the caller passes"),
            Fault::ShiftCount => write!(f, "a shift count must be a constant or masked to the width; write `a << (n & 31)`"),
            Fault::StageOp { op, stage } => write!(f, "`{op}` may not stand in {stage} IR; this is a fault of a pass, please report it"),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.what)?;
        if let Some(s) = self.span {
            write!(f, "\n  --> {}:{}", s.file, s.line)?;
        }
        Ok(())
    }
}

impl std::error::Error for Report {}
