//! The affine maps of one layer: basis, decorrelation inside the bands and steps folded into four matrices.
//!
//! Inside a band the coordinates are mixed by a Hadamard matrix H over the whole band, so that all have the band's mean
//! energy e; the step is `sqrt(e) t(w)`. A = basis H / step, B = A^-1 = step H basis^-1 (rows are row vectors:
//! `y = (x - mu) A`, `x = y B + mu`). The four maps are products of f64 rounded to f32 once.

use crate::kernels::SEGMENT;
use crate::layout::Operand;
use crate::pca::hadamard;
use crate::reference::Map;

use super::inverse::inverse;
use super::{BadCalibration, Calibration, Preset, STEPS, Turns};

/// One affine map a kv head, `out = (x - before) M + after`.
#[derive(Clone, PartialEq, Debug)]
pub struct OwnedMap {
    /// `[kv_heads, d (in), d (out)]`
    pub matrix: Vec<f32>,
    /// `[kv_heads, d]`
    pub before: Vec<f32>,
    /// `[kv_heads, d]`
    pub after: Vec<f32>,
}

impl OwnedMap {
    pub fn view(&self) -> Map<'_> {
        Map { matrix: &self.matrix, before: &self.before, after: &self.after }
    }
}

/// What surrounds the kernels of a layer.
#[derive(Clone, PartialEq, Debug)]
pub struct LayerMaps {
    pub d: usize,
    pub kv_heads: usize,
    /// Keys in the frame of their segment to coordinates: `(k' - mu) A`.
    pub store_k: OwnedMap,
    /// Values to coordinates: `(v - mu) A`.
    pub store_v: OwnedMap,
    /// Queries in the frame of a segment: `q' B^T`.
    pub query: OwnedMap,
    /// What a query in the frame of a segment adds to all its scores: its dot product with this. `[kv_heads, d]`
    pub key_mean: Vec<f32>,
    /// Attention's output back to values: `o B + mu`.
    pub output: OwnedMap,
}

impl LayerMaps {
    /// Segments of 512 tokens, as the attention kernel's.
    pub const SEGMENT: usize = SEGMENT;

    /// As kernels take them: the matrices of keys, values, queries and outputs `[4, kv_heads, d, d]`, the means of keys
    /// and values `[2, kv_heads, d]`.
    pub fn packed(&self) -> Vec<f32> {
        let matrices = [&self.store_k, &self.store_v, &self.query, &self.output].map(|map| map.matrix.as_slice());
        [&matrices[..], &[&self.key_mean, &self.output.after]].concat().concat()
    }
}

impl LayerMaps {
    /// What brings coordinates of single rows back, in plain numbers: B of keys, B of values `[2, kv_heads, d (in), d (out)]`,
    /// their means `[2, kv_heads, d]`.
    pub fn backs(&self) -> Vec<f32> {
        [transposed(&self.query.matrix, self.d), self.output.matrix.clone(), self.key_mean.clone(), self.output.after.clone()].concat()
    }
}

impl Calibration {
    /// The maps of a layer under a preset.
    pub fn maps(&self, preset: &Preset, layer: usize) -> Result<LayerMaps, BadCalibration> {
        let bands = self.bands(preset, layer);
        let (keys, values) =
            (self.folded(Operand::K, &bands.keys, layer)?, self.folded(Operand::V, &bands.values, layer)?);
        let (d, kv_heads) = (self.shape.d, self.shape.kv_heads);
        let zeros = vec![0.0; kv_heads * d];
        Ok(LayerMaps {
            d,
            kv_heads,
            query: OwnedMap { matrix: transposed(&keys.back, d), before: zeros.clone(), after: zeros.clone() },
            key_mean: keys.mean.clone(),
            store_k: OwnedMap { matrix: keys.forth, before: keys.mean, after: zeros.clone() },
            output: OwnedMap { matrix: values.back, before: zeros.clone(), after: values.mean.clone() },
            store_v: OwnedMap { matrix: values.forth, before: values.mean, after: zeros },
        })
    }

    /// The turns of positions below `positions`.
    pub fn turns(&self, positions: usize) -> Turns {
        Turns::new(&self.speeds, positions)
    }

    fn folded(&self, operand: Operand, widths: &[usize], layer: usize) -> Result<Folded, BadCalibration> {
        let (d, heads) = (self.shape.d, self.shape.kv_heads);
        let fit = self.fit(operand);
        let (mut forth, mut back) = (Vec::new(), Vec::new());
        for head in layer * heads..(layer + 1) * heads {
            let mut a: Vec<f64> = fit.basis[head * d * d..][..d * d].iter().map(|x| f64::from(*x)).collect();
            let singular = || BadCalibration::Singular { layer, head: head % heads };
            let mut bt = transposed(&inverse(&a, d).ok_or_else(singular)?, d);
            let steps = band_steps(&fit.energy[head * d..][..d], widths);
            for (row, back) in a.chunks_exact_mut(d).zip(bt.chunks_exact_mut(d)) {
                for (band, step) in steps.iter().enumerate() {
                    let own = band * d / steps.len()..(band + 1) * d / steps.len();
                    mix(&mut row[own.clone()]);
                    mix(&mut back[own.clone()]);
                    row[own.clone()].iter_mut().for_each(|x| *x /= step);
                    back[own].iter_mut().for_each(|x| *x *= step);
                }
            }
            forth.extend(a.iter().map(|x| *x as f32));
            back.extend(transposed(&bt, d).iter().map(|x| *x as f32));
        }
        Ok(Folded { forth, back, mean: fit.mean[layer * heads * d..][..heads * d].to_vec() })
    }
}

/// A and B of one side of a layer, `[kv_heads, d, d]`, and the mean.
struct Folded {
    forth: Vec<f32>,
    back: Vec<f32>,
    mean: Vec<f32>,
}

/// The step of each band.
fn band_steps(energy: &[f32], widths: &[usize]) -> Vec<f64> {
    let bands = energy.chunks_exact(energy.len() / widths.len());
    let mean = |band: &[f32]| band.iter().map(|e| f64::from(*e)).sum::<f64>() / band.len() as f64;
    bands.zip(widths).map(|(band, w)| mean(band).sqrt() * STEPS[*w]).collect()
}

/// Multiplies by the Hadamard matrix over sqrt(n), natural order.
fn mix(x: &mut [f64]) {
    hadamard(x);
    let scale = 1.0 / (x.len() as f64).sqrt();
    x.iter_mut().for_each(|x| *x *= scale);
}

/// Each `[d, d]` of `m` transposed.
fn transposed<T: Copy>(m: &[T], d: usize) -> Vec<T> {
    let one = |m: &[T]| (0..d * d).map(|i| m[i % d * d + i / d]).collect::<Vec<T>>();
    m.chunks_exact(d * d).flat_map(one).collect()
}
