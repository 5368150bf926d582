//! Tiles on the CPU: whole matrices, no lanes. This is how a kernel runs as plain Rust.

mod arith;
mod fold;
mod launch;
mod memory;
mod mma;
mod page;
pub mod pair;

pub(crate) use fold::{four, fours};
pub use launch::{current_block, launch};
pub use memory::{At, ByTurn, ByWarp, Global, PutBy, PutByWarp, Shared};
pub(crate) use mma::band_row;
pub use mma::{MmaIn, MmaStart};
pub use page::{MARK, Page, Ring};

use crate::dtype::{Elem, Float, bf16};
use crate::ir::Layout;

/// A warp's tile, row-major. The layout says what it may be combined with; see [`Layout`].
#[derive(Clone, Debug, PartialEq)]
pub struct Tile<T> {
    pub rows: usize,
    pub cols: usize,
    pub layout: Layout,
    pub data: Vec<T>,
}

impl<T: Elem> Tile<T> {
    pub fn full(rows: usize, cols: usize, layout: Layout, v: T) -> Self {
        Tile { rows, cols, layout, data: vec![v; rows * cols] }
    }

    pub fn get(&self, r: usize, c: usize) -> T {
        self.data[r * self.cols + c]
    }

    /// Element that meets (r, c) of an accumulator: a row or column vector repeats itself.
    fn broadcast(&self, r: usize, c: usize) -> T {
        match self.layout {
            Layout::Rows => self.data[r],
            Layout::Cols => self.data[c],
            _ => self.get(r, c),
        }
    }

    /// The tile whose shape the result of combining the two has.
    fn shape_with<U>(&self, o: &Tile<U>) -> (usize, usize, Layout) {
        match (self.layout, o.layout) {
            // A column of rows and a row of columns span an accumulator.
            (Layout::Rows, Layout::Cols) => return (self.rows, o.cols, Layout::MmaC),
            (Layout::Cols, Layout::Rows) => return (o.rows, self.cols, Layout::MmaC),
            _ => {}
        }
        if self.layout == Layout::MmaC || self.layout == o.layout { (self.rows, self.cols, self.layout) } else { (o.rows, o.cols, o.layout) }
    }

    /// Element `index % 32` of a vector of 32.
    pub fn of_lane(&self, index: i32) -> T {
        self.data[(index & 31) as usize]
    }

    pub fn map<U: Elem>(&self, f: impl Fn(T) -> U) -> Tile<U> {
        Tile { rows: self.rows, cols: self.cols, layout: self.layout, data: self.data.iter().map(|x| f(*x)).collect() }
    }

    pub fn map2<A: Elem, U: Elem>(&self, a: &Tile<A>, f: impl Fn(T, A) -> U) -> Tile<U> {
        let (rows, cols, layout) = self.shape_with(a);
        let data = (0..rows * cols).map(|i| f(self.broadcast(i / cols, i % cols), a.broadcast(i / cols, i % cols))).collect();
        Tile { rows, cols, layout, data }
    }

    pub fn map3<A: Elem, C: Elem, U: Elem>(&self, a: &Tile<A>, c: &Tile<C>, f: impl Fn(T, A, C) -> U) -> Tile<U> {
        let (rows, cols, layout) = self.shape_with(a);
        let data = (0..rows * cols)
            .map(|i| {
                let (r, k) = (i / cols, i % cols);
                f(self.broadcast(r, k), a.broadcast(r, k), c.broadcast(r, k))
            })
            .collect();
        Tile { rows, cols, layout, data }
    }
}

impl Tile<bool> {
    /// True if any element is.
    pub fn any(&self) -> bool {
        self.data.iter().any(|x| *x)
    }

    /// Of each column whether any row is; of pairs (`parts` 2) also of the column four away.
    pub fn any_rows(&self, parts: usize) -> Tile<bool> {
        let holds = |c: usize| (0..self.rows).any(|r| self.get(r, c));
        let data = (0..self.cols).map(|c| holds(c) || parts == 2 && holds(c ^ 4)).collect();
        Tile { rows: 1, cols: self.cols, layout: Layout::Cols, data }
    }
}

impl<T: Float> Tile<T> {
    pub fn to_f32(&self) -> Tile<f32> {
        self.map(T::to_f32)
    }
}

impl Tile<f32> {
    /// The Sylvester-Hadamard transform of a vector, natural order, unscaled: stages h = 1, 2, 4, ..
    pub fn hadamard(&self) -> Tile<f32> {
        let mut out = self.clone();
        let mut h = 1;
        while h < out.cols {
            for i in (0..out.cols).filter(|i| i & h == 0) {
                let (a, b) = (out.data[i], out.data[i + h]);
                out.data[i] = a + b;
                out.data[i + h] = a - b;
            }
            h *= 2;
        }
        out
    }

    /// Sum of a vector: 32 lanes left to right, then a butterfly over 16, 8, 4, 2, 1.
    pub fn sum(&self) -> f32 {
        let own = self.cols / 32;
        let mut lanes: Vec<f32> = self.data.chunks(own).map(|c| c[1..].iter().fold(c[0], |a, x| a + x)).collect();
        for off in [16, 8, 4, 2, 1] {
            let prev = lanes.clone();
            for (i, l) in lanes.iter_mut().enumerate() {
                *l = prev[i] + prev[i ^ off];
            }
        }
        lanes[0]
    }

    /// self * a + c, rounded once an element.
    pub fn mul_add(&self, a: f32, c: &Tile<f32>) -> Tile<f32> {
        self.map2(c, |x, c| x.mul_add(a, c))
    }

    /// Rounded to nearest even.
    pub fn to<T: Float>(&self) -> Tile<T> {
        self.map(T::from_f32)
    }

    /// Largest element of a vector.
    pub fn max(&self) -> f32 {
        self.data[1..].iter().fold(self.data[0], |a, x| crate::math::fmax(a, *x))
    }

    /// Right operand of bf16, rounded to nearest even.
    pub fn to_operand(&self) -> Tile<bf16> {
        let mut t = self.map(bf16::from_f32);
        t.layout = Layout::MmaB;
        t
    }
}

impl Tile<i32> {
    /// Sum of a vector.
    pub fn sum(&self) -> i32 {
        self.data.iter().fold(0, |a, x| a.wrapping_add(*x))
    }

    /// Two right operands: the low bytes and the next bytes.
    pub fn split_bytes(&self) -> (Tile<u8>, Tile<u8>) {
        let part = |s: i32| Tile { rows: self.rows, cols: self.cols, layout: Layout::MmaB, data: self.data.iter().map(|x| (x >> s) as u8).collect() };
        (part(0), part(8))
    }
}

impl Tile<u8> {
    /// Sums of a right operand over k.
    pub fn sum_k(&self) -> Tile<i32> {
        let data = (0..self.cols).map(|c| (0..self.rows).map(|r| self.get(r, c) as i32).sum()).collect();
        Tile { rows: 1, cols: self.cols, layout: Layout::Cols, data }
    }
}

/// Elements whose sum has no order to speak of.
pub trait OrderFree: Elem {
    fn plus(self, o: Self) -> Self;
}
impl OrderFree for i32 {
    fn plus(self, o: i32) -> i32 {
        self.wrapping_add(o)
    }
}
impl OrderFree for i64 {
    fn plus(self, o: i64) -> i64 {
        self.wrapping_add(o)
    }
}

impl<T: Elem> Tile<T> {
    fn down(&self, from: usize, n: usize, f: impl Fn(T, T) -> T) -> Vec<T> {
        (0..self.cols).map(|c| (from + 1..from + n).fold(self.get(from, c), |a, r| f(a, self.get(r, c)))).collect()
    }

    /// Largest element of each column.
    pub fn max_rows(&self) -> Tile<T> {
        let data = self.down(0, self.rows, |a, b| if a < b { b } else { a });
        Tile { rows: 1, cols: self.cols, layout: Layout::Cols, data }
    }

    /// Largest element of each row.
    pub fn max_cols(&self) -> Tile<T> {
        let data = self.data.chunks(self.cols).map(|r| r[1..].iter().fold(r[0], |a, b| if a < *b { *b } else { a })).collect();
        Tile { rows: self.rows, cols: 1, layout: Layout::Rows, data }
    }
}

impl<T: OrderFree> Tile<T> {
    /// Sum of each column.
    pub fn sum_rows(&self) -> Tile<T> {
        Tile { rows: 1, cols: self.cols, layout: Layout::Cols, data: self.down(0, self.rows, T::plus) }
    }

    /// Sum of each row.
    pub fn sum_cols(&self) -> Tile<T> {
        let data = self.data.chunks(self.cols).map(|r| r[1..].iter().fold(r[0], |a, b| a.plus(*b))).collect();
        Tile { rows: self.rows, cols: 1, layout: Layout::Rows, data }
    }
}

impl OrderFree for u32 {
    fn plus(self, o: u32) -> u32 {
        self.wrapping_add(o)
    }
}

/// Elements that a lane can sum in the order of the rows.
pub trait InOrder: Elem {
    fn then(self, o: Self) -> Self;
}
impl InOrder for i32 {
    fn then(self, o: i32) -> i32 {
        self.plus(o)
    }
}
impl InOrder for u32 {
    fn then(self, o: u32) -> u32 {
        self.plus(o)
    }
}
impl InOrder for i64 {
    fn then(self, o: i64) -> i64 {
        self.plus(o)
    }
}
impl InOrder for f32 {
    fn then(self, o: f32) -> f32 {
        self + o
    }
}

impl<T: InOrder> Tile<T> {
    /// Sums of the rows one quad row of lanes holds, in order: [8, n]. Adding such partial sums costs no shuffle.
    pub fn lane_sums(&self) -> Tile<T> {
        let per = self.rows / 8;
        let data = (0..8).flat_map(|g| self.down(g * per, per, T::then)).collect();
        Tile { rows: 8, cols: self.cols, layout: Layout::MmaC, data }
    }

    /// As `lane_sums`, the first and the second half of those rows apart: [16, n].
    pub fn half_sums(&self) -> Tile<T> {
        let per = self.rows / 16;
        let data = (0..16).flat_map(|g| self.down(g * per, per, T::then)).collect();
        Tile { rows: 16, cols: self.cols, layout: Layout::MmaC, data }
    }
}
