//! The IR: one statement list per region, SSA values, explicit variables for what a loop changes.
//!
//! Two stages share it. *Tile IR* is what the builder makes: whole tiles, a warp at a time.
//! *Thread IR* is what [`crate::passes::lower`] makes of it: the registers of one lane.
//! [`verify`] says which operations each stage may hold, [`interp`] defines what they do.

pub mod interp;
pub mod kinds;
pub mod op;
pub mod print;
pub mod verify;

pub use kinds::*;
pub use op::*;

use crate::dtype::DType;

/// A value, variable or tile of a program.
pub type Id = u32;

/// Where a statement comes from in the user's Rust source.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Span {
    pub file: &'static str,
    pub line: u32,
}

/// How a tile's elements lie in the registers of 32 lanes. Lane l is quad row g = l / 4, quad lane t = l % 4.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Layout {
    /// Left operand [m, k]: lane holds rows g*(m/8).. and k elements t*(k/4).., packed in 32-bit registers.
    MmaA,
    /// Right operand [k, n]: lane holds column 8j+g and k elements t*(k/4)..
    MmaB,
    /// Accumulator [m, n]: lane holds rows g*(m/8).., columns 8j+2t and 8j+2t+1. With m = 8 one row a lane.
    MmaC,
    /// One value a row of an accumulator [m, 1].
    Rows,
    /// One value a column of an accumulator [1, n].
    Cols,
    /// A vector [1, n]: lane l holds elements l*(n/32)..
    Row,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Ty {
    Scalar(DType),
    Tile { dtype: DType, rows: usize, cols: usize, layout: Layout },
}

impl Ty {
    pub fn dtype(self) -> DType {
        match self {
            Ty::Scalar(d) | Ty::Tile { dtype: d, .. } => d,
        }
    }
    pub fn with(self, d: DType) -> Ty {
        match self {
            Ty::Scalar(_) => Ty::Scalar(d),
            Ty::Tile { rows, cols, layout, .. } => Ty::Tile { dtype: d, rows, cols, layout },
        }
    }
    /// Registers one lane needs for it.
    pub fn regs(self) -> usize {
        match self {
            Ty::Scalar(_) => 1,
            Ty::Tile { dtype, rows, cols, layout } => match layout {
                Layout::MmaA | Layout::MmaB => rows * cols * dtype.size() / 128,
                Layout::MmaC => rows * cols / 32,
                Layout::Rows => rows / 8,
                Layout::Cols => cols / 4,
                Layout::Row => cols / 32,
            },
        }
    }
    /// Type of each of those registers.
    pub fn reg_dtype(self) -> DType {
        match self {
            Ty::Tile { layout: Layout::MmaA | Layout::MmaB, .. } => DType::U32,
            t => t.dtype(),
        }
    }
}

/// One kernel argument.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Param {
    Buffer { name: String, dtype: DType, writable: bool },
    Scalar { name: String, dtype: DType, id: Id },
}

/// A block's array in shared memory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SharedArray {
    pub dtype: DType,
    pub len: usize,
    /// The ring whose slots it lies over.
    pub over: Option<usize>,
    /// Byte offset in dynamic shared memory, set by the `alloc_shared` pass.
    pub offset: usize,
}

/// Tiles that each warp may put by, in memory of its threads' own: caches and what lies behind them, no registers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Own {
    pub places: usize,
    pub ty: Ty,
}

impl Own {
    /// Bytes of a place in a thread, a multiple of 16.
    pub fn bytes(&self) -> usize {
        (4 * self.ty.regs()).div_ceil(16) * 16
    }
}

/// What each turn of a loop over all threads of a block keeps, in registers of its thread; tiles: of a loop over warps.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeptArray {
    pub ty: Ty,
    pub len: usize,
}

/// A queue of asynchronous copies, one for each warp.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ring {
    pub stages: usize,
    pub bytes: usize,
    /// Byte offsets of the slots and of their barriers, set by the `alloc_shared` pass.
    pub offset: usize,
    pub barriers: usize,
}

/// A device function: scalars in, scalars out.
#[derive(Clone, PartialEq, Debug)]
pub struct Func {
    pub name: String,
    pub params: Vec<Id>,
    pub body: Vec<Stmt>,
    pub results: Vec<Id>,
}

/// A kernel at one stage.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Program {
    pub name: String,
    pub warps: usize,
    /// Blocks an SM should hold at least: bounds the registers of a thread.
    pub min_blocks: usize,
    pub params: Vec<Param>,
    pub shared: Vec<SharedArray>,
    pub rings: Vec<Ring>,
    pub own: Vec<Own>,
    pub kept: Vec<KeptArray>,
    pub funcs: Vec<Func>,
    pub body: Vec<Stmt>,
    pub types: Vec<Ty>,
    /// Bytes of dynamic shared memory, set by the `alloc_shared` pass.
    pub shared_bytes: usize,
    /// True once `lower` has run.
    pub lowered: bool,
}

impl Program {
    pub fn ty(&self, id: Id) -> Ty {
        self.types[id as usize]
    }
    pub fn fresh(&mut self, ty: Ty) -> Id {
        self.types.push(ty);
        (self.types.len() - 1) as Id
    }
    pub fn threads(&self) -> usize {
        self.warps * 32
    }
}
