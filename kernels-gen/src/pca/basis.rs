//! The principal components of a block of rows, as they are stored: mean and components rounded to f16 before any row is
//! projected, so that encoder and decoder share them.

use half::f16;

use super::eigen::eigen;
use super::error::PcaError;
use super::randomized::sketch;
use super::settings::{Settings, Svd};

/// Below it the published implementation takes a number for zero.
pub const EPS: f32 = f32::EPSILON;

#[derive(Clone, PartialEq, Debug)]
pub struct Basis {
    /// rows are divided by it; a power of two
    pub scale: f32,
    /// `[d]`
    pub mean: Vec<f32>,
    /// Orthonormal but for rounding. `[rank, d]`
    pub rows: Vec<f32>,
    /// share of the variance that the components explain
    pub captured: f64,
}

impl Basis {
    /// Fitted to rows of `d` finite coordinates.
    pub fn fit(settings: &Settings, rows: &[f32], d: usize) -> Result<Basis, PcaError> {
        let scale = if settings.compat { 1.0 } else { scale_of(rows) };
        let n = rows.len() / d;
        let mut mean = vec![0.0_f64; d];
        rows.chunks_exact(d).for_each(|row| mean.iter_mut().zip(row).for_each(|(sum, x)| *sum += f64::from(x / scale)));
        mean.iter_mut().for_each(|sum| *sum /= n as f64);
        let centred: Vec<f64> = rows.iter().enumerate().map(|(i, x)| f64::from(x / scale) - mean[i % d]).collect();
        let energy = centred.iter().map(|x| x * x).sum::<f64>() / n as f64;
        let most = settings.most(d);
        let (values, vectors) = match settings.svd {
            Svd::Exact => eigen(&covariance(&centred, d), d),
            Svd::Randomized => sketch(settings, &centred, d)?,
        };
        let total = match settings.compat {
            true => values.iter().map(|v| v.max(0.0)).sum(),
            false => energy,
        };
        let least = if settings.compat { f64::from(EPS) } else { 0.0 };
        let rank = kept(&values, total, f64::from(settings.ratio), least).min(most);
        let round = |x: f64| if settings.wide { x as f32 } else { f16::from_f32(x as f32).to_f32() };
        let kept: f64 = values[..rank].iter().map(|v| v.max(0.0)).sum();
        let basis = Basis { scale, mean: mean.into_iter().map(round).collect(), rows: vectors[..rank * d].iter().map(|x| round(*x)).collect(), captured: if total > 0.0 { kept / total } else { 1.0 } };
        if settings.compat && basis.mean.iter().any(|m| !m.is_finite()) {
            return Err(PcaError::Original { does: "panics", on: "a mean beyond the range of f16" });
        }
        Ok(basis)
    }

    pub fn rank(&self) -> usize {
        self.rows.len() / self.mean.len()
    }

    /// Coordinates of a row: `B (x / scale - mean)`.
    pub fn project(&self, x: &[f32]) -> Vec<f32> {
        let centred: Vec<f32> = x.iter().zip(&self.mean).map(|(x, m)| x / self.scale - m).collect();
        self.rows.chunks_exact(self.mean.len()).map(|row| dot(row, &centred)).collect()
    }

    /// The row of these coordinates: `scale (mean + B^T c)`.
    pub fn unproject(&self, c: &[f32]) -> Vec<f32> {
        let mut x = self.mean.clone();
        for (row, c) in self.rows.chunks_exact(x.len()).zip(c) {
            x.iter_mut().zip(row).for_each(|(x, b)| *x += c * b);
        }
        x.iter_mut().for_each(|x| *x *= self.scale);
        x
    }
}

/// The largest power of two that is no larger than the largest magnitude: lengths then fit f16 whatever the rows are.
fn scale_of(rows: &[f32]) -> f32 {
    let top = rows.iter().fold(0.0_f32, |top, x| top.max(x.abs()));
    if top < f32::MIN_POSITIVE { 1.0 } else { f32::from_bits(top.to_bits() & 0x7f80_0000) }
}

/// `sum x x^T / n` of centred rows. `[d, d]`
fn covariance(centred: &[f64], d: usize) -> Vec<f64> {
    let mut sums = vec![0.0; d * d];
    for row in centred.chunks_exact(d) {
        for (i, x) in row.iter().enumerate() {
            sums[i * d + i..(i + 1) * d].iter_mut().zip(&row[i..]).for_each(|(sum, y)| *sum += x * y);
        }
    }
    let n = (centred.len() / d) as f64;
    (0..d * d).map(|at| sums[(at / d).min(at % d) * d + (at / d).max(at % d)] / n).collect()
}

/// Components until they explain so much of `total`; one where there is nothing to explain.
fn kept(values: &[f64], total: f64, ratio: f64, least: f64) -> usize {
    if total <= least {
        return 1;
    }
    let mut sum = 0.0;
    let enough = values.iter().position(|value| {
        sum += value.max(0.0);
        sum / total >= ratio
    });
    enough.map_or(values.len(), |at| at + 1)
}

/// Eight running sums, added in order.
pub fn dot(a: &[f32], b: &[f32]) -> f32 {
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<8>(), b.as_chunks::<8>());
    let mut sums = [0.0; 8];
    for (a, b) in a.iter().zip(b) {
        (0..8).for_each(|i| sums[i] += a[i] * b[i]);
    }
    sums.iter_mut().zip(a_rest.iter().zip(b_rest)).for_each(|(sum, (a, b))| *sum += a * b);
    sums.iter().sum()
}
