//! The coordinate of some rows that is least like a Gaussian: how often it falls where.

use serde::{Deserialize, Serialize};

use super::metrics::moments;

/// Bins of half a standard deviation; the outermost two hold everything beyond.
pub const STEP: f64 = 0.5;
pub const BINS: usize = 26;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Channel {
    pub coordinate: usize,
    /// m4 / var^2 - 3
    pub excess: f64,
    /// share of the rows in each bin of (x - mean) / std
    pub shares: Vec<f64>,
}

/// Left end of a bin, in standard deviations.
pub fn left(bin: usize) -> f64 {
    STEP * (bin as f64 - BINS as f64 / 2.0)
}

impl Channel {
    /// The one with the largest |excess|. `rows` are [n, d].
    pub fn least_gaussian(rows: &[f32], d: usize) -> Channel {
        let all = moments(rows, d);
        let excess = |i: usize| all[i].fourth / (all[i].variance * all[i].variance) - 3.0;
        let coordinate = (1..d).fold(0, |worst, i| if excess(i).abs() > excess(worst).abs() { i } else { worst });
        let (mean, deviation) = (all[coordinate].mean, all[coordinate].variance.sqrt());
        let mut counts = vec![0_usize; BINS];
        for row in rows.chunks_exact(d) {
            let z = (f64::from(row[coordinate]) - mean) / deviation;
            counts[((z / STEP).floor() + BINS as f64 / 2.0).clamp(0.0, BINS as f64 - 1.0) as usize] += 1;
        }
        let n = (rows.len() / d) as f64;
        Channel { coordinate, excess: excess(coordinate), shares: counts.into_iter().map(|c| c as f64 / n).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::Random;

    #[test]
    fn a_heavy_channel_is_found() {
        let mut random = Random::new(4);
        // coordinate 5 is cubed: most of it lies near zero, some of it far away
        let rows: Vec<f32> = (0..2000 * 16).map(|_| random.gaussian() as f32).collect::<Vec<f32>>();
        let rows: Vec<f32> = rows.iter().enumerate().map(|(i, x)| if i % 16 == 5 { x * x * x } else { *x }).collect();
        let found = Channel::least_gaussian(&rows, 16);
        assert!(found.coordinate == 5 && found.excess > 10.0, "{found:?}");
        assert!((found.shares.iter().sum::<f64>() - 1.0).abs() < 1e-9);
        assert!(found.shares[BINS / 2] + found.shares[BINS / 2 - 1] > 0.6 && left(BINS / 2) == 0.0);
    }
}
