//! From moments to coordinates: the basis in which independent errors cost the same everywhere.

use kernels_gen::preset::Fit;
use nalgebra::{DMatrix, SymmetricEigen};
use rayon::prelude::*;

use super::moments::gram;
use super::watch::Watch;
use crate::error::Result;
use crate::model::{Config, Weights};

/// Share of the metric of keys, and of values, that is the measured one; the rest counts all errors alike, which keeps
/// the plain squared error low and the fit steady. Less of it serves values: their metric knows only the next product.
const KEYS: f64 = 0.3;
const VALUES: f64 = 0.3;
/// Energies below this share of a head's largest are raised to it.
const LEAST: f64 = 1e-9;

/// Keys and values of all layers and kv heads.
pub fn fits(watch: &Watch, config: &Config, weights: &Weights) -> Result<(Fit, Fit)> {
    let geometry = watch.geometry;
    let (mut keys, mut values) = (Fit::default(), Fit::default());
    for (layer, notes) in watch.notes.iter().enumerate() {
        let outputs = output_metrics(weights, config, layer)?;
        let jobs: Vec<_> = notes.iter().enumerate().collect();
        let found: Vec<[Head; 2]> = jobs
            .into_par_iter()
            .map(|(head, notes)| {
                let metric = watch.query_metric(layer, head);
                let fit = |moments: &super::moments::Moments, metric: &[f64], share| Head::of(&moments.mean, &moments.covariance(), (metric, share), geometry.d);
                [fit(&notes.keys, &metric, KEYS), fit(&notes.values, &outputs[head], VALUES)]
            })
            .collect();
        for [k, v] in found {
            k.append_to(&mut keys);
            v.append_to(&mut values);
        }
    }
    Ok((keys, values))
}

/// For each kv head the sum of `W^T W` over its query heads, W `[hidden, d]` the part of the output projection that
/// reads the head: the metric in which an error of a value costs squared error of the layer's output.
fn output_metrics(weights: &Weights, config: &Config, layer: usize) -> Result<Vec<Vec<f64>>> {
    let (d, heads, hidden) = (config.head_dim(), config.num_attention_heads, config.hidden_size);
    let o = weights.tensor(&format!("model.layers.{layer}.self_attn.o_proj.weight"), &[hidden, heads * d])?;
    let group = config.group();
    (0..config.num_key_value_heads)
        .map(|head| {
            let of_row = |row: &'_ [f32]| row[head * group * d..][..group * d].to_vec();
            gram(&o.chunks_exact(heads * d).flat_map(of_row).collect::<Vec<f32>>(), d)
        })
        .collect()
}

/// The fit of one head.
pub(super) struct Head {
    basis: Vec<f32>,
    mean: Vec<f32>,
    energy: Vec<f32>,
}

impl Head {
    /// With M = (1 - share) I + share F under F of trace d: eig(M^(1/2) C M^(1/2)), see [`Fit`].
    pub(super) fn of(mean: &[f64], covariance: &[f64], (metric, share): (&[f64], f64), d: usize) -> Head {
        let metric = DMatrix::from_row_slice(d, d, metric);
        let size = metric.trace() / d as f64;
        let (share, rest) = if size > 0.0 { (share / size, 1.0 - share) } else { (0.0, 1.0) };
        let eigen = SymmetricEigen::new(metric * share + DMatrix::identity(d, d) * rest);
        let roots = DMatrix::from_diagonal(&eigen.eigenvalues.map(|e| e.max(0.0).sqrt()));
        let root = &eigen.eigenvectors * roots * eigen.eigenvectors.transpose();
        let found = SymmetricEigen::new(&root * DMatrix::from_row_slice(d, d, covariance) * &root);
        let mut order: Vec<usize> = (0..d).collect();
        order.sort_by(|a, b| found.eigenvalues[*b].total_cmp(&found.eigenvalues[*a]));
        let basis = root * found.eigenvectors;
        let least = (found.eigenvalues[order[0]] * LEAST).max(1e-30);
        Head {
            basis: (0..d).flat_map(|row| order.iter().map(move |column| (row, *column))).map(|at| basis[at] as f32).collect(),
            mean: mean.iter().map(|m| *m as f32).collect(),
            energy: order.iter().map(|i| found.eigenvalues[*i].max(least) as f32).collect(),
        }
    }

    pub(super) fn append_to(self, fit: &mut Fit) {
        fit.basis.extend(self.basis);
        fit.mean.extend(self.mean);
        fit.energy.extend(self.energy);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn coordinates_are_uncorrelated_and_their_energies_fall() {
        let d = 4;
        let c = [4.0, 1.0, 0.0, 0.0, 1.0, 3.0, 0.5, 0.0, 0.0, 0.5, 2.0, 0.0, 0.0, 0.0, 0.0, 9.0];
        let f = [1.0, 0.2, 0.0, 0.0, 0.2, 2.0, 0.0, 0.0, 0.0, 0.0, 5.0, 0.0, 0.0, 0.0, 0.0, 0.1];
        let head = Head::of(&[0.0; 4], &c, (&f, 0.7), d);
        assert!(head.energy.windows(2).all(|e| e[0] >= e[1]), "{:?}", head.energy);
        let b = |i: usize, j: usize| f64::from(head.basis[i * d + j]);
        for (i, j) in (0..d * d).map(|at| (at / d, at % d)) {
            let sum: f64 = (0..d * d).map(|at| b(at / d, i) * c[at] * b(at % d, j)).sum();
            let wanted = if i == j { f64::from(head.energy[i]) } else { 0.0 };
            assert!((sum - wanted).abs() < 1e-5, "{i} {j}: {sum} for {wanted}");
        }
    }
}
