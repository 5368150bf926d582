//! The affine maps of one layer: basis, decorrelation inside the bands and steps folded into four matrices.
//!
//! Inside a band the coordinates are mixed by a Hadamard matrix H over the whole band, so that all have the band's mean
//! energy e; the step is `sqrt(e) t(w)`; then bands are dealt out to blocks. A = basis H / step, B = A^-1 = step H basis^-1 (rows are row vectors:
//! `y = (x - mu) A`, `x = y B + mu`). The four maps are made in f64 and rounded once, to 15-bit integers with a step a column.

use crate::kernels::SEGMENT;
use crate::kernels::maps::store::STORED;
use crate::kernels::maps::walk::dim_of;
use crate::layout::Operand;
use crate::pca::hadamard;
use crate::reference::{LARGEST, Map};
use kernel_dsl::pack::{core_byte, left_byte};

use super::inverse::inverse;
use super::{BadCalibration, Bands, Calibration, Preset, STEPS, Turns};

/// One affine map a kv head, `out = (x - before) M + after`.
#[derive(Clone, PartialEq, Debug)]
pub struct OwnedMap {
    /// Integers, the largest of a column 16256. `[kv_heads, d (in), d (out)]`
    pub matrix: Vec<i16>,
    /// What 128 steps of a column are worth. `[kv_heads, d (out)]`
    pub worth: Vec<f32>,
    /// `[kv_heads, d]`
    pub before: Vec<f32>,
    /// `[kv_heads, d]`
    pub after: Vec<f32>,
}

impl OwnedMap {
    /// Of matrices `[kv_heads, d, d]`.
    fn new(m: &[f64], d: usize, before: &[f32], after: &[f32]) -> OwnedMap {
        let (mut matrix, mut worth) = (vec![0; m.len()], vec![0.0; m.len() / d]);
        for (column, worth) in worth.iter_mut().enumerate() {
            let own = (0..d).map(|j| (column / d * d + j) * d + column % d);
            let step = own.clone().fold(0.0, |top: f64, at| top.max(m[at].abs())) / f64::from(LARGEST);
            *worth = (128.0 * step) as f32;
            // Steps of what the step became in f32, which may bring the largest one past 16256.
            let step = f64::from(*worth) / 128.0;
            for at in own.filter(|_| step > 0.0) {
                matrix[at] = (m[at] / step).round_ties_even().clamp(-f64::from(LARGEST), f64::from(LARGEST)) as i16;
            }
        }
        OwnedMap { matrix, worth, before: before.to_vec(), after: after.to_vec() }
    }

    pub fn view(&self) -> Map<'_> {
        Map { matrix: &self.matrix, worth: &self.worth, before: &self.before, after: &self.after }
    }

    /// The map of one kv head.
    pub fn of_head(&self, head: usize) -> Map<'_> {
        let d = self.matrix.len() / self.worth.len();
        let own = head * d..(head + 1) * d;
        let matrix = &self.matrix[head * d * d..][..d * d];
        Map { matrix, worth: &self.worth[own.clone()], before: &self.before[own.clone()], after: &self.after[own] }
    }

    /// What the integers stand for.
    fn values(&self) -> Vec<f32> {
        let d = self.matrix.len() / self.worth.len();
        let worth = |i: usize| self.worth[i / (d * d) * d + i % d] * 0.0078125;
        self.matrix.iter().enumerate().map(|(i, w)| f32::from(*w) * worth(i)).collect()
    }

    /// The bytes of a head's matrix as kernels take them: for high parts, then for low ones, every so many columns as a left operand.
    fn packed(&self, head: usize, columns: usize) -> Vec<i8> {
        let d = self.matrix.len() / self.worth.len();
        let mut bytes = vec![0; 2 * d * d];
        for (i, w) in self.matrix[head * d * d..][..d * d].iter().enumerate() {
            let (line, column, high) = (i / d, i % d, (w + 64) >> 7);
            let at = column / columns * columns * d + left_byte(columns, d, column % columns, line);
            (bytes[at], bytes[d * d + at]) = (high as i8, (w - (high << 7)) as i8);
        }
        bytes
    }

    /// The same for blocks that walk: parts as right operands in cores, lines and columns in the order of what threads hold.
    fn in_cores(&self, head: usize) -> Vec<i8> {
        let d = self.matrix.len() / self.worth.len();
        let mut bytes = vec![0; 2 * d * d];
        for (k, column) in (0..d * d).map(|i| (i / d, i % d)) {
            let w = self.matrix[(head * d + dim_of(k)) * d + column % 8 / 2 * (d / 4) + column / 8 * 2 + column % 2];
            let (at, high) = (core_byte(d, 8 * d, k, column), (w + 64) >> 7);
            (bytes[at], bytes[d * d + at]) = (high as i8, (w - (high << 7)) as i8);
        }
        bytes
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
    /// Tokens of a segment, as the attention kernel's.
    pub const SEGMENT: usize = SEGMENT;

    /// Bytes of the matrices of keys, values, queries and outputs as kernels take them, `[4, kv_heads, 2, d, d]`: high parts, low
    /// parts. Of 128 dims those of keys and values again, for blocks that walk.
    pub fn packed(&self) -> Vec<i8> {
        let all = [(&self.store_k, STORED), (&self.store_v, STORED), (&self.query, 32), (&self.output, 32)];
        let walked = [&self.store_k, &self.store_v].into_iter().filter(|_| self.d == 128);
        let walked = walked.flat_map(|map| (0..self.kv_heads).flat_map(|head| map.in_cores(head)));
        all.iter().flat_map(|(map, columns)| (0..self.kv_heads).flat_map(|head| map.packed(head, *columns))).chain(walked).collect()
    }

    /// What goes with them: the worth of their columns `[4, kv_heads, d]`, the means of keys and values `[2, kv_heads, d]`.
    pub fn scales(&self) -> Vec<f32> {
        let worth = [&self.store_k, &self.store_v, &self.query, &self.output].map(|map| map.worth.as_slice());
        [&worth[..], &[&self.key_mean, &self.output.after]].concat().concat()
    }
}

impl LayerMaps {
    /// What brings coordinates of single rows back, in plain numbers: B of keys, B of values `[2, kv_heads, d (in), d (out)]`,
    /// their means `[2, kv_heads, d]`.
    pub fn backs(&self) -> Vec<f32> {
        let [query, output] = [&self.query, &self.output].map(OwnedMap::values);
        [transposed(&query, self.d), output, self.key_mean.clone(), self.output.after.clone()].concat()
    }
}

impl Calibration {
    /// The maps of a layer under a preset.
    pub fn maps(&self, preset: &Preset, layer: usize) -> Result<LayerMaps, BadCalibration> {
        let bands = self.bands(preset, layer);
        let (keys, values) = (self.folded(Operand::K, &bands, layer)?, self.folded(Operand::V, &bands, layer)?);
        let (d, kv_heads) = (self.shape.d, self.shape.kv_heads);
        let zeros = vec![0.0; kv_heads * d];
        Ok(LayerMaps {
            d,
            kv_heads,
            query: OwnedMap::new(&transposed(&keys.back, d), d, &zeros, &zeros),
            store_k: OwnedMap::new(&keys.forth, d, &keys.mean, &zeros),
            output: OwnedMap::new(&values.back, d, &zeros, &values.mean),
            store_v: OwnedMap::new(&values.forth, d, &values.mean, &zeros),
            key_mean: keys.mean,
        })
    }

    /// The turns of positions below `positions`.
    pub fn turns(&self, positions: usize) -> Turns {
        Turns::new(&self.speeds, positions)
    }

    fn folded(&self, operand: Operand, bands: &Bands, layer: usize) -> Result<Folded, BadCalibration> {
        let (d, heads) = (self.shape.d, self.shape.kv_heads);
        let (fit, order) = (self.fit(operand), bands.order(operand, d));
        let widths = if operand == Operand::K { &bands.keys } else { &bands.values };
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
                deal(row, &order);
                deal(back, &order);
            }
            forth.extend(a);
            back.extend(transposed(&bt, d));
        }
        Ok(Folded { forth, back, mean: fit.mean[layer * heads * d..][..heads * d].to_vec() })
    }
}

/// A and B of one side of a layer, `[kv_heads, d, d]`, and the mean.
struct Folded {
    forth: Vec<f64>,
    back: Vec<f64>,
    mean: Vec<f32>,
}

/// The step of each band.
fn band_steps(energy: &[f32], widths: &[usize]) -> Vec<f64> {
    let bands = energy.chunks_exact(energy.len() / widths.len());
    let mean = |band: &[f32]| band.iter().map(|e| f64::from(*e)).sum::<f64>() / band.len() as f64;
    bands.zip(widths).map(|(band, w)| mean(band).sqrt() * STEPS[*w]).collect()
}

/// Element i goes to `order[i]`.
fn deal(x: &mut [f64], order: &[usize]) {
    let from = x.to_vec();
    order.iter().zip(from).for_each(|(to, value)| x[*to] = value);
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
