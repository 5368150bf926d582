//! What a program must not do, and where it did it.

use crate::ir::Span;
use std::fmt;

/// Why a run stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trap {
    pub what: Wrong,
    pub span: Span,
    pub block: [u32; 3],
}

/// Who met whom at one byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clash {
    /// Two writers, two values, no barrier between them.
    Writes,
    /// A reader and a writer, no barrier between them.
    ReadWrite,
    /// An access to bytes that an asynchronous copy is bringing.
    Copy,
    /// The tensor core reads what was written, no fence and barrier of the block between them.
    Core,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wrong {
    Arguments {
        want: String,
        got: String,
    },
    OutOfBounds {
        buffer: String,
        at: i64,
        size: usize,
        len: usize,
    },
    Misaligned {
        buffer: String,
        at: i64,
        size: usize,
    },
    ReadOnly {
        buffer: String,
    },
    Undefined {
        id: u32,
    },
    StaleSlot {
        ring: usize,
    },
    RingEmpty {
        ring: usize,
    },
    RingFull {
        ring: usize,
        stages: usize,
    },
    RingOrder {
        ring: usize,
    },
    RingLeft {
        ring: usize,
        copies: usize,
    },
    /// A copy of a size that its ring's slots do not take.
    CopySize {
        ring: usize,
        bytes: i64,
        most: usize,
    },
    Race {
        buffer: String,
        at: usize,
        clash: Clash,
    },
    SharedVariable {
        id: u32,
    },
    Diverged {
        op: String,
    },
    Uneven {
        op: String,
    },
    TooManyWarps {
        count: i64,
        warps: usize,
    },
    Step {
        step: i64,
    },
    DivideByZero,
    Unsupported {
        op: String,
    },
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Wrong::Arguments { want, got } => write!(f, "the kernel takes {want}, not {got}; pass one argument for each parameter, in order"),
            Wrong::OutOfBounds { buffer, at, size, len } => write!(f, "{size} bytes at byte {at} are outside `{buffer}` of {len} bytes; check the index"),
            Wrong::Misaligned { buffer, at, size } => write!(f, "{size} bytes at byte {at} of `{buffer}` are not aligned; make the offset a multiple of {size}"),
            Wrong::ReadOnly { buffer } => write!(f, "`{buffer}` is written but passed as `&Global`; take it as `&mut Global`"),
            Wrong::Undefined { id } => write!(f, "value %{id} is read where it was never computed; this is a fault of a pass, please report it"),
            Wrong::StaleSlot { ring } => write!(f, "a page of ring {ring} is read after the next one was waited for; use it in its own turn only"),
            Wrong::RingEmpty { ring } => write!(f, "ring {ring} is waited for but no copy is under way; fetch first"),
            Wrong::RingOrder { ring } => write!(f, "ring {ring} gets a copy out of turn; its place is the one after the last copy's"),
            Wrong::RingFull { ring, stages } => write!(f, "ring {ring} gets more copies than its {stages} slots hold; wait for one first"),
            Wrong::CopySize { ring, bytes, most } => write!(f, "{bytes} bytes are copied into ring {ring}; copy a multiple of 16, at least 16 and at most {most}"),
            Wrong::RingLeft { ring, copies } => write!(f, "{copies} copies into ring {ring} are under way when the kernel ends; wait for each"),
            Wrong::Race { buffer, at, clash } => match clash {
                Clash::Writes => write!(f, "byte {at} of `{buffer}` is given two values in one parallel loop; let one iteration own it"),
                Clash::ReadWrite => write!(f, "byte {at} of `{buffer}` is written and read by different threads with no barrier between; end the loop in between"),
                Clash::Core => write!(f, "byte {at} of `{buffer}` is written and then read by the tensor core with no fence and barrier between; say for_cores() and end the loop in between"),
                Clash::Copy => write!(f, "byte {at} of `{buffer}` is touched while a copy into it is under way; wait for the copy first"),
            },
            Wrong::SharedVariable { id } => write!(f, "variable %{id} is set inside a parallel loop but declared outside; keep the result in shared memory"),
            Wrong::Diverged { op } => write!(f, "`{op}` is not reached by all the lanes or threads it joins; move it out of the branch"),
            Wrong::Uneven { op } => write!(f, "`{op}` gets different operands in the lanes or warps that it joins; make them the same"),
            Wrong::TooManyWarps { count, warps } => write!(f, "a loop over {count} warps runs in a block of {warps}; loop over fewer"),
            Wrong::Step { step } => write!(f, "a loop's step is {step}; make it positive"),
            Wrong::DivideByZero => write!(f, "an integer is divided by zero; use another divisor"),
            Wrong::Unsupported { op } => write!(f, "`{op}` has no meaning here; this is a fault of a pass, please report it"),
        }
    }
}

impl fmt::Display for Trap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n  --> {}:{}, block {:?}", self.what, self.span.file, self.span.line, self.block)
    }
}

impl std::error::Error for Trap {}
