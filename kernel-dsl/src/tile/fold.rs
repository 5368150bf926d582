//! Rows two by two: a query's two bytes are neighbouring rows of a left operand, so that sums of both lie in one lane; and columns of 32
//! tokens that are spread, so that a lane has eight neighbours of each row: see [`crate::pack::spread`].

use super::Tile;
use crate::dtype::Elem;
use crate::ir::Layout;
use crate::pack::{beside, spread};

impl Tile<i32> {
    /// [16, n] to [8, n]: `weight` times even rows plus odd ones.
    pub fn fold_rows(&self, weight: i32) -> Tile<i32> {
        let both = |r: usize, c: usize| self.get(2 * r, c).wrapping_mul(weight).wrapping_add(self.get(2 * r + 1, c));
        Tile { rows: 8, cols: self.cols, layout: Layout::MmaC, data: (0..8 * self.cols).map(|i| both(i / self.cols, i % self.cols)).collect() }
    }

    /// [m, 2n] to [m, n]: `weight` times the left half plus the right one.
    pub fn fold_cols(&self, weight: i32) -> Tile<i32> {
        let n = self.cols / 2;
        let both = |r: usize, c: usize| self.get(r, c).wrapping_mul(weight).wrapping_add(self.get(r, c + n));
        Tile { rows: self.rows, cols: n, layout: Layout::MmaC, data: (0..self.rows * n).map(|i| both(i / n, i % n)).collect() }
    }

    /// Left operand [16, 32] from [8, 32] of spread columns: of each row the second bytes, then the low ones, in the order of tokens.
    pub fn split_rows(&self) -> Tile<u8> {
        let byte = |r: usize, k: usize| (self.get(r / 2, spread(k)) >> (if r % 2 == 0 { 8 } else { 0 })) as u8;
        Tile { rows: 16, cols: 32, layout: Layout::MmaA, data: (0..512).map(|i| byte(i / 32, i % 32)).collect() }
    }

    /// Two left operands [m, 32] of bytes, the low ones and the next ones, from two accumulators [m, 16]: see [`crate::pack::beside`].
    pub fn bytes_beside(&self, b: &Tile<i32>) -> (Tile<u8>, Tile<i8>) {
        let number = |i: usize| [self, b][beside(i % 32).0].get(i / 32, beside(i % 32).1);
        let (rows, cols, layout) = (self.rows, 32, Layout::MmaA);
        let low = (0..32 * rows).map(|i| number(i) as u8).collect();
        (Tile { rows, cols, layout, data: low }, Tile { rows, cols, layout, data: (0..32 * rows).map(|i| (number(i) >> 8) as i8).collect() })
    }

    /// The bits that any element of a row has.
    pub fn or_cols(&self) -> Tile<i32> {
        Tile { rows: self.rows, cols: 1, layout: Layout::Rows, data: self.data.chunks(self.cols).map(|r| r.iter().fold(0, |a, b| a | b)).collect() }
    }
}

impl Tile<f32> {
    /// As with i32, a sum fused: `even.mul_add(weight, odd)`.
    pub fn fold_rows(&self, weight: i32) -> Tile<f32> {
        let both = |r: usize, c: usize| self.get(2 * r, c).mul_add(weight as f32, self.get(2 * r + 1, c));
        Tile { rows: 8, cols: self.cols, layout: Layout::MmaC, data: (0..8 * self.cols).map(|i| both(i / self.cols, i % self.cols)).collect() }
    }

    /// Of [8, 32] with spread columns the sums of tokens 4i and 4i + 1, and of 4i + 2 and 4i + 3, [8, 8] each.
    pub fn pair_sums(&self) -> (Tile<f32>, Tile<f32>) {
        let of = |half: usize| {
            let sum = |r: usize, i: usize| self.get(r, spread(4 * i + 2 * half)) + self.get(r, spread(4 * i + 2 * half + 1));
            Tile { rows: 8, cols: 8, layout: Layout::MmaC, data: (0..64).map(|i| sum(i / 8, i % 8)).collect() }
        };
        (of(0), of(1))
    }
}

impl<T: Elem> Tile<T> {
    /// Even and odd rows change places.
    pub fn swap_rows(&self) -> Tile<T> {
        Tile { data: (0..self.data.len()).map(|i| self.get(i / self.cols ^ 1, i % self.cols)).collect(), ..self.clone() }
    }

    /// Each of eight rows twice.
    pub fn twice_rows(&self) -> Tile<T> {
        Tile { rows: 16, cols: 1, layout: Layout::Rows, data: (0..16).map(|r| self.data[r / 2]).collect() }
    }
}

/// The elements (k, column) of a right operand [k, n] whose sum is element `i` of its lanes' totals: what lane (g, t) holds of column 8j + g.
pub(crate) fn four(k: usize, n: usize, i: usize) -> impl Iterator<Item = (usize, usize)> {
    let (lane, j) = (i / (n / 8), i % (n / 8));
    (lane % 4 * (k / 4)..(lane % 4 + 1) * (k / 4)).map(move |k| (k, 8 * j + lane / 4))
}

/// The four elements of lanes' totals of `n` columns that belong to a column.
pub(crate) fn fours(n: usize, column: usize) -> impl Iterator<Item = usize> {
    (0..4).map(move |t| (column % 8 * 4 + t) * (n / 8) + column / 8)
}

impl Tile<u8> {
    /// Sums of a right operand over the k elements that a lane holds: a vector of four elements a column, which [`Tile::fold_fours`] joins.
    pub fn lane_totals(&self) -> Tile<i32> {
        let data = (0..4 * self.cols).map(|i| four(self.rows, self.cols, i).map(|(k, c)| i32::from(self.get(k, c))).sum()).collect();
        Tile { rows: 1, cols: 4 * self.cols, layout: Layout::Row, data }
    }
}

impl Tile<i32> {
    /// A row of columns from a vector of four elements each.
    pub fn fold_fours(&self) -> Tile<i32> {
        let n = self.cols / 4;
        let data = (0..n).map(|c| fours(n, c).fold(0_i32, |sum, i| sum.wrapping_add(self.data[i]))).collect();
        Tile { rows: 1, cols: n, layout: Layout::Cols, data }
    }

    /// Back: all of a column is the first of its four.
    pub fn in_fours(&self) -> Tile<i32> {
        let mut data = vec![0; 4 * self.cols];
        (0..self.cols).for_each(|c| data[fours(self.cols, c).next().unwrap_or(0)] = self.data[c]);
        Tile { rows: 1, cols: 4 * self.cols, layout: Layout::Row, data }
    }

    /// Of the rows that one quad row of lanes holds, all bits: [8, n].
    pub fn lane_ors(&self) -> Tile<i32> {
        let per = self.rows / 8;
        let data = (0..8 * self.cols).map(|i| (0..per).fold(0, |all, r| all | self.get(i / self.cols * per + r, i % self.cols))).collect();
        Tile { rows: 8, cols: self.cols, layout: Layout::MmaC, data }
    }
}
