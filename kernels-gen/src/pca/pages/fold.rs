//! A block of rows with its skeleton folded into one matrix: a row is `mean + M c`, and what rotates residuals, the components and the
//! centres are all in M. Its integers are bytes under a step a column, part of the format (about 6e-5 of a row's square).
//!
//! A token's coordinates c are its residual's levels times its norm, and its length in the place of its centre. Centres lie there each
//! way, so that lengths are not negative.

use half::f16;

use super::super::basis::Basis;
use super::super::block::Skeleton;
use super::super::centres::Centres;
use super::super::error::PcaError;
use super::super::mix::{hadamard, signs};
use super::super::pack::unpack;
use super::super::settings::Settings;
use super::super::stream::Coding;
use super::{BLOCK, WAYS};

/// A block's map and its rows, of keys or of values.
#[derive(Clone, PartialEq, Debug)]
pub struct Folded {
    pub d: usize,
    /// Coordinates of a residual; [`WAYS`] more are centres.
    pub rank: usize,
    /// `[rank + WAYS, d]`
    pub matrix: Vec<i8>,
    /// What a step of each coordinate is worth, a lane of a level included.
    pub worth: Vec<f32>,
    pub mean: Vec<f32>,
    /// Of each token: number of its centre, length along it, norm of the residual (f16 bits), numbers of levels `[rank]`.
    pub numbers: Vec<u8>,
    pub lengths: Vec<u16>,
    pub norms: Vec<u16>,
    pub levels: Vec<u8>,
}

impl Folded {
    /// Fitted to 512 rows; `step`: lanes of a level of 1.
    pub fn fit(settings: &Settings, step: f32, rows: &[f32], d: usize, rank: usize) -> Result<Folded, PcaError> {
        if rows.len() != BLOCK * d {
            return Err(PcaError::Setting { what: "a block", is: format!("{} numbers", rows.len()), wanted: format!("{BLOCK} rows of {d}") });
        }
        let coding = Coding::new(settings, d, None)?;
        let rows = coding.sound(rows)?;
        let mut basis = Basis::fit(settings, &rows, d)?;
        basis.rows.resize(rank * d, 0.0);
        let coordinates: Vec<f32> = rows.chunks_exact(d).flat_map(|x| basis.project(x)).collect();
        let centres = Centres::fit(settings, &coordinates, rank)?;
        let (matrix, worth) = folded(settings, step, &basis, &centres, d);
        let mean = basis.mean.iter().map(|m| m * basis.scale).collect();
        let mut block = Folded { d, rank, matrix, worth, mean, numbers: vec![], lengths: vec![], norms: vec![], levels: vec![] };
        let skeleton = Skeleton { basis: &basis, centres: &centres };
        for row in rows.chunks_exact(d) {
            let coded = coding.rules().encode(skeleton, row);
            block.numbers.push((2 * coded.segment) as u8 + u8::from(f16::from_bits(coded.t16) < f16::ZERO));
            block.lengths.push(coded.t16 & 0x7fff);
            block.norms.push(coded.norm16);
            block.levels.extend(unpack(&coded.packed, settings.bits, rank).iter().map(|n| *n as u8));
        }
        Ok(block)
    }

    /// The numbers that a token stands for, `lane`: of a level's number.
    pub fn row(&self, token: usize, lane: impl Fn(usize) -> i32) -> Vec<f64> {
        let half = |x: u16| f64::from(f16::from_bits(x).to_f32());
        let mut row: Vec<f64> = self.mean.iter().map(|m| f64::from(*m)).collect();
        let mut add = |coordinate: usize, c: f64| {
            let matrix = &self.matrix[coordinate * self.d..][..self.d];
            row.iter_mut().zip(matrix).for_each(|(x, m)| *x += c * f64::from(self.worth[coordinate]) * f64::from(*m));
        };
        (0..self.rank).for_each(|j| add(j, half(self.norms[token]) * f64::from(lane(usize::from(self.levels[token * self.rank + j])))));
        add(self.rank + usize::from(self.numbers[token]), half(self.lengths[token]));
        row
    }
}

/// The matrix as bytes, and what steps of its columns are worth.
fn folded(settings: &Settings, step: f32, basis: &Basis, centres: &Centres, d: usize) -> (Vec<i8>, Vec<f32>) {
    let (rank, signs, scale) = (basis.rows.len() / d, signs(settings.seed, d.next_power_of_two()), f64::from(basis.scale));
    let mut columns = vec![0.0_f64; (rank + WAYS) * d];
    for i in 0..d {
        // A residual's coordinates through the butterfly, its signs and the components: the butterfly is its own transpose.
        let mut turned: Vec<f64> = (0..rank).map(|c| f64::from(basis.rows[c * d + i]) * f64::from(signs[c])).collect();
        hadamard(&mut turned);
        turned.iter().enumerate().for_each(|(j, x)| columns[j * d + i] = x * scale / rank as f64);
        for k in 0..centres.count() {
            let along: f64 = (0..rank).map(|c| f64::from(basis.rows[c * d + i]) * f64::from(centres.row(k)[c])).sum();
            columns[(rank + 2 * k) * d + i] = along * scale;
            columns[(rank + 2 * k + 1) * d + i] = -along * scale;
        }
    }
    let (mut matrix, mut worth) = (Vec::with_capacity(columns.len()), Vec::with_capacity(rank + WAYS));
    for (j, column) in columns.chunks_exact(d).enumerate() {
        let unit = column.iter().fold(0.0_f64, |top, x| top.max(x.abs())) / 127.0;
        matrix.extend(column.iter().map(|x| if unit > 0.0 { (x / unit).round_ties_even() as i8 } else { 0 }));
        worth.push((if j < rank { unit / f64::from(step) } else { unit }) as f32);
    }
    (matrix, worth)
}
