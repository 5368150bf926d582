//! How far stored rows are from what was stored, and how far an attention's output is from the exact one.

use std::ops::AddAssign;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::SquaredError;

/// Rows of d coordinates against what they became.
#[derive(Clone, Copy, Default, Debug, Serialize, Deserialize)]
pub struct Distortion {
    pub error: f64,
    pub energy: f64,
    /// sum over rows of the cosine between a row and what it became; a row of zeros counts 1 if it stayed
    pub cosine: f64,
    pub rows: u64,
}

impl Distortion {
    /// Summed in order, so that a report repeats digit for digit.
    pub fn of_rows(x: &[f32], became: &[f32], d: usize) -> Distortion {
        let pairs: Vec<Distortion> = x.par_chunks(d).zip(became.par_chunks(d)).map(|(x, y)| Self::of_row(x, y)).collect();
        let mut total = Distortion::default();
        pairs.into_iter().for_each(|pair| total += pair);
        total
    }

    /// Of the keys and of the values of `n` vectors, `pair` giving both of one; summed in order likewise.
    pub fn of_pairs(n: usize, pair: impl Fn(usize) -> [Distortion; 2] + Sync + Send) -> [Distortion; 2] {
        let pairs: Vec<_> = (0..n).into_par_iter().map(pair).collect();
        let mut sums = [Distortion::default(); 2];
        pairs.into_iter().for_each(|[k, v]| {
            sums[0] += k;
            sums[1] += v;
        });
        sums
    }

    pub fn of_row(x: &[f32], y: &[f32]) -> Distortion {
        let SquaredError { error, energy } = SquaredError::of_row(x, y);
        let dot: f64 = x.iter().zip(y).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
        let other: f64 = y.iter().map(|b| f64::from(*b) * f64::from(*b)).sum();
        let cosine = if error == 0.0 { 1.0 } else { dot / (energy.sqrt() * other.sqrt()).max(1e-12) };
        Distortion { error, energy, cosine, rows: 1 }
    }

    /// ||x - x^||^2 / ||x||^2, zero for nothing.
    pub fn relative(self) -> f64 {
        if self.energy == 0.0 { 0.0 } else { self.error / self.energy }
    }

    pub fn mean_cosine(self) -> f64 {
        if self.rows == 0 { 1.0 } else { self.cosine / self.rows as f64 }
    }
}

impl AddAssign for Distortion {
    fn add_assign(&mut self, other: Distortion) {
        self.error += other.error;
        self.energy += other.energy;
        self.cosine += other.cosine;
        self.rows += other.rows;
    }
}

/// One layer of one subject.
#[derive(Clone, Copy, Default, Debug, Serialize, Deserialize)]
pub struct LayerDistortion {
    pub k: Distortion,
    pub v: Distortion,
    /// attention output of sampled queries, against exact attention over the same raw rows
    pub attention: Distortion,
}

impl AddAssign for LayerDistortion {
    fn add_assign(&mut self, other: LayerDistortion) {
        self.k += other.k;
        self.v += other.v;
        self.attention += other.attention;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_rows() {
        let rows = Distortion::of_rows(&[3.0, 4.0, 1.0, 0.0], &[3.0, 4.0, 0.0, 1.0], 2);
        assert_eq!((rows.rows, rows.error, rows.energy), (2, 2.0, 26.0));
        assert_eq!(rows.mean_cosine(), 0.5);
        assert_eq!(Distortion::of_row(&[0.0], &[0.0]).mean_cosine(), 1.0);
        assert_eq!(Distortion::default().relative(), 0.0);
    }
}
