//! Preconditioning of keys by the queries they will meet: in the coordinates `k L`, with `L L^T` the queries' second
//! moments, plain squared error is the squared error of scores. It holds for queries and keys before RoPE.

use super::error::PcaError;

/// Added to the diagonal, as a share of its mean.
pub const RIDGE: f64 = 1e-3;

#[derive(Clone, PartialEq, Debug)]
pub struct Whitening {
    d: usize,
    /// Lower Cholesky factor L. `[d, d]`
    pub factor: Vec<f32>,
    /// L^-1. `[d, d]`
    pub inverse: Vec<f32>,
}

impl Whitening {
    /// From second moments `[d, d]`.
    pub fn of(moments: &[f64], d: usize) -> Result<Whitening, PcaError> {
        let mean = (0..d).map(|i| moments[i * d + i]).sum::<f64>() / d as f64;
        let at = |i: usize, j: usize| 0.5 * (moments[i * d + j] + moments[j * d + i]) + if i == j { RIDGE * mean } else { 0.0 };
        let mut l = vec![0.0_f64; d * d];
        for j in 0..d {
            for i in j..d {
                let inner: f64 = (0..j).map(|k| l[i * d + k] * l[j * d + k]).sum();
                let left = at(i, j) - inner;
                if i == j && !(left > 0.0 && left.is_finite()) {
                    return Err(PcaError::NotPositive { column: j });
                }
                l[i * d + j] = if i == j { left.sqrt() } else { left / l[j * d + j] };
            }
        }
        let inverse = inverse(&l, d);
        let narrow = |m: Vec<f64>| m.into_iter().map(|x| x as f32).collect();
        Ok(Whitening { d, factor: narrow(l), inverse: narrow(inverse) })
    }

    /// `x L`
    pub fn forth(&self, x: &[f32]) -> Vec<f32> {
        product(x, &self.factor, self.d)
    }

    /// `x L^-1`
    pub fn back(&self, x: &[f32]) -> Vec<f32> {
        product(x, &self.inverse, self.d)
    }

    /// Bytes of both matrices, triangles as they are needed.
    pub fn bytes(&self) -> usize {
        2 * 4 * self.d * (self.d + 1) / 2
    }
}

/// Row vector by matrix, rows in order.
fn product(x: &[f32], m: &[f32], d: usize) -> Vec<f32> {
    let mut out = vec![0.0; d];
    for (x, row) in x.iter().zip(m.chunks_exact(d)) {
        out.iter_mut().zip(row).for_each(|(sum, m)| *sum += x * m);
    }
    out
}

/// Of a lower triangle, by forward substitution.
fn inverse(l: &[f64], d: usize) -> Vec<f64> {
    let mut out = vec![0.0; d * d];
    for column in 0..d {
        for i in column..d {
            let one = f64::from(u8::from(i == column));
            let inner: f64 = (column..i).map(|k| l[i * d + k] * out[k * d + column]).sum();
            out[i * d + column] = (one - inner) / l[i * d + i];
        }
    }
    out
}
