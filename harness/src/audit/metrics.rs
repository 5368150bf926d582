//! The published figures of "how far from Gaussian", as they are defined, with their caveats in their names.
//! Rows are [n, d]; all statistics are of the population, coordinate by coordinate.

use kernels_gen::reference::rotate;
use serde::{Deserialize, Serialize};

use crate::stats::{normal_quantile, percentile};

const LEAST_VARIANCE: f64 = 1e-12;
/// 0.99 quantile of z. The figure divides the 0.99 quantile of |z| by it, which is 2.576 for a perfect Gaussian:
/// that scores 0.107, beyond the gate of 0.05.
const ONE_SIDED: f64 = 2.326;

pub const NAMES: [&str; 5] = ["abs(kurtosis - 3)", "iso variance", "Hadamard variance", "\"W2/sigma\"", "true W2"];
/// Where the published gates fire; the last figure never had one.
pub const GATES: [Option<f64>; 5] = [Some(0.5), Some(1.5), Some(1.5), Some(0.05), None];

/// One value a figure, in the order of `NAMES`.
#[derive(Clone, Copy, Default, PartialEq, Debug, Serialize, Deserialize)]
pub struct Figures {
    /// mean over coordinates of |m4 / var^2 - 3|
    pub kurtosis: f64,
    /// largest over smallest variance of a coordinate
    pub iso_variance: f64,
    /// the same after the Hadamard rotation
    pub hadamard_variance: f64,
    /// root mean square over coordinates of (0.99 quantile of |x H| / std) / 2.326 - 1; no Wasserstein distance
    pub quantile_ratio: f64,
    /// one-dimensional Wasserstein-2 distance of all coordinates of (x / |x|) H sqrt(d) from the standard normal
    pub wasserstein: f64,
}

impl Figures {
    pub fn of(rows: &[f32], d: usize) -> Figures {
        let plain = moments(rows, d);
        let mut turned = rows.to_vec();
        turned.chunks_exact_mut(d).for_each(rotate);
        let rotated = moments(&turned, d);
        Figures {
            kurtosis: plain.iter().map(|m| (m.fourth / (m.variance * m.variance) - 3.0).abs()).sum::<f64>() / d as f64,
            iso_variance: spread(&plain),
            hadamard_variance: spread(&rotated),
            quantile_ratio: quantile_ratio(&turned, &rotated, d),
            wasserstein: wasserstein(rows, d),
        }
    }

    pub fn values(&self) -> [f64; 5] {
        [self.kurtosis, self.iso_variance, self.hadamard_variance, self.quantile_ratio, self.wasserstein]
    }
}

/// Of one coordinate, central but for the mean.
pub struct Moments {
    pub mean: f64,
    pub variance: f64,
    pub fourth: f64,
}

pub fn moments(rows: &[f32], d: usize) -> Vec<Moments> {
    let n = (rows.len() / d) as f64;
    let mut means = vec![0.0; d];
    for row in rows.chunks_exact(d) {
        means.iter_mut().zip(row).for_each(|(m, x)| *m += f64::from(*x) / n);
    }
    let mut sums = vec![[0.0; 2]; d];
    for row in rows.chunks_exact(d) {
        for ((sum, mean), x) in sums.iter_mut().zip(&means).zip(row) {
            let square = (f64::from(*x) - mean).powi(2);
            sum[0] += square;
            sum[1] += square * square;
        }
    }
    let moment = |([square, fourth], mean): ([f64; 2], f64)| Moments { mean, variance: (square / n).max(LEAST_VARIANCE), fourth: fourth / n };
    sums.into_iter().zip(means).map(moment).collect()
}

fn spread(moments: &[Moments]) -> f64 {
    let high = moments.iter().map(|m| m.variance).fold(0.0, f64::max);
    high / moments.iter().map(|m| m.variance).fold(f64::INFINITY, f64::min)
}

fn quantile_ratio(turned: &[f32], moments: &[Moments], d: usize) -> f64 {
    let column = |i: usize| {
        let values: Vec<f64> = turned.iter().skip(i).step_by(d).map(|x| f64::from(x.abs())).collect();
        percentile(&values, 0.99) / moments[i].variance.sqrt() / ONE_SIDED - 1.0
    };
    ((0..d).map(|i| column(i).powi(2)).sum::<f64>() / d as f64).sqrt()
}

fn wasserstein(rows: &[f32], d: usize) -> f64 {
    let mut values: Vec<f32> = Vec::with_capacity(rows.len());
    for row in rows.chunks_exact(d) {
        let norm = row.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt().max(1e-12);
        let mut unit: Vec<f32> = row.iter().map(|x| (f64::from(*x) / norm * (d as f64).sqrt()) as f32).collect();
        rotate(&mut unit);
        values.extend(unit);
    }
    values.sort_unstable_by(f32::total_cmp);
    let n = values.len() as f64;
    let square = |(k, x): (usize, &f32)| (f64::from(*x) - normal_quantile((k as f64 + 0.5) / n)).powi(2);
    (values.iter().enumerate().map(square).sum::<f64>() / n).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::Random;

    /// Values of an independent implementation for Gaussian data: 0.107 however many rows, and gates that fire on
    /// 16 rows of 512.
    #[test]
    fn gaussian_data_scores_what_is_published() {
        let rows = |n: usize, d: usize| {
            let mut random = Random::new(5);
            (0..n * d).map(|_| random.gaussian() as f32).collect::<Vec<f32>>()
        };
        let large = Figures::of(&rows(8192, 512), 512);
        assert!((large.quantile_ratio - 0.107).abs() < 0.003, "{large:?}");
        assert!((large.kurtosis - 0.042).abs() < 0.01 && (large.iso_variance - 1.1).abs() < 0.03, "{large:?}");
        assert!((large.hadamard_variance - 1.1).abs() < 0.03 && large.wasserstein < 0.004, "{large:?}");
        let few = Figures::of(&rows(16, 512), 512);
        assert!((few.kurtosis - 0.73).abs() < 0.1 && few.iso_variance > 8.0 && few.hadamard_variance > 8.0, "{few:?}");
    }

    #[test]
    fn an_outlier_channel_shows_and_is_spread_by_the_rotation() {
        let mut random = Random::new(1);
        let rows: Vec<f32> = (0..4096 * 64).map(|i| (random.gaussian() * if i % 64 == 3 { 20.0 } else { 1.0 }) as f32).collect();
        let figures = Figures::of(&rows, 64);
        assert!((figures.iso_variance - 400.0).abs() < 60.0, "{figures:?}");
        assert!(figures.hadamard_variance < 1.3, "{figures:?}");
    }
}
