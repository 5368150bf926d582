//! Every operation, with its numerics: rounding and order are part of what an operation means.

use super::kinds::*;
use super::{Id, Span};
use crate::dtype::DType;

// One line an operation.
#[rustfmt::skip]
#[derive(Clone, PartialEq, Debug)]
pub enum Op {
    Const(u64),
    BlockId(usize),
    Un(UnOp, Id),
    Bin(BinOp, Id, Id),
    /// a * b + c, rounded once.
    Fma(Id, Id, Id),
    /// Bits n.. of the 64 bits (hi, lo), n below 32.
    Funnel(Id, Id, usize),
    /// Four bytes of (a, b): nibble i of the third word picks byte i; its top bit asks for the byte's sign eight times.
    Pick(Id, Id, Id),
    /// A word, plus the four products of bytes of the second, unsigned, and of the third, signed.
    AddDot4(Id, Id, Id),
    Select(Id, Id, Id),
    /// Rust's `as`: floats to integers truncate and saturate; f32 to f16/bf16 rounds to nearest even.
    Cast(Id),
    Bitcast(Id),
    VarNew(Id),
    VarGet(Id),
    VarSet(Id, Id),
    /// Byte offset into the buffer.
    Load { buf: Buf, at: Id },
    Store { buf: Buf, at: Id, value: Id },
    /// As `Load`, of an argument that an earlier launch may still be writing: what is there now, kept nowhere near.
    Peek { buf: Buf, at: Id },
    /// A hint: the line of memory with this byte will be read, or so many bytes, aligned to 16 like their number.
    Prefetch { buf: Buf, at: Id, bytes: Option<Id> },
    /// Up to four 32-bit values side by side, aligned to their size.
    LoadVec { buf: Buf, at: Id, words: usize },
    StoreVec { buf: Buf, at: Id, values: Vec<Id> },
    If { cond: Id, then: Vec<Stmt>, other: Vec<Stmt> },
    /// `var` runs lo, lo + step, .. below hi. With stages > 0 the copies in it are pipelined.
    For { var: Id, lo: Id, hi: Id, step: Id, stages: usize, body: Vec<Stmt> },
    ParFor { par: Par, var: Id, count: Id, body: Vec<Stmt> },
    Call { func: usize, args: Vec<Id> },

    // tiles
    Full(Id),
    RowIndex,
    /// 0, 1, .. along a vector.
    VectorIndex,
    /// 2^by[r % 8] in row r.
    Raise([u8; 8]),
    Reduce { op: ReduceOp, axis: Axis, src: Id },
    Any(Id),
    /// Of each column of an accumulator, whether any row holds; with `pairs` also of the column four away.
    AnyRows { src: Id, pairs: bool },
    Mma { a: Id, b: Id, c: Id },
    /// From 0; dim k of the left operand stands `by[k % 8]` bits higher, the result as the highest.
    MmaRaised { a: Id, b: Id, by: [u8; 8] },
    /// A product whose right operand [k, n] of bytes stays in shared memory, its cores at `stride`: see [`crate::pack::core_byte`]. Four warps side
    /// by side do it together.
    MmaShared { a: Id, buf: Buf, at: Id, stride: usize, c: Id },
    /// A product of 16 rows in cores and rows of lines, of a warp or four `together`; in both stages.
    MmaLines(Lines),
    /// Sum over k of a right operand: what an all-ones left operand would give.
    SumK(Id),
    /// Likewise, of what each lane holds of it: a vector, four elements a column, which `FoldFours` joins.
    LaneTotals(Id),
    /// A row of columns from a vector of four elements each, and such a vector with all of a column in the first of its four.
    FoldFours(Id),
    InFours(Id),
    Unpack { buf: Buf, at: Id, packing: Packing, func: usize },
    /// Two right operands of u8: the low bytes and the next bytes of an i32 accumulator.
    SplitBytes(Id),
    /// [n, 8] to [n / 2, 8], see [`crate::tile::pair`]: `weight` times the left columns plus the right ones, fused for f32.
    /// A row of columns stays one, both halves alike.
    FoldHalves { src: Id, weight: usize },
    /// Likewise i32 [32, 8] to pairs: `left` times the left columns plus `right` times the right ones plus `start`, a row of columns.
    FoldOnto { src: Id, left: usize, right: usize, start: Id },
    /// f32 [32, 8] to pairs: of each token the columns of the half that it lies in.
    OwnHalves(Id),
    /// Right operand [32, 8] of u8 from an i32 tile of pairs: high bytes left, low bytes right.
    SplitHalves(Id),
    /// Columns 0..4 and 4..8 change places.
    SwapHalves(Id),
    /// Columns 0..4 of a row, twice.
    LeftHalves(Id),
    /// [16, n] to [8, n]: `weight` times even rows plus odd ones, fused for f32.
    FoldRows { src: Id, weight: usize },
    /// i32 [m, 2n] to [m, n]: `weight` times the left half plus the right one.
    FoldCols { src: Id, weight: usize },
    /// Left operand [16, 32] of u8 from i32 [8, 32] whose columns are spread: of each row the second bytes, then the low ones.
    SplitRows(Id),
    /// Two left operands [m, 32] of bytes, u8 the low ones and i8 the next ones, from two i32 accumulators [m, 16]: see [`crate::pack::beside`].
    BytesBeside(Id, Id),
    /// Even and odd rows change places.
    SwapRows(Id),
    /// Each of eight rows twice.
    TwiceRows(Id),
    /// Two [8, 8] of f32 [8, 32] whose columns are spread: sums of tokens 4i and 4i + 1, and of 4i + 2 and 4i + 3.
    PairSums(Id),
    /// 0, 1, .. 31 along spread columns.
    SpreadIndex,
    /// An operand of bytes in the order of a left one that was unpacked by fours of blocks.
    QuadOrder(Id),
    /// Likewise, by twos of dims and blocks.
    TwosOrder(Id),
    /// Of each lane's run of rows of a left operand the `index`-th of `of` parts.
    Band { src: Id, index: usize, of: usize },
    /// The tokens of a tile of pairs.
    PairIndex,
    /// A tile of pairs of one value a token, `stride` bytes apart.
    LoadPairs { buf: Buf, at: Id, stride: usize, elem: DType },
    /// Accumulator whose rows are all alike: of its columns every two lie twice, side by side.
    LoadAlike { buf: Buf, at: Id },
    /// f32 of `heads` columns of memory, `stride` bytes apart, as folded halves [rows, 8] and back; columns of further heads repeat the last.
    LoadHalves { buf: Buf, at: Id, stride: usize, heads: usize },
    StoreHalves { buf: Buf, at: Id, stride: usize, heads: usize, value: Id },
    /// A tile that waits outside of registers, and back.
    PutBy { own: usize, place: Id, value: Id },
    TakeUp { own: usize, place: Id },
    /// What this turn of a loop over all threads keeps for the same turn of a later one, and has kept.
    Keep { kept: usize, turn: Id, k: usize, value: Id },
    Kept { kept: usize, turn: Id, k: usize },
    /// Left operand [16, k] of bytes out of what the turns of a warp keep from place `first` on: see [`crate::pack::kept_left`].
    KeptLeft { kept: usize, warp: Id, first: usize },
    /// An accumulator [16, n] is what the turns of a warp keep from place `first` on: see [`crate::pack::kept_acc`].
    KeepAcc { kept: usize, warp: Id, first: usize, value: Id },
    /// Right operand of bf16 from an f32 accumulator.
    ToOperand(Id),
    /// Right operand [k, n] from rows of k elements, `stride` bytes apart.
    LoadOperand { buf: Buf, at: Id, stride: usize },
    /// A vector of what lies at each byte of a vector of offsets.
    Gather { buf: Buf, at: Id },
    /// Element `index % 32` of a vector of 32; in both stages.
    OfLane(Id, Id),
    /// Columns from `cols` on repeat the one before.
    LoadTile { buf: Buf, at: Id, row_stride: usize, col_stride: usize, cols: usize, elem: DType },
    /// Left operand of bytes that lies in the order of the lanes' registers, see [`crate::pack::left_byte`].
    LoadLeft { buf: Buf, at: Id },
    /// Right operand of bytes that lies in the order of the lanes' registers, see [`crate::pack::right_byte`].
    LoadRight { buf: Buf, at: Id },
    /// A left or a right operand goes where these find it.
    StorePacked { buf: Buf, at: Id, value: Id },
    /// A left operand [n, k] of bytes becomes such a right operand [k, n]; `spread`: n is 32, its columns by [`crate::pack::spread`].
    StoreRight { buf: Buf, at: Id, value: Id, spread: bool },
    /// A byte of each number of an accumulator [8, n], along k of eight columns of a right operand in cores.
    StoreCores { buf: Buf, at: Id, byte: usize, value: Id },
    /// Columns of 32 elements side by side, by [`crate::pack::spread`].
    LoadSpread { buf: Buf, at: Id },
    /// Left operand [32, 32] of bytes: which token of a page has which number, see [`crate::tile::Page::marks`]. Tokens are its rows or its columns.
    Marks { buf: Buf, at: Id, of_keys: bool },
    /// Left operand [32, 16] of f16: a token's upper half of its word from `pairs` on where the column is its number, see [`crate::tile::Page::key_lengths`].
    Lengths { buf: Buf, at: Id, pairs: Id },
    /// Left operand [16, 128] of bytes from columns of lines: see [`crate::pack::line_byte`].
    LoadLines { buf: Buf, at: Id },
    /// Columns below `cols` only.
    StoreTile { buf: Buf, at: Id, row_stride: usize, col_stride: usize, cols: usize, value: Id },
    Hadamard(Id),

    /// What the launch before this one wrote is there from here on.
    AfterPrevious,
    /// The launch after this one may start, up to its own wait.
    ReleaseNext,

    /// What this warp's lanes wrote to shared memory is there for all of them.
    SyncWarp,
    /// What follows finds its addresses anew.
    Anew,

    // asynchronous copies
    /// 16 bytes of global memory on their way to shared memory, and what this thread has sent for is there for it.
    Bring { buf: Buf, at: Id, src: usize, from: Id },
    Brought,
    /// Copies may follow where arrays over a ring's slots were read and written, and the tensor core may read what was written, in the order of barriers.
    CopyOver,
    /// The `ahead`-th copy of the next loop through the ring, which may be under way from here on.
    CopyStart { ring: usize, src: usize, at: Id, bytes: Id, ahead: usize },
    /// Copy `bytes`, at most the ring's, from global memory; gives the slot's handle.
    CopyAsync { ring: usize, src: usize, at: Id, bytes: Id },
    /// Enqueue a copy if `cond`: the `ahead`-th after the one that is waited for next.
    RingFetch { ring: usize, src: usize, at: Id, bytes: Id, cond: Id, ahead: usize },
    /// Wait for the oldest copy; gives the slot's handle.
    RingWait { ring: usize },

    // thread IR only
    LaneId,
    ThreadId,
    /// `ThreadId` and `BlockId`, each by an instruction of its own.
    ThreadAnew,
    BlockAnew(usize),
    ShflXor(Id, usize),
    /// What all lanes of a warp have alike, so that the compiler knows it too: it then stands in a uniform register.
    Alike(Id),
    MovMatrix(Id),
    /// Four matrices of 8 x 8 halves, transposed or not: lane l has the address of row l % 8 of the l / 8-th.
    LoadMatrices { buf: Buf, at: Id, turned: bool },
    /// Bytes of (a, b) picked by the four nibbles of the selector.
    Prmt(Id, Id, u32),
    MmaRegs { kind: MmaKind, a: Vec<Id>, b: Vec<Id>, c: Vec<Id> },
    /// `MmaRegs` for several columns of eight and `steps` of k, whose `b` is cores in shared memory. No `c`: from 0.
    MmaCores { kind: MmaKind, a: Vec<Id>, steps: usize, buf: Buf, at: Id, stride: usize, c: Vec<Id> },
    AnyLane(Id),
    /// Bit l: lane l.
    Ballot(Id),
    Barrier,
    /// Adds an i64 to what a buffer holds, whoever else does at the time.
    AtomicAdd { buf: Buf, at: Id, value: Id },
}

/// Where the operands of a product lie, see [`crate::ops::mma_lines`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Lines {
    pub kind: MmaKind,
    pub a: Buf,
    pub at: Id,
    pub stride: usize,
    pub x: Buf,
    pub x_at: Id,
    pub plane: usize,
    pub planes: usize,
    pub n: usize,
    pub together: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum MmaKind {
    /// m16n8k32, u8 x s8 -> s32
    U8S8,
    /// m16n8k32, u8 x u8 -> s32
    U8U8,
    /// m16n8k32, s8 x s8 -> s32
    S8S8,
    /// m16n8k32, s8 x u8 -> s32
    S8U8,
    /// m16n8k16, bf16 x bf16 -> f32
    Bf16,
    /// m16n8k16, f16 x f16 -> f32
    F16,
}

#[derive(Clone, PartialEq, Debug)]
pub struct Stmt {
    pub op: Op,
    pub outs: Vec<Id>,
    pub span: Span,
}
