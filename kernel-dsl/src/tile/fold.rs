//! Rows two by two: a query's two bytes are neighbouring rows of a left operand, so that sums of both lie in one lane; and columns of 32
//! tokens that are spread, so that a lane has eight neighbours of each row: see [`crate::pack::spread`].

use super::Tile;
use crate::dtype::Elem;
use crate::ir::Layout;
use crate::pack::spread;

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
