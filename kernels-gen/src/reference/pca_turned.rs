//! Keys before RoPE of the PCA codec's pages: turned from the first token of their tile to their own place, as integers of 16 bits, and the
//! queries that meet them, turned back to that token.

use kernel_dsl::math::{angle_of, fmax, turned};

use super::pca::half;
use crate::kernels::pca::turn::{MOST, turned_back};
use crate::kernels::query::shown_worth;
use crate::layout::TILE;
use crate::pca::pages::{BLOCK, Folded, MAGIC, STEP, Turning};

/// Low 16 bits of a sum with [`MAGIC`].
fn rounded(x: f32) -> i16 {
    x.to_bits() as i16
}

/// A block's keys, turned. `[token, d]`; `lanes`: of levels, from zero.
pub(super) fn turned_keys(block: &Folded, turning: &Turning, lanes: &[i32]) -> Vec<i16> {
    let (d, matrix, mut out) = (turning.means.len(), &block.frame.matrix, Vec::with_capacity(BLOCK * turning.means.len()));
    let zeros = Turning::zeros(matrix, d);
    let turns: Vec<(f32, f32)> = (0..TILE * d / 2).map(|i| turn_of(turning, i % (d / 2), (i / (d / 2)) as i32)).map(|(cos, sin)| (cos * STEP, sin * STEP)).collect();
    for token in 0..BLOCK {
        // Lanes stand 128 higher, and sums in the lowest bits of floats.
        let mut sums = vec![MAGIC.to_bits() as i32; d];
        for (lane, column) in block.lanes(token, |n| lanes[n]).into_iter().zip(matrix.chunks_exact(d)) {
            sums.iter_mut().zip(column).for_each(|(sum, m)| *sum = sum.wrapping_add((lane + 128) * i32::from(*m)));
        }
        let norm = half(block.norms[token]) * turning.unit;
        let key = |i: usize| (f32::from_bits(sums[i] as u32) - zeros[i]).mul_add(norm, turning.along(block, token, i));
        let of = |i: usize| (key(i), key(i + d / 2), turns[token % TILE * (d / 2) + i]);
        out.extend((0..d / 2).map(of).map(|(x, y, (cos, sin))| rounded(x.mul_add(cos, (-y).mul_add(sin, MAGIC)))));
        out.extend((0..d / 2).map(of).map(|(x, y, (cos, sin))| rounded(y.mul_add(cos, x.mul_add(sin, MAGIC)))));
    }
    out
}

fn turn_of(turning: &Turning, pair: usize, position: i32) -> (f32, f32) {
    let speed = turning.speeds[pair];
    turned(angle_of(position, (speed >> 32) as u32, speed as u32))
}

/// A query under a block's factors, as integers of 16 bits that stay so wherever they turn.
pub(super) struct Turnable {
    pairs: Vec<(f32, f32)>,
    /// What a step is worth in log2 units.
    worth: f32,
}

impl Turnable {
    pub(super) fn of(turning: &Turning, q: &[f32], scale: f32) -> Turnable {
        let half = q.len() / 2;
        let pairs: Vec<(f32, f32)> = (0..half).map(|i| (q[i] * turning.factors[i], q[i + half] * turning.factors[i])).collect();
        let top = pairs.iter().fold(1e-20, |top, (x, y)| fmax(top, x.abs() + y.abs()));
        let by = MOST / top;
        Turnable { pairs: pairs.into_iter().map(|(x, y)| (x * by, y * by)).collect(), worth: shown_worth(top * (1.0 / MOST) * (scale * std::f32::consts::LOG2_E)) }
    }

    /// Scores of the tokens of a tile in steps, and what a step is worth; `position`: of its first token.
    pub(super) fn scores(&self, turning: &Turning, keys: &[i16], position: usize) -> (Vec<f32>, f32) {
        let half = self.pairs.len();
        let of = |i: usize| {
            let ((x, y), (cos, sin)) = (self.pairs[i % half], turn_of(turning, i % half, position as i32));
            let to = if i < half { turned_back(x, y, cos, sin, MAGIC) } else { turned_back(y, -x, cos, sin, MAGIC) };
            i32::from(rounded(to))
        };
        let ints: Vec<i32> = (0..2 * half).map(of).collect();
        let sum = |key: &[i16], byte: fn(i16) -> i32| key.iter().zip(&ints).map(|(k, q)| byte(*k) * q).sum::<i32>() as f32;
        let score = |key: &[i16]| sum(key, |k| i32::from(k >> 8)).mul_add(256.0, sum(key, |k| i32::from(k & 0xff)));
        (keys.chunks_exact(2 * half).map(score).collect(), self.worth)
    }
}
