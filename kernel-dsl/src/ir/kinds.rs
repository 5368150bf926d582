//! What operations are told besides their operands: arithmetic, axes, buffers, loops, layouts of codes.

use super::Id;
use crate::dtype::DType;

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum UnOp {
    Neg,
    Not,
    Abs,
    Sqrt,
    Floor,
    Ceil,
    /// Halves to even.
    Round,
    /// Into [0, 1]; NaN becomes 0.
    Saturate,
    Popc,
    /// The same number, of which the compiler then knows nothing.
    Opaque,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum BinOp {
    Add,
    Sub,
    Mul,
    Div,
    Rem,
    And,
    Or,
    Xor,
    Shl,
    Shr,
    /// High 32 bits of a u32 product.
    MulHi,
    /// Sum of the four products of bytes, unsigned.
    Dot4,
    /// A shift to the left that from 32 bits on leaves nothing.
    ShlOut,
    /// Products of the two bf16 of each word, each rounded to nearest even.
    MulBf16x2,
    /// The larger of two magnitudes; of a NaN and a number the number's.
    Farther,
    /// The larger of two numbers; of a NaN and a number the number, of two zeros the positive one.
    Greater,
    /// The smaller, of two zeros the negative one.
    Lesser,
    /// A word's two bf16, squared, on top of those of the other: each sum rounded once.
    AddSquaresBf16x2,
    /// The larger of each two bf16 of two words, as `Greater`.
    GreaterBf16x2,
    /// The smaller, as `Lesser`.
    LesserBf16x2,
    /// The smaller of each half of two words, unsigned.
    MinU16x2,
    /// The larger, likewise.
    MaxU16x2,
    /// `if a < b { b } else { a }`
    Max,
    /// `if b < a { b } else { a }`
    Min,
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
}

impl BinOp {
    pub fn is_compare(self) -> bool {
        matches!(self, BinOp::Eq | BinOp::Ne | BinOp::Lt | BinOp::Le | BinOp::Gt | BinOp::Ge)
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ReduceOp {
    Max,
    /// Order-free on integers; on f32 only over a `Row` or a lane's rows, in the stated order.
    Add,
    /// Of bits.
    Or,
}

impl ReduceOp {
    /// What joins two elements.
    pub fn joined_by(self) -> BinOp {
        match self {
            ReduceOp::Max => BinOp::Max,
            ReduceOp::Add => BinOp::Add,
            ReduceOp::Or => BinOp::Or,
        }
    }
}

/// Which dimension of an accumulator a reduction folds.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Axis {
    /// Over the rows: gives `Cols`.
    Rows,
    /// Over the columns: gives `Rows`.
    Cols,
    /// Over the rows one lane holds, in order: gives an accumulator [8, n].
    Lane,
    /// Likewise, the first half of those rows and the second half apart: gives an accumulator [16, n].
    Half,
    /// Over a whole `Row`: gives a scalar. Lane by lane left to right, then butterfly 16, 8, 4, 2, 1.
    All,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Buf {
    Param(usize),
    Shared(usize),
    /// A slot of a ring: the id is the handle that the copy returned.
    Slot(usize, Id),
    /// Thread IR only: a thread's own words of tiles that are put by.
    Own(usize),
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Par {
    /// One iteration a warp; a block barrier follows.
    Warps,
    /// Iterations spread over the block's threads; a block barrier follows.
    Threads,
    /// One iteration a thread of the block; a warp's barrier follows.
    Warpwise,
    /// Iterations spread over the lanes of this warp.
    Lanes,
}

/// Which way a packed tile feeds the tensor core.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Feed {
    /// As [tokens, d]: blocks of 8 along k.
    Keys,
    /// As [d, tokens]: blocks of 8 along m, transposed in registers.
    Values,
    /// As `Values`, stored byte-transposed by fours of tokens: the function decodes four tokens at once.
    Quads,
    /// As `Keys`, stored byte-transposed by fours of blocks: the function decodes four blocks at once.
    KeyQuads,
    /// As `KeyQuads`; of its results word 2k + h has dims 2k and 2k + 1 of blocks 2h and 2h + 1. The last word is a 0 that nobody foresees where codes
    /// have no more than seven bytes.
    KeyTwos,
}

impl Feed {
    /// Bytes of four codes stand side by side.
    pub fn transposed(self) -> bool {
        matches!(self, Feed::Quads) || self.of_key_quads()
    }

    /// [tokens, d].
    pub fn of_keys(self) -> bool {
        matches!(self, Feed::Keys) || self.of_key_quads()
    }

    /// Keys that are stored byte-transposed.
    pub fn of_key_quads(self) -> bool {
        matches!(self, Feed::KeyQuads | Feed::KeyTwos)
    }

    /// The dim of its block and the code of four that byte `j` of result word `i` belongs to, of a transposed tile.
    pub fn place(self, i: usize, j: usize) -> (usize, usize) {
        if self == Feed::KeyTwos { (i / 2 * 2 + j % 2, i % 2 * 2 + j / 2) } else { (i, j) }
    }
}

/// A packed tile of codes: see [`crate::pack`] for where each bit lies.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Packing {
    pub bits: usize,
    pub d: usize,
    pub feed: Feed,
    /// Type of a decoded element: `U8` or `Bf16`.
    pub lane: DType,
    /// What groups of neighbouring blocks share; `Keys` and `Values` only.
    pub group: Group,
}

/// Bits that follow the code word of every block of a group, stored once for it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Group {
    /// Coordinates, a multiple of 8; 0: there are no groups.
    pub dims: usize,
    /// 8, 16 or 32.
    pub bits: usize,
}
