//! A calibration without one of its parts, so that a row of a table shows what the part is worth. The file is enough:
//! with basis A and energies e, the metric is `A A^T` and the covariance `A^-T diag(e) A^-1`.

use kernels_gen::preset::{Bands, Calibration, Fit, Preset, Turns};
use kernels_gen::reference::{SEGMENT, rotate};
use nalgebra::{DMatrix, DVector};
use rayon::prelude::*;

use super::fit::Head;
use crate::error::{Error, Result};

/// What is left out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Without {
    /// rows are not centred
    Mean,
    /// errors count alike, whatever the model reads
    Metric,
    /// one map for keys of all positions
    Segments,
    /// the coordinates of a band stay apart
    Hadamard,
    /// all layers have the preset's uniform bands
    Layers,
    /// all bands have one width
    Widths,
}

impl Without {
    pub const ALL: [Without; 6] = [Without::Mean, Without::Metric, Without::Segments, Without::Hadamard, Without::Layers, Without::Widths];

    /// As it stands behind a codec's name: `kvfuse-4:no-mean`.
    pub fn name(self) -> &'static str {
        match self {
            Without::Mean => "no-mean",
            Without::Metric => "no-metric",
            Without::Segments => "no-segments",
            Without::Hadamard => "no-hadamard",
            Without::Layers => "no-layers",
            Without::Widths => "no-widths",
        }
    }

    /// For passages of `tokens` tokens.
    pub fn of(self, calibration: &Calibration, preset: &Preset, tokens: usize) -> Result<Calibration> {
        let mut left = calibration.clone();
        let shape = calibration.shape;
        match self {
            Without::Mean => {
                left.keys = refitted(&calibration.keys, |rows| rows.centred_at_zero())?;
                left.values = refitted(&calibration.values, |rows| rows.centred_at_zero())?;
            }
            Without::Metric => {
                left.keys = refitted(&calibration.keys, |rows| rows.counted_alike())?;
                left.values = refitted(&calibration.values, |rows| rows.counted_alike())?;
            }
            Without::Segments => {
                let turns = calibration.turns(tokens);
                left.keys = refitted(&calibration.keys, |rows| rows.over_segments(&turns, tokens.div_ceil(SEGMENT)))?;
                left.speeds.fill(0.0);
            }
            Without::Hadamard => {
                apart(&mut left.keys, shape.d, shape.d / preset.keys.len());
                apart(&mut left.values, shape.d, shape.d / preset.values.len());
            }
            Without::Layers => left.bands.clear(),
            Without::Widths => {
                let flat = |widths: &[usize]| vec![widths.iter().sum::<usize>() / widths.len(); widths.len()];
                let bands = Bands { keys: flat(preset.keys), values: flat(preset.values) };
                left.bands.insert(preset.name.into(), vec![bands; shape.layers]);
            }
        }
        Ok(left)
    }
}

/// Undoes what the fold will do: mixing twice is not mixing.
fn apart(fit: &mut Fit, d: usize, band: usize) {
    fit.basis.par_chunks_mut(d).for_each(|row| row.chunks_mut(band).for_each(rotate));
}

/// The rows of one head, as far as their fit knows them.
struct Rows {
    mean: DVector<f64>,
    covariance: DMatrix<f64>,
    metric: DMatrix<f64>,
}

impl Rows {
    fn centred_at_zero(self) -> Rows {
        let d = self.mean.len();
        Rows { covariance: self.covariance + &self.mean * self.mean.transpose(), mean: DVector::zeros(d), ..self }
    }

    fn counted_alike(self) -> Rows {
        Rows { metric: DMatrix::identity(self.mean.len(), self.mean.len()), ..self }
    }

    /// Turned to the places of the first segments, all of which are equally likely.
    fn over_segments(self, turns: &Turns, segments: usize) -> Rows {
        let d = self.mean.len();
        let about_zero = &self.covariance + &self.mean * self.mean.transpose();
        let (mut mean, mut second, mut metric) = (DVector::zeros(d), DMatrix::zeros(d, d), DMatrix::zeros(d, d));
        for segment in 0..segments {
            let turn = rotation(turns, segment, d) / segments as f64;
            let back = rotation(turns, segment, d).transpose();
            mean += &turn * &self.mean;
            second += &turn * &about_zero * &back;
            metric += &turn * &self.metric * &back;
        }
        Rows { covariance: second - &mean * mean.transpose(), mean, metric }
    }
}

/// R(p0) of a segment, for columns.
fn rotation(turns: &Turns, segment: usize, d: usize) -> DMatrix<f64> {
    let mut m = DMatrix::identity(d, d);
    for (i, (cos, sin)) in turns.pairs[segment * d / 2..][..d / 2].iter().enumerate() {
        let (cos, sin, j) = (f64::from(*cos), f64::from(*sin), i + d / 2);
        (m[(i, i)], m[(i, j)], m[(j, i)], m[(j, j)]) = (cos, -sin, sin, cos);
    }
    m
}

/// Every head with the coordinates of its changed rows.
fn refitted(fit: &Fit, changed: impl Fn(Rows) -> Rows + Sync) -> Result<Fit> {
    let d = fit.basis.len() / fit.mean.len().max(1);
    let f64s = |x: &[f32]| x.iter().map(|x| f64::from(*x)).collect::<Vec<f64>>();
    let head = |head: usize| -> Option<Head> {
        let basis = DMatrix::from_row_slice(d, d, &f64s(&fit.basis[head * d * d..][..d * d]));
        let energies = DMatrix::from_diagonal(&DVector::from_vec(f64s(&fit.energy[head * d..][..d])));
        let inverse = basis.clone().try_inverse()?;
        let rows = changed(Rows { mean: DVector::from_vec(f64s(&fit.mean[head * d..][..d])), covariance: inverse.transpose() * energies * inverse, metric: &basis * basis.transpose() });
        let covariance = (&rows.covariance + rows.covariance.transpose()) * 0.5;
        Some(Head::of(rows.mean.as_slice(), covariance.as_slice(), (rows.metric.as_slice(), 1.0), d))
    };
    let found: Option<Vec<Head>> = (0..fit.mean.len() / d).into_par_iter().map(head).collect();
    let mut out = Fit::default();
    let singular = || Error::Data("a basis of the calibration has no inverse; run `harness calibrate` again".into());
    found.ok_or_else(singular)?.into_iter().for_each(|head| head.append_to(&mut out));
    Ok(out)
}
