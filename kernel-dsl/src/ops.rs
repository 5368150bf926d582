//! What kernels call: parallel loops, tiles, asynchronous copies. Here they run on the CPU, one block
//! after another; the struct beside each function is its builder half.

use crate::build::{B, V};
use crate::dtype::Elem;
use crate::ir::{Layout, UnOp};
use crate::tile::{At, ByTurn, ByWarp, MmaIn, PutBy, PutByWarp, Ring, Shared, Tile, current_block};

macro_rules! twin {
    ($name:ident $(<$g:ident: $bound:path>)? , |$b:ident $(, $a:ident)*| $body:expr) => {
        #[allow(non_camel_case_types)]
        #[doc(hidden)]
        pub struct $name {}
        impl $name {
            pub fn ir $(<$g: $bound>)? ($b: &B $(, $a: V)*) -> V { $body }
        }
    };
}

/// Index of this block on grid axis 0, 1 or 2.
pub fn block_id(axis: usize) -> i32 {
    current_block()[axis] as i32
}
twin!(block_id, |b, axis| b.block_id(axis));

/// An array of `len` elements that the block's threads share; its contents are undefined at first.
pub fn shared<T: Elem>(len: usize) -> Shared<T> {
    Shared::poisoned(len)
}
twin!(shared<T: Elem>, |b, len| b.shared(T::DTYPE, len));

/// Each warp's queue of asynchronous copies: `stages` slots of `bytes` bytes.
pub fn ring(stages: usize, bytes: usize) -> Ring {
    Ring::new(stages, bytes)
}
twin!(ring, |b, stages, bytes| b.ring(stages, bytes));

/// Places for tiles like `like` that each warp puts by, outside of its registers; undefined at first.
pub fn put_by<T: Elem>(places: usize, like: &Tile<T>) -> PutBy<T> {
    PutBy::new(places, like)
}
twin!(put_by, |b, places, like| b.put_by(places, like));

/// `places` for accumulators [rows, cols] of each of the block's warps, outside of its registers: what a warp puts by in the turn of a
/// `warps(n)` loop it finds in the same turn of a later one. Undefined at first.
pub fn put_by_warp<T: Elem>(warps: usize, places: usize, rows: usize, cols: usize) -> PutByWarp<T> {
    PutByWarp::new(warps, places, rows, cols)
}
twin!(put_by_warp<T: Elem>, |b, warps, places, rows, cols| b.put_by_warp(T::DTYPE, warps, places, rows, cols));

/// `len` values for each of the block's threads: what a turn of a `threads(n)` loop puts there, the same turn of a later one
/// finds, in registers. `n` is the number of the block's threads; undefined at first.
pub fn by_turn<T: Elem>(threads: usize, len: usize) -> ByTurn<T> {
    ByTurn::new(threads, len)
}
twin!(by_turn<T: Elem>, |b, threads, len| b.kept(T::DTYPE, threads, len));

/// `len` accumulators [rows, cols] for each of the block's warps: what the turn of a `warps(n)` loop puts there, the same turn of a
/// later one finds, in registers. Undefined at first.
pub fn by_warp<T: Elem>(warps: usize, len: usize, rows: usize, cols: usize) -> ByWarp<T> {
    ByWarp::new(warps, len, rows, cols)
}
twin!(by_warp<T: Elem>, |b, warps, len, rows, cols| b.kept_tiles(T::DTYPE, warps, len, rows, cols));

/// What the launch before this one wrote may be read from here on, and not before. A kernel with it can be
/// launched before its predecessor has ended; older devices and ordinary launches wait at the start instead.
pub fn after_previous() {}
twin!(after_previous, |b| b.order(crate::ir::Op::AfterPrevious));

/// Lets a launch with `after_previous` take the places that this one's blocks leave.
pub fn release_next() {}
twin!(release_next, |b| b.order(crate::ir::Op::ReleaseNext));

/// What this warp's lanes wrote to shared memory is there for all of them from here on, and what they read may be written.
pub fn sync_warp() {}
twin!(sync_warp, |b| b.order(crate::ir::Op::SyncWarp));

/// What follows finds its addresses anew, up to the end of its block: those that depend on the number of a thread, lane, warp or block, and would
/// else be found once, wait in registers through all that stands between. For code behind a long loop.
pub fn anew() {}
twin!(anew, |b| b.order(crate::ir::Op::Anew));

/// One iteration a warp; a barrier follows.
pub fn warps(n: usize) -> std::ops::Range<i32> {
    0..n as i32
}

/// Iterations spread over the block's threads; a barrier follows. They may come in any order.
pub fn threads(n: impl Count) -> std::ops::Range<i32> {
    0..n.count()
}

/// One turn for each of the block's `n` threads, as [`threads`]; behind it only the turns of a warp wait for one another.
pub fn warpwise(n: usize) -> std::ops::Range<i32> {
    0..n as i32
}

/// Iterations spread over the lanes of a warp.
pub fn lanes(n: impl Count) -> std::ops::Range<i32> {
    0..n.count()
}

/// A number of iterations: a size known when the kernel is built, or an i32.
pub trait Count {
    fn count(self) -> i32;
}
impl Count for usize {
    fn count(self) -> i32 {
        self as i32
    }
}
impl Count for i32 {
    fn count(self) -> i32 {
        self.max(0)
    }
}

/// lo, lo + step, .. below hi.
pub fn strided(lo: i32, hi: i32, step: impl Step) -> impl Iterator<Item = i32> {
    (lo..hi.max(lo)).step_by(step.get())
}

/// As `strided`, its copies running `stages - 1` turns ahead.
pub fn stream(lo: i32, hi: i32, step: impl Step, _stages: usize) -> impl Iterator<Item = i32> {
    strided(lo, hi, step)
}

/// A loop's step: a size known when the kernel is built, or an i32.
pub trait Step {
    fn get(self) -> usize;
}
impl Step for usize {
    fn get(self) -> usize {
        self.max(1)
    }
}
impl Step for i32 {
    fn get(self) -> usize {
        self.max(1) as usize
    }
}

/// Accumulator [rows, cols] full of `v`.
pub fn acc<T: Elem>(rows: usize, cols: usize, v: T) -> Tile<T> {
    Tile::full(rows, cols, Layout::MmaC, v)
}
twin!(acc, |b, rows, cols, v| b.full((rows, cols), Layout::MmaC, v));

/// One value a column of an accumulator.
pub fn cols<T: Elem>(n: usize, v: T) -> Tile<T> {
    Tile::full(1, n, Layout::Cols, v)
}
twin!(cols, |b, n, v| b.full((V::Int(1), n), Layout::Cols, v));

/// One value a row of an accumulator.
pub fn rows<T: Elem>(n: usize, v: T) -> Tile<T> {
    Tile::full(n, 1, Layout::Rows, v)
}
twin!(rows, |b, n, v| b.full((n, V::Int(1)), Layout::Rows, v));

/// A vector of `n` elements over the lanes of a warp.
pub fn vector<T: Elem>(n: usize, v: T) -> Tile<T> {
    Tile::full(1, n, Layout::Row, v)
}
twin!(vector, |b, n, v| b.full((V::Int(1), n), Layout::Row, v));

/// 0, 1, .. n - 1 down the rows.
pub fn row_ids(n: usize) -> Tile<i32> {
    Tile { rows: n, cols: 1, layout: Layout::Rows, data: (0..n as i32).collect() }
}
twin!(row_ids, |b, n| b.row_ids(n));

/// 0, 1, .. n - 1 along a vector.
pub fn vector_ids(n: usize) -> Tile<i32> {
    Tile { rows: 1, cols: n, layout: Layout::Row, data: (0..n as i32).collect() }
}
twin!(vector_ids, |b, n| b.vector_ids(n));

/// `2^by[r % 8]` in row r: what a left operand's dims are worth that stand `by` bits higher.
pub fn raise(n: usize, by: [usize; 8]) -> Tile<i32> {
    Tile { rows: n, cols: 1, layout: Layout::Rows, data: (0..n).map(|r| 1 << by[r % 8]).collect() }
}
twin!(raise, |b, n, by| b.raise(n, by));

/// As [`mma`] from 0, for keys by fours of blocks whose dim k stands `by[k % 8]` bits higher: `2^max(by)` times the
/// product of what they stand for. `by` is the same for dims that one step of k takes.
pub fn mma_raised(a: &Tile<u8>, x: &Tile<i8>, by: [usize; 8]) -> Tile<i32> {
    let top = by.into_iter().fold(0, usize::max);
    let data = (0..a.rows * x.cols)
        .map(|i| {
            (0..a.cols).fold(0_i32, |sum, k| {
                let product = i32::from(a.get(i / x.cols, k)) * i32::from(x.get(k, i % x.cols));
                sum.wrapping_add(product.wrapping_shl((top - by[k % 8]) as u32))
            })
        })
        .collect();
    Tile { rows: a.rows, cols: x.cols, layout: Layout::MmaC, data }
}
twin!(mma_raised, |b, a, x, by| b.mma_raised(a, x, by));

/// 0, 1, .. 31 along columns that are spread: see [`crate::pack::spread`].
pub fn spread_ids() -> Tile<i32> {
    Tile { rows: 1, cols: 32, layout: Layout::Cols, data: (0..32).map(|c| crate::pack::spread(c) as i32).collect() }
}
twin!(spread_ids, |b| b.spread_ids());

/// Right operand [k, n] full of `v`.
pub fn right<T: Elem>(k: usize, n: usize, v: T) -> Tile<T> {
    Tile::full(k, n, Layout::MmaB, v)
}
twin!(right, |b, k, n, v| b.full((k, n), Layout::MmaB, v));

/// Left operand full of `v`.
pub fn left_full<T: Elem>(m: usize, k: usize, v: T) -> Tile<T> {
    Tile::full(m, k, Layout::MmaA, v)
}
twin!(left_full, |b, m, k, v| b.full((m, k), Layout::MmaA, v));

/// The tokens of a tile of pairs: see [`crate::tile::pair`].
pub fn pair_ids() -> Tile<i32> {
    Tile { rows: 16, cols: 8, layout: Layout::MmaC, data: crate::tile::pair::tile(|t, _| t as i32) }
}
twin!(pair_ids, |b| b.pair_ids());

/// a x + c on the tensor core. u8 and i8 by i8 or u8 sum in i32 exactly; bf16 and f16 in f32, k ascending on the CPU.
pub fn mma<A: MmaIn<X>, X: Elem>(a: &Tile<A>, x: &Tile<X>, c: impl crate::tile::MmaStart<A::Acc>) -> Tile<A::Acc> {
    A::mma(a, x, c)
}
twin!(mma, |b, a, x, c| b.mma(a, x, c));

/// As [`mma`] for bytes whose right operand [k, n] stays in shared memory as [`crate::pack::core_byte`] says, from byte `at` on. Four warps side by side
/// do it together, each with rows of its own and all with the same `at`; behind what was written stand [`for_cores`] and a barrier.
pub fn mma_shared<A: MmaIn<X>, X: Elem>(a: &Tile<A>, x: &Shared<X>, at: impl At, stride: usize, n: usize, c: impl crate::tile::MmaStart<A::Acc>) -> Tile<A::Acc> {
    A::mma(a, &x.cores(at, stride, a.cols, n), c)
}
twin!(mma_shared, |b, a, x, at, stride, n, c| b.mma_shared(a, x, at, stride, n, c));

/// 16 rows in cores, from byte `at` on, their groups of eight in turn the even and the odd rows of the result, by `n` rows of lines from byte `x_at` on: sums
/// over the bytes of `planes` lines. `together`: four warps side by side do it together, each with the next 16 rows and all with the same
/// `x_at`; 1: each by itself, as elsewhere than on sm_90a in any case.
#[allow(clippy::too_many_arguments)]
pub fn mma_lines<A: MmaIn<X, Acc = i32>, X: Elem>(a: &Shared<A>, at: impl At, stride: usize, x: &Shared<X>, x_at: impl At, plane: usize, planes: usize, n: usize, _together: usize) -> Tile<i32> {
    let (at, x_at) = (at.at(), x_at.at());
    let sum = |r: usize, col: usize| {
        (0..128 * planes).fold(0, |sum, k| {
            let left = a.load(at + crate::pack::core_row(stride, r, k));
            A::step(sum, left, x.load(x_at + crate::pack::line_byte(plane, col, k)))
        })
    };
    Tile { rows: 16, cols: n, layout: Layout::MmaC, data: (0..16 * n).map(|i| sum(i / n, i % n)).collect() }
}
twin!(mma_lines, |b, a, at, stride, x, x_at, plane, planes, n, together| b.mma_lines([a, at, stride], [x, x_at, plane], [planes, n, together]));

/// All that this thread sent for by [`Shared::bring`] is there, for it alone; for its warp behind [`sync_warp`], for all behind a barrier.
pub fn brought() {}
twin!(brought, |b| b.order(crate::ir::Op::Brought));

/// What this thread or warp wrote to shared memory is there for [`mma_shared`] behind the next barrier.
pub fn for_cores() {}
twin!(for_cores, |b| b.order(crate::ir::Op::CopyOver));

/// Number of one bits.
pub fn popc(x: u32) -> u32 {
    x.count_ones()
}
twin!(popc, |b, x| b.unary(UnOp::Popc, x));
