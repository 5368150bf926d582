//! The tensor core on the CPU: integers exactly, floats by fused multiply-adds with k ascending.

use super::Tile;
use crate::dtype::{Elem, bf16, f16};
use crate::ir::Layout;

/// Left element types and what they may be multiplied with.
pub trait MmaIn<X: Elem>: Elem {
    type Acc: Elem;
    fn step(acc: Self::Acc, a: Self, x: X) -> Self::Acc;
    fn mma(a: &Tile<Self>, x: &Tile<X>, c: impl MmaStart<Self::Acc>) -> Tile<Self::Acc> {
        let mut out = c.start(a.rows, x.cols);
        for r in 0..a.rows {
            for n in 0..x.cols {
                let mut acc = out.get(r, n);
                for k in 0..a.cols {
                    acc = Self::step(acc, a.get(r, k), x.get(k, n));
                }
                out.data[r * x.cols + n] = acc;
            }
        }
        out
    }
}

macro_rules! mma_in {
    ($a:ty, $x:ty, $acc:ty, |$c:ident, $p:ident, $q:ident| $e:expr) => {
        impl MmaIn<$x> for $a {
            type Acc = $acc;
            fn step($c: $acc, $p: $a, $q: $x) -> $acc {
                $e
            }
        }
    };
}
mma_in!(u8, i8, i32, |c, a, x| c.wrapping_add(a as i32 * x as i32));
mma_in!(u8, u8, i32, |c, a, x| c.wrapping_add(a as i32 * x as i32));
mma_in!(i8, i8, i32, |c, a, x| c.wrapping_add(a as i32 * x as i32));
mma_in!(i8, u8, i32, |c, a, x| c.wrapping_add(a as i32 * x as i32));
mma_in!(bf16, bf16, f32, |c, a, x| a.to_f32().mul_add(x.to_f32(), c));
mma_in!(f16, f16, f32, |c, a, x| a.to_f32().mul_add(x.to_f32(), c));

/// Row of a left operand of `rows` rows that is row `r` of its band `index` of `of`: each of eight lanes has a run of rows, a
/// band a part of each run.
pub(crate) fn band_row(rows: usize, r: usize, index: usize, of: usize) -> usize {
    let (run, own) = (rows / 8, rows / 8 / of);
    r / own * run + index * own + r % own
}

impl<T: Elem> Tile<T> {
    /// Band `index` of `of` of a left operand: see [`band_row`]. It costs nothing: a lane holds those rows in registers of their own.
    pub fn band(&self, index: usize, of: usize) -> Tile<T> {
        let data = (0..self.data.len() / of).map(|i| self.get(band_row(self.rows, i / self.cols, index, of), i % self.cols)).collect();
        Tile { rows: self.rows / of, cols: self.cols, layout: self.layout, data }
    }

    /// A right operand of bytes for a left one from [`super::Page::key_quads`]: the same elements, in another order of k in
    /// the registers.
    pub fn quad_order(&self) -> Tile<T> {
        self.clone()
    }

    /// Likewise for one from [`super::Page::key_twos`].
    pub fn twos_order(&self) -> Tile<T> {
        self.clone()
    }
}

/// What the sums start from: an accumulator, a row or column vector, or one number.
pub trait MmaStart<T: Elem> {
    fn start(self, rows: usize, cols: usize) -> Tile<T>;
}
impl<T: Elem> MmaStart<T> for T {
    fn start(self, rows: usize, cols: usize) -> Tile<T> {
        Tile::full(rows, cols, Layout::MmaC, self)
    }
}
impl<T: Elem> MmaStart<T> for &Tile<T> {
    fn start(self, rows: usize, cols: usize) -> Tile<T> {
        let data = (0..rows * cols).map(|i| self.broadcast(i / cols, i % cols)).collect();
        Tile { rows, cols, layout: Layout::MmaC, data }
    }
}
