//! The maps of calibrated codecs: `out = (x - before) M + after` in integers. A row becomes 15-bit integers under its own
//! largest magnitude, the matrix is of 15-bit integers with a step a column: sums of their products are exact and have no order.

use kernel_dsl::math::fmax;
use multiversion::multiversion;

/// The largest integer of a row or a column: splits into two signed bytes, `128 h + l`.
pub const LARGEST: f32 = 16256.0;

/// 1.5 * 2^23: a sum with it rounds to an integer, ties to even.
pub(super) const MAGIC: f32 = 12_582_912.0;

/// One affine map a kv head.
#[derive(Clone, Copy, Debug)]
pub struct Map<'a> {
    /// Integers `[maps, d (in), d (out)]`.
    pub matrix: &'a [i16],
    /// What 128 steps of a column are worth. `[maps, d (out)]`
    pub worth: &'a [f32],
    /// `[maps, d]`, subtracted first.
    pub before: &'a [f32],
    /// `[maps, d]`, added last.
    pub after: &'a [f32],
}

/// Maps finite rows `[rows, maps * group, d]`; head h takes map h / group. Of the product of two integers `128 h + l` and
/// `128 g + m` the smallest part, `l m`, is left out: the sum of `128 h g + h m + l g` fits an i32.
///
/// Compiled again for wide vectors.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
pub fn project(m: &Map, d: usize, group: usize, x: &[f32]) -> Vec<f32> {
    let heads = m.before.len() / d * group;
    let mut out = vec![0.0_f32; x.len()];
    let mut centred = vec![0.0_f32; d];
    for (i, (x, out)) in x.chunks_exact(d).zip(out.chunks_exact_mut(d)).enumerate() {
        let own = i % heads / group * d;
        let mut top = 1e-20_f32;
        // Loops instead of closures: they use the vectors.
        for (c, (x, before)) in centred.iter_mut().zip(x.iter().zip(&m.before[own..])) {
            *c = x - before;
            top = fmax(top, c.abs());
        }
        let by = LARGEST / top;
        let mut sums = vec![0_i32; d];
        for (j, c) in centred.iter().enumerate() {
            let v = c.mul_add(by, MAGIC) - MAGIC;
            let v = v as i32;
            let (high, low) = ((v + 64) >> 7, v - ((v + 64) >> 7 << 7));
            for (sum, w) in sums.iter_mut().zip(&m.matrix[(own + j) * d..][..d]) {
                let w = i32::from(*w);
                *sum += high * w + low * ((w + 64) >> 7);
            }
        }
        let unit = top * (1.0 / LARGEST);
        for (k, (o, sum)) in out.iter_mut().zip(sums).enumerate() {
            *o = sum as f32 * m.worth[own + k] * unit + m.after[own + k];
        }
    }
    out
}
