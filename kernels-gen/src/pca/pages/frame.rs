//! The basis of residuals as bytes: columns of a matrix under a step each, and the mean. A block has one of its own, or all blocks of a
//! stream share one.

use super::super::basis::Basis;
use super::super::error::PcaError;
use super::super::mix::{hadamard, signs};
use super::super::settings::Settings;

/// Columns as bytes, and what a step of each is worth.
#[derive(Clone, PartialEq, Debug)]
pub struct Columns {
    /// `[columns, d]`
    pub matrix: Vec<i8>,
    pub worth: Vec<f32>,
}

/// Of residuals' coordinates.
#[derive(Clone, PartialEq, Debug)]
pub struct Frame {
    pub d: usize,
    /// `[rank, d]`
    pub matrix: Vec<i8>,
    /// What a step of each coordinate is worth, a lane of a level included.
    pub worth: Vec<f32>,
    pub mean: Vec<f32>,
}

impl Columns {
    /// Of numbers `[columns, d]`, each column under its largest magnitude.
    pub fn of(columns: &[f64], d: usize) -> Columns {
        let (mut matrix, mut worth) = (Vec::with_capacity(columns.len()), Vec::with_capacity(columns.len() / d));
        for column in columns.chunks_exact(d) {
            let unit = column.iter().fold(0.0_f64, |top, x| top.max(x.abs())) / 127.0;
            matrix.extend(column.iter().map(|x| if unit > 0.0 { (x / unit).round_ties_even() as i8 } else { 0 }));
            worth.push(unit as f32);
        }
        Columns { matrix, worth }
    }
}

impl Frame {
    /// Of a basis of `rank` components, `step`: lanes of a level of 1. A residual's coordinates go through the butterfly, its signs and the
    /// components.
    pub fn of(settings: &Settings, step: f32, basis: &Basis, d: usize) -> Frame {
        let Columns { matrix, worth } = Columns::of(&Frame::columns(settings, basis, d), d);
        let worth = worth.iter().map(|unit| (f64::from(*unit) / f64::from(step)) as f32).collect();
        Frame { d, matrix, worth, mean: basis.mean.iter().map(|m| m * basis.scale).collect() }
    }

    /// What a residual's coordinates of 1 are each. `[rank, d]`
    pub fn columns(settings: &Settings, basis: &Basis, d: usize) -> Vec<f64> {
        let (rank, signs) = (basis.rows.len() / d, signs(settings.seed, d.next_power_of_two()));
        let mut columns = vec![0.0_f64; rank * d];
        for i in 0..d {
            // The butterfly is its own transpose.
            let mut turned: Vec<f64> = (0..rank).map(|c| f64::from(basis.rows[c * d + i]) * f64::from(signs[c])).collect();
            hadamard(&mut turned);
            turned.iter().enumerate().for_each(|(j, x)| columns[j * d + i] = x * f64::from(basis.scale) / rank as f64);
        }
        columns
    }

    /// Fitted to rows of `d` finite numbers.
    pub fn fit(settings: &Settings, step: f32, rows: &[f32], d: usize, rank: usize) -> Result<(Frame, Basis), PcaError> {
        let mut basis = Basis::fit(settings, rows, d)?;
        basis.rows.resize(rank * d, 0.0);
        Ok((Frame::of(settings, step, &basis, d), basis))
    }

    pub fn rank(&self) -> usize {
        self.worth.len()
    }

    /// The basis that it stands for: what a stream's later blocks are coded under.
    pub fn basis(&self, settings: &Settings, step: f32) -> Result<Basis, PcaError> {
        let (d, rank, signs) = (self.d, self.rank(), signs(settings.seed, self.d.next_power_of_two()));
        let mut rows = vec![0.0_f64; rank * d];
        for i in 0..d {
            let mut turned: Vec<f64> = (0..rank).map(|j| f64::from(self.matrix[j * d + i]) * f64::from(self.worth[j]) * f64::from(step)).collect();
            hadamard(&mut turned);
            turned.iter().enumerate().for_each(|(c, x)| rows[c * d + i] = x * f64::from(signs[c]));
        }
        let size = rows.chunks_exact(d).map(|row| row.iter().map(|x| x * x).sum::<f64>()).fold(0.0, f64::max).sqrt();
        // Components have length 1, so the scale is the power of two nearest to theirs.
        let scale = if size > 0.0 { size.log2().round().exp2() } else { 1.0 };
        if !(scale as f32).is_normal() || self.mean.iter().any(|m| !m.is_finite()) {
            return Err(PcaError::Missing { what: "a page of shared bases" });
        }
        let mean = self.mean.iter().map(|m| m / scale as f32).collect();
        Ok(Basis { scale: scale as f32, mean, rows: rows.iter().map(|x| (x / scale) as f32).collect(), captured: f64::NAN })
    }
}
