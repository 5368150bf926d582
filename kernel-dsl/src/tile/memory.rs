//! Buffers in global and shared memory on the CPU. Everything is bytes, as on the device.

use super::Tile;
use crate::dtype::Elem;
use crate::ir::Layout;
use crate::pack::{core_byte, kept_acc, kept_left, left_byte, line_byte, line_place, right_byte, spread};
use std::marker::PhantomData;

/// A buffer in device memory: a kernel's argument.
#[derive(Clone, Debug)]
pub struct Global<T> {
    pub bytes: Vec<u8>,
    kind: PhantomData<T>,
}

/// An array in a block's shared memory.
#[derive(Clone, Debug)]
pub struct Shared<T> {
    pub bytes: Vec<u8>,
    kind: PhantomData<T>,
}

/// Tiles that a warp has put by, each in a place.
#[derive(Clone, Debug)]
pub struct PutBy<T> {
    tiles: Vec<Tile<T>>,
}

/// Values that turns of a loop over a block's threads keep for themselves.
#[derive(Clone, Debug)]
pub struct ByTurn<T> {
    values: Vec<T>,
    len: usize,
}

/// Tiles that turns of a loop over a block's warps keep for themselves.
#[derive(Clone, Debug)]
pub struct ByWarp<T> {
    tiles: Vec<Tile<T>>,
    len: usize,
}

/// Places of each warp for tiles that outlast a loop over warps.
#[derive(Clone, Debug)]
pub struct PutByWarp<T> {
    tiles: Vec<Tile<T>>,
    places: usize,
}

impl<T: Elem> PutByWarp<T> {
    pub fn new(warps: usize, places: usize, rows: usize, cols: usize) -> Self {
        PutByWarp { tiles: vec![Tile::full(rows, cols, Layout::MmaC, T::from_bits64(0xa5a5_a5a5)); warps * places], places }
    }
    /// What warp `w` has put by in a place.
    pub fn at(&self, w: i32, place: i32) -> Tile<T> {
        assert!(place.at() < self.places, "place {place} of {}", self.places);
        self.tiles[w.at() * self.places + place.at()].clone()
    }
    pub fn put(&mut self, w: i32, place: i32, t: &Tile<T>) {
        assert!(place.at() < self.places, "place {place} of {}", self.places);
        self.tiles[w.at() * self.places + place.at()] = t.clone();
    }
}

impl<T: Elem> ByWarp<T> {
    pub fn new(warps: usize, len: usize, rows: usize, cols: usize) -> Self {
        ByWarp { tiles: vec![Tile::full(rows, cols, Layout::MmaC, T::from_bits64(0xa5a5_a5a5)); warps * len], len }
    }
    /// Tile `k` of warp `w`.
    pub fn at(&self, w: i32, k: usize) -> Tile<T> {
        self.tiles[w.at() * self.len + k].clone()
    }
    pub fn put(&mut self, w: i32, k: usize, t: &Tile<T>) {
        self.tiles[w.at() * self.len + k] = t.clone();
    }
}

impl<T: Elem> ByTurn<T> {
    pub fn new(threads: usize, len: usize) -> Self {
        ByTurn { values: vec![T::from_bits64(0xa5a5_a5a5); threads * len], len }
    }
    /// Value `k` of turn `i`.
    pub fn at(&self, i: i32, k: usize) -> T {
        self.values[i.at() * self.len + k]
    }
    pub fn put(&mut self, i: i32, k: usize, v: T) {
        self.values[i.at() * self.len + k] = v;
    }
    /// Rows 2g and 2g + 1 of an accumulator [16, n] of warp `w` become what its turns 4g + t keep from place `first` on, see [`kept_acc`]: what stays in
    /// registers costs nothing.
    pub fn put_acc(&mut self, w: i32, first: usize, tile: &Tile<T>) {
        for (i, v) in tile.data.iter().enumerate() {
            let (lane, k) = kept_acc(i / tile.cols, i % tile.cols);
            self.values[(32 * w.at() + lane) * self.len + first + k] = *v;
        }
    }
}

impl ByTurn<u32> {
    /// Left operand [16, k] of bytes of warp `w`: its turn 4g + t keeps the t-th quarters of rows 2g and 2g + 1, four bytes a word, from place `first` on
    /// as [`kept_left`] says.
    pub fn left(&self, w: i32, first: usize, k: usize) -> Tile<i8> {
        let byte = |i: usize| {
            let (lane, word, byte) = kept_left(k, i / k, i % k);
            self.values[(32 * w.at() + lane) * self.len + first + word].to_le_bytes()[byte] as i8
        };
        Tile { rows: 16, cols: k, layout: Layout::MmaA, data: (0..16 * k).map(byte).collect() }
    }
}

impl<T: Elem> PutBy<T> {
    pub fn new(places: usize, like: &Tile<T>) -> Self {
        let poison = T::from_bits64(0xa5a5_a5a5);
        PutBy { tiles: vec![like.map(|_| poison); places.max(1)] }
    }
    pub fn at(&self, place: i32) -> Tile<T> {
        self.tiles[place.at()].clone()
    }
    pub fn put(&mut self, place: i32, t: &Tile<T>) {
        self.tiles[place.at()] = t.clone();
    }
}

/// An index: negative ones are caught here, on the CPU.
pub trait At: Copy {
    fn at(self) -> usize;
}
impl At for usize {
    fn at(self) -> usize {
        self
    }
}
impl At for i32 {
    fn at(self) -> usize {
        usize::try_from(self).unwrap_or(usize::MAX / 16)
    }
}
impl At for i64 {
    fn at(self) -> usize {
        usize::try_from(self).unwrap_or(usize::MAX / 16)
    }
}

pub(crate) fn read<U: Elem>(bytes: &[u8], at: usize) -> U {
    let n = U::DTYPE.size();
    U::from_bits64(bytes[at..at + n].iter().rev().fold(0, |a, x| a << 8 | *x as u64))
}

pub(crate) fn write<U: Elem>(bytes: &mut [u8], at: usize, v: U) {
    let n = U::DTYPE.size();
    bytes[at..at + n].copy_from_slice(&v.to_bits64().to_le_bytes()[..n]);
}

impl<T: Elem> Global<T> {
    pub fn new(values: &[T]) -> Self {
        let mut g = Self::zeroed(values.len());
        for (i, v) in values.iter().enumerate() {
            write(&mut g.bytes, i * T::DTYPE.size(), *v);
        }
        g
    }
    pub fn zeroed(len: usize) -> Self {
        Global { bytes: vec![0; len * T::DTYPE.size()], kind: PhantomData }
    }
    /// Elements, in order.
    pub fn to_vec(&self) -> Vec<T> {
        (0..self.bytes.len() / T::DTYPE.size()).map(|i| self.at(i)).collect()
    }
}

impl<T: Elem> Shared<T> {
    /// Undefined contents: a pattern that no result should show.
    pub fn poisoned(len: usize) -> Self {
        Shared { bytes: vec![0xa5; len * T::DTYPE.size()], kind: PhantomData }
    }
    /// The elements that a vector names.
    pub fn gather(&self, ids: &Tile<i32>) -> Tile<T> {
        ids.map(|i| self.at(i))
    }
    /// Right operand [k, n] of bytes in cores: see [`crate::pack::core_byte`].
    pub(crate) fn cores(&self, byte: impl At, stride: usize, k: usize, n: usize) -> Tile<T> {
        let data = (0..k * n).map(|i| self.load(byte.at() + core_byte(k, stride, i / n, i % n))).collect();
        Tile { rows: k, cols: n, layout: Layout::MmaB, data }
    }
    /// 16 bytes of global memory come to byte `at`, both offsets multiples of 16, while other work goes on; [`crate::ops::brought`] tells when they are there.
    pub fn bring<G: Elem>(&mut self, at: impl At, from: &Global<G>, byte: impl At) {
        let (at, byte) = (at.at(), byte.at());
        self.bytes[at..at + 16].copy_from_slice(&from.bytes[byte..byte + 16]);
    }
    /// Byte `byte` of each number of [8, n], n rows of lines under eight columns of a right operand, as [`crate::ops::mma_shared`] reads it
    /// with a left one of their columns.
    pub fn put_cores(&mut self, at: impl At, byte: usize, t: &Tile<i32>) {
        for k in 0..t.cols {
            (0..8).for_each(|col| self.save(at.at() + core_byte(t.cols, 0, k, col), (t.get(col, line_place(t.cols, k)) >> (8 * byte)) as u8));
        }
    }
}

macro_rules! memory {
    ($name:ident) => {
        impl<T: Elem> $name<T> {
            /// Element `i`.
            pub fn at(&self, i: impl At) -> T {
                read(&self.bytes, i.at() * T::DTYPE.size())
            }
            pub fn put(&mut self, i: impl At, v: T) {
                write(&mut self.bytes, i.at() * T::DTYPE.size(), v)
            }
            /// A `U` at a byte offset.
            pub fn load<U: Elem>(&self, byte: impl At) -> U {
                read(&self.bytes, byte.at())
            }
            pub fn save<U: Elem>(&mut self, byte: impl At, v: U) {
                write(&mut self.bytes, byte.at(), v)
            }
            /// A hint that the line of global memory with this byte will be read. The byte must be one of the buffer's.
            pub fn prefetch(&self, byte: impl At) {
                let _: u8 = self.load(byte);
            }
            /// Likewise for so many bytes, from sm_90 on; both are multiples of 16.
            pub fn prefetch_some(&self, byte: impl At, bytes: i32) {
                (0..bytes as usize).for_each(|i| self.prefetch(byte.at() + i));
            }
            /// Element `i` as it is now, though an earlier launch may still be writing it: before `after_previous` it may be old.
            /// What is read after that is read anew.
            pub fn peek(&self, i: impl At) -> T {
                self.at(i)
            }
            /// Four 32-bit values from a byte offset, a multiple of 16, on.
            pub fn load4<U: Elem>(&self, byte: impl At) -> [U; 4] {
                std::array::from_fn(|i| self.load(byte.at() + 4 * i))
            }
            pub fn save4<U: Elem>(&mut self, byte: impl At, v: [U; 4]) {
                v.into_iter().enumerate().for_each(|(i, v)| self.save(byte.at() + 4 * i, v))
            }
            fn tile(&self, at: usize, strides: (usize, usize), shape: (usize, usize), layout: Layout) -> Tile<T> {
                let (rows, cols) = shape;
                let data = (0..rows * cols).map(|i| self.at(at + i / cols * strides.0 + i % cols * strides.1)).collect();
                Tile { rows, cols, layout, data }
            }
            fn put_tile(&mut self, at: usize, strides: (usize, usize), cols: usize, t: &Tile<T>) {
                for r in 0..t.rows {
                    for c in 0..t.cols.min(cols) {
                        self.put(at + r * strides.0 + c * strides.1, t.get(r, c));
                    }
                }
            }
            /// `n` elements from element `at` on.
            pub fn row(&self, at: impl At, n: usize) -> Tile<T> {
                self.tile(at.at(), (0, 1), (1, n), Layout::Row)
            }
            pub fn put_row(&mut self, at: impl At, t: &Tile<T>) {
                self.put_tile(at.at(), (0, 1), usize::MAX, t)
            }
            /// `n` elements, `stride` apart, one a row of an accumulator.
            pub fn rows(&self, at: impl At, stride: usize, n: usize) -> Tile<T> {
                self.tile(at.at(), (stride, 0), (n, 1), Layout::Rows)
            }
            /// `n` elements, `stride` apart, one a column of an accumulator.
            pub fn cols(&self, at: impl At, stride: usize, n: usize) -> Tile<T> {
                self.tile(at.at(), (0, stride), (1, n), Layout::Cols)
            }
            /// The first `cols` values of a column vector.
            pub fn put_cols(&mut self, at: impl At, stride: usize, cols: usize, t: &Tile<T>) {
                self.put_tile(at.at(), (0, stride), cols, t)
            }
            /// The first `cols` columns of an accumulator; strides of a row and of a column.
            pub fn put_acc(&mut self, at: impl At, row: usize, col: usize, cols: usize, t: &Tile<T>) {
                self.put_tile(at.at(), (row, col), cols, t)
            }
            /// What `put_acc` left with a row stride of 1, as an accumulator [rows, n]; columns from `cols` on repeat the one before.
            pub fn acc(&self, at: impl At, col: usize, cols: usize, rows: usize, n: usize) -> Tile<T> {
                let data = (0..rows * n).map(|i| self.at(at.at() + i / n + (i % n).min(cols - 1) * col)).collect();
                Tile { rows, cols: n, layout: Layout::MmaC, data }
            }
            /// Folded halves of `heads` columns: each in its own order from element `at` on, `stride` apart.
            pub fn put_halves(&mut self, at: impl At, stride: usize, heads: usize, t: &Tile<T>) {
                for i in (0..t.rows * 8).filter(|i| i % 4 < heads) {
                    self.put(at.at() + i % 4 * stride + super::pair::whose(2 * t.rows, i / 8, i % 8), t.get(i / 8, i % 8));
                }
            }
            /// What `put_halves` left, as [rows, 8]; columns of further heads repeat the last.
            pub fn halves(&self, at: impl At, stride: usize, heads: usize, rows: usize) -> Tile<T> {
                let data = (0..rows * 8).map(|i| self.at(at.at() + (i % 4).min(heads - 1) * stride + super::pair::whose(2 * rows, i / 8, i % 8))).collect();
                Tile { rows, cols: 8, layout: Layout::MmaC, data }
            }
            /// Right operand [k, n] from n rows of k elements of type `U`, `stride` bytes apart.
            pub fn operand<U: Elem>(&self, byte: impl At, stride: usize, n: usize, k: usize) -> Tile<U> {
                let data = (0..k * n).map(|i| self.load(byte.at() + i % n * stride + i / n * U::DTYPE.size())).collect();
                Tile { rows: k, cols: n, layout: Layout::MmaB, data }
            }
            /// `n` values of type `U` from a byte offset on, `stride` bytes apart, one a column of an accumulator.
            pub fn columns<U: Elem>(&self, byte: impl At, stride: usize, n: usize) -> Tile<U> {
                Tile { rows: 1, cols: n, layout: Layout::Cols, data: (0..n).map(|i| self.load(byte.at() + i * stride)).collect() }
            }
            /// Accumulator [rows, n] whose rows are all alike: every two columns lie twice, side by side, from a multiple of 16 on.
            pub fn alike<U: Elem>(&self, byte: impl At, rows: usize, n: usize) -> Tile<U> {
                let data = (0..rows * n).map(|i| self.load(byte.at() + i % n / 2 * 16 + i % 2 * U::DTYPE.size())).collect();
                Tile { rows, cols: n, layout: Layout::MmaC, data }
            }
            /// The same, one a row of an accumulator.
            pub fn rows_at<U: Elem>(&self, byte: impl At, stride: usize, n: usize) -> Tile<U> {
                Tile { rows: n, cols: 1, layout: Layout::Rows, data: (0..n).map(|i| self.load(byte.at() + i * stride)).collect() }
            }
            /// A vector of `U` at a byte offset.
            pub fn save_row<U: Elem>(&mut self, byte: impl At, t: &Tile<U>) {
                for (i, v) in t.data.iter().enumerate() {
                    self.save(byte.at() + i * U::DTYPE.size(), *v);
                }
            }
            /// As `put_acc` for elements of type `U`, from a byte offset on, strides in bytes.
            pub fn save_acc<U: Elem>(&mut self, byte: impl At, row: usize, col: usize, cols: usize, t: &Tile<U>) {
                for (i, v) in t.data.iter().enumerate().filter(|(i, _)| i % t.cols < cols) {
                    self.save(byte.at() + i / t.cols * row + i % t.cols * col, *v);
                }
            }
            /// Left operand [m, k] of bytes that lies in the order of the lanes' registers: see [`crate::pack::left_byte`].
            pub fn packed_left<U: Elem>(&self, byte: impl At, m: usize, k: usize) -> Tile<U> {
                let data = (0..m * k).map(|i| self.load(byte.at() + left_byte(m, k, i / k, i % k))).collect();
                Tile { rows: m, cols: k, layout: Layout::MmaA, data }
            }
            /// And back.
            pub fn save_left<U: Elem>(&mut self, byte: impl At, t: &Tile<U>) {
                for (i, v) in t.data.iter().enumerate() {
                    self.save(byte.at() + left_byte(t.rows, t.cols, i / t.cols, i % t.cols), *v);
                }
            }
            /// Right operand [k, n] that lies in the order of the lanes' registers, k bytes a column or half as many elements of two: see
            /// [`crate::pack::right_byte`].
            pub fn packed_right<U: Elem>(&self, byte: impl At, k: usize, n: usize) -> Tile<U> {
                let size = U::DTYPE.size();
                let data = (0..k * n).map(|i| self.load(byte.at() + right_byte(size * k, size * (i / n), i % n))).collect();
                Tile { rows: k, cols: n, layout: Layout::MmaB, data }
            }
            /// And back.
            pub fn save_operand<U: Elem>(&mut self, byte: impl At, t: &Tile<U>) {
                for (i, v) in t.data.iter().enumerate() {
                    self.save(byte.at() + right_byte(t.rows, i / t.cols, i % t.cols), *v);
                }
            }
            /// A left operand [n, k] of bytes as such a right operand [k, n].
            pub fn save_right<U: Elem>(&mut self, byte: impl At, t: &Tile<U>) {
                for (i, v) in t.data.iter().enumerate() {
                    self.save(byte.at() + right_byte(t.cols, i % t.cols, i / t.cols), *v);
                }
            }
            /// Likewise of 32 rows, which become columns by [`crate::pack::spread`].
            pub fn save_spread<U: Elem>(&mut self, byte: impl At, t: &Tile<U>) {
                for (i, v) in t.data.iter().enumerate() {
                    self.save(byte.at() + right_byte(t.cols, i % t.cols, spread(i / t.cols)), *v);
                }
            }
            /// 32 elements side by side, one a column by [`crate::pack::spread`]; four bytes each, from a multiple of four on.
            pub fn spread(&self, at: impl At) -> Tile<T> {
                Tile { rows: 1, cols: 32, layout: Layout::Cols, data: (0..32).map(|c| self.at(at.at() + spread(c))).collect() }
            }
            /// The values of a column of rows, `stride` apart.
            pub fn put_rows(&mut self, at: impl At, stride: usize, t: &Tile<T>) {
                self.put_tile(at.at(), (stride, 0), usize::MAX, t)
            }
            /// Left operand [16, 128] of bytes from columns of 128 rows of lines, see [`crate::pack::line_byte`]: row r is the r-th byte from `at` on, a multiple
            /// of 16, place k row [`crate::pack::line_place`].
            pub fn line_columns<U: Elem>(&self, byte: impl At) -> Tile<U> {
                let (base, by) = (byte.at() / 128 * 128, byte.at() % 128);
                let data = (0..16 * 128).map(|i| self.load(base + line_byte(0, line_place(128, i % 128), by + i / 128))).collect();
                Tile { rows: 16, cols: 128, layout: Layout::MmaA, data }
            }
            /// Left operand [m, k] from m rows of k elements, `stride` apart.
            pub fn left(&self, at: impl At, stride: usize, m: usize, k: usize) -> Tile<T> {
                self.tile(at.at(), (stride, 1), (m, k), Layout::MmaA)
            }
        }
    };
}
memory!(Global);
memory!(Shared);
