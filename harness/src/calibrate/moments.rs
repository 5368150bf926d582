//! Mean and scatter of rows that come in batches. Batches are centred by their own mean before they are squared, so that
//! small directions beside a large mean keep their digits, and joined by the rule of Chan, Golub and LeVeque.

use candle_core::{Device, Tensor};

use crate::error::Result;

/// Of rows of d coordinates.
#[derive(Clone, Debug)]
pub struct Moments {
    d: usize,
    n: f64,
    /// `[d]`
    pub mean: Vec<f64>,
    /// Sum of centred outer products. `[d, d]`
    scatter: Vec<f64>,
}

impl Moments {
    pub fn new(d: usize) -> Moments {
        Moments { d, n: 0.0, mean: vec![0.0; d], scatter: vec![0.0; d * d] }
    }

    /// `rows` `[n, d]`.
    pub fn add(&mut self, rows: &[f32]) -> Result<()> {
        let (d, m) = (self.d, (rows.len() / self.d) as f64);
        let mut mean = vec![0.0_f64; d];
        rows.chunks_exact(d).for_each(|row| mean.iter_mut().zip(row).for_each(|(sum, x)| *sum += f64::from(*x)));
        mean.iter_mut().for_each(|sum| *sum /= m);
        let centred: Vec<f32> = rows.iter().enumerate().map(|(i, x)| (f64::from(*x) - mean[i % d]) as f32).collect();
        let own = gram(&centred, d)?;
        let (n, step) = (self.n, m / (self.n + m));
        let apart: Vec<f64> = mean.iter().zip(&self.mean).map(|(new, old)| new - old).collect();
        for (i, sum) in self.scatter.iter_mut().enumerate() {
            *sum += own[i] + apart[i / d] * apart[i % d] * n * step;
        }
        self.mean.iter_mut().zip(&apart).for_each(|(mean, apart)| *mean += apart * step);
        self.n += m;
        Ok(())
    }

    /// `[d, d]`
    pub fn covariance(&self) -> Vec<f64> {
        self.scatter.iter().map(|x| x / self.n.max(1.0)).collect()
    }
}

/// X^T X of `rows` `[n, d]`.
pub fn gram(rows: &[f32], d: usize) -> Result<Vec<f64>> {
    let x = Tensor::from_slice(rows, (rows.len() / d, d), &Device::Cpu)?;
    let product: Vec<f32> = x.t()?.contiguous()?.matmul(&x)?.flatten_all()?.to_vec1()?;
    Ok(product.into_iter().map(f64::from).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_add_up() {
        let rows: Vec<f32> = (0..60).map(|i| 100.0 + ((i * i * 7) % 13) as f32).collect();
        let (mut whole, mut parts) = (Moments::new(3), Moments::new(3));
        whole.add(&rows).unwrap();
        for part in [0..9, 9..30, 30..60] {
            parts.add(&rows[part]).unwrap();
        }
        for (a, b) in whole.covariance().iter().zip(parts.covariance()) {
            assert!((a - b).abs() < 1e-4, "{a} {b}");
        }
        let column: Vec<f64> = rows.iter().step_by(3).map(|x| f64::from(*x)).collect();
        let mean = column.iter().sum::<f64>() / 20.0;
        let variance = column.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / 20.0;
        assert!((parts.mean[0] - mean).abs() < 1e-9 && (parts.covariance()[0] - variance).abs() < 1e-4);
    }
}
