//! RMS norm of a head and RoPE, in front of the store: what [`crate::kernels::rope`] computes, in plain loops.
//!
//! Sums of squares are taken as four threads take them, see `squares`. `x / rms`, times its weight; then of a pair (a, b)
//! `a' = fma(a, cos, -(b sin))`, `b' = fma(b, cos, a sin)`. All in f32.

use kernel_dsl::math::sanitise;

use super::row::squares;
use crate::kernels::rope::Rope;

/// Norm and turns of a layer.
#[derive(Clone, Copy, Debug)]
pub struct RopeTable<'a> {
    pub rope: Rope,
    /// `[positions, rope.dims]`: cosines, then sines.
    pub table: &'a [f32],
    pub epsilon: f32,
}

impl RopeTable<'_> {
    /// Whether the table holds that position.
    pub fn knows(&self, position: i32) -> bool {
        usize::try_from(position).is_ok_and(|position| position < self.table.len() / self.rope.dims)
    }

    /// Rows `[token, head, d]` at positions that the table holds, as they are coded. `weight`: `[d]`, of the norm.
    pub fn rows(&self, x: &[f32], d: usize, weight: &[f32], positions: &[usize]) -> Vec<f32> {
        let mut x = x.to_vec();
        let heads = (x.len() / d / positions.len().max(1)).max(1);
        for (i, row) in x.chunks_exact_mut(d).enumerate() {
            self.row(row, weight, positions[i / heads]);
        }
        x
    }

    /// As `rows`, and as they are given back: no NaN and no infinity, and zeros where the position is unknown.
    pub fn given(&self, x: &[f32], d: usize, weight: &[f32], positions: &[i32]) -> Vec<f32> {
        let places: Vec<usize> = positions.iter().map(|p| if self.knows(*p) { *p as usize } else { 0 }).collect();
        let heads = (x.len() / d / positions.len().max(1)).max(1);
        let rows = self.rows(x, d, weight, &places);
        let known = |i: usize| self.knows(positions[i / d / heads]);
        rows.iter().enumerate().map(|(i, x)| if known(i) { sanitise(*x, 65504.0) } else { 0.0 }).collect()
    }

    fn row(&self, x: &mut [f32], weight: &[f32], position: usize) {
        if self.rope.norm {
            let mean = squares(x) * (1.0 / x.len() as f32);
            let by = 1.0 / (mean + self.epsilon).sqrt();
            x.iter_mut().for_each(|x| *x *= by);
        }
        if self.rope.weights {
            x.iter_mut().zip(weight).for_each(|(x, w)| *x *= w);
        }
        let dims = self.rope.dims;
        let (cos, sin) = self.table[position * dims..][..dims].split_at(dims / 2);
        for i in 0..dims / 2 {
            let (low, high) = if self.rope.pairs { (2 * i, 2 * i + 1) } else { (i, i + dims / 2) };
            let (a, b) = (x[low], x[high]);
            x[low] = a.mul_add(cos[i], -(b * sin[i]));
            x[high] = b.mul_add(cos[i], a * sin[i]);
        }
    }
}
