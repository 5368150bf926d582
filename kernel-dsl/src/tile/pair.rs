//! Tiles of pairs: scores of 32 tokens under 4 heads that fill all lanes of a warp, [16, 8].
//!
//! Element (2g + i, c) belongs to token 4g + 2 (c / 4) + i and head c % 4. On the tensor core's side the 8 columns
//! are the two bytes of 4 heads: column c the high one, column c + 4 the low one. With 4 heads or fewer this
//! halves the element-wise work that 8 columns of one byte would cost.

use super::Tile;
use crate::ir::Layout;

/// Token of element (row, col).
pub fn token(row: usize, col: usize) -> usize {
    row / 2 * 4 + col / 4 * 2 + row % 2
}

/// Row of a token's elements and whether they stand in the right half.
pub fn place(token: usize) -> (usize, bool) {
    (token / 4 * 2 + token % 2, token % 4 >= 2)
}

/// `f` of the element's token and head.
pub fn tile<T>(f: impl Fn(usize, usize) -> T) -> Vec<T> {
    (0..128).map(|i| f(token(i / 8, i % 8), i % 4)).collect()
}

/// As `token`, of n things that an accumulator [n, 8] has on its rows.
pub fn whose(n: usize, row: usize, col: usize) -> usize {
    let half = n / 16;
    row / half * 2 * half + col / 4 * half + row % half
}

impl Tile<f32> {
    /// As with i32, for any number of rows, a sum fused: `left.mul_add(weight, right)`. Of a row of columns both halves get it.
    pub fn fold_halves(&self, weight: i32) -> Tile<f32> {
        let both = |r: usize, head: usize| self.get(r, head).mul_add(weight as f32, self.get(r, head + 4));
        if self.layout == Layout::Cols {
            return Tile { rows: 1, cols: 8, layout: Layout::Cols, data: (0..8).map(|c| both(0, c % 4)).collect() };
        }
        let rows = self.rows / 2;
        let data = (0..rows * 8).map(|i| both(whose(self.rows, i / 8, i % 8), i % 4)).collect();
        Tile { rows, cols: 8, layout: Layout::MmaC, data }
    }

    /// Scores of 32 tokens, each column's twice, as pairs: nothing moves.
    pub fn own_halves(&self) -> Tile<f32> {
        let data = (0..128).map(|i| self.get(token(i / 8, i % 8), i % 8)).collect();
        Tile { rows: 16, cols: 8, layout: Layout::MmaC, data }
    }
}

impl Tile<i32> {
    /// Scores of 32 tokens whose two bytes stand in columns c and c + 4, as pairs: weight * left + right.
    pub fn fold_halves(&self, weight: i32) -> Tile<i32> {
        let data = tile(|t, head| self.get(t, head).wrapping_mul(weight).wrapping_add(self.get(t, head + 4)));
        Tile { rows: 16, cols: 8, layout: Layout::MmaC, data }
    }

    /// Likewise, both weighted, from `start` on, a row of 8 columns whose halves are alike.
    pub fn fold_onto(&self, left: i32, right: i32, start: &Tile<i32>) -> Tile<i32> {
        let data = tile(|t, head| self.get(t, head).wrapping_mul(left).wrapping_add(self.get(t, head + 4).wrapping_mul(right)).wrapping_add(start.get(0, head)));
        Tile { rows: 16, cols: 8, layout: Layout::MmaC, data }
    }

    /// Right operand of the weights of 32 tokens: their high bytes in columns 0..4, their low bytes in 4..8.
    pub fn split_halves(&self) -> Tile<u8> {
        let data = (0..256)
            .map(|i| {
                let ((row, right), c) = (place(i / 8), i % 8);
                (self.get(row, c % 4 + 4 * usize::from(right)) >> (if c < 4 { 8 } else { 0 })) as u8
            })
            .collect();
        Tile { rows: 32, cols: 8, layout: Layout::MmaB, data }
    }
}

impl<T: crate::dtype::Elem> Tile<T> {
    /// Of a row, columns 0..4 twice. Both are one number of a lane.
    pub fn left_halves(&self) -> Tile<T> {
        let data = (0..8).map(|c| self.data[c % 4]).collect();
        Tile { rows: 1, cols: 8, layout: self.layout, data }
    }

    /// Columns 0..4 and 4..8 change places.
    pub fn swap_halves(&self) -> Tile<T> {
        let data = (0..self.data.len()).map(|i| self.data[i ^ 4]).collect();
        Tile { rows: self.rows, cols: self.cols, layout: self.layout, data }
    }
}
