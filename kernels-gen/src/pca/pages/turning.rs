//! Keys before RoPE: what a block keeps beside its matrices, so that whoever reads it turns its keys.
//!
//! A key is `factor (mean + norm A + length C)`, A and C sums of bytes, a factor for each pair of coordinates that turn together: so what
//! is turned are numbers in one unit, integers of 16 bits (about 1e-9 of a row's square), and factors belong to the query. Speeds lie in the page:
//! a page says itself how its keys turn.

use std::f64::consts::TAU;

use half::f16;

use super::super::whiten::Whitening;
use super::{BLOCK, Folded, WAYS};
use crate::codecs::Levels;

/// Magnitude of what is turned, at most, but for rounding.
const TOP: f64 = 32000.0;

/// How much larger a pair's numbers may be under its factor than those of the pair that fills it best.
const APART: f64 = 4096.0;

/// A float that has integers for its lowest bits.
pub const MAGIC: f32 = 12_582_912.0;

/// What is known of keys before RoPE beside the keys.
#[derive(Clone, Copy, Debug)]
pub struct Before<'a> {
    /// Radians a token by which coordinate i turns with coordinate i + d / 2. `[d / 2]`
    pub speeds: &'a [f64],
    /// Where keys are preconditioned.
    pub whitening: Option<&'a Whitening>,
}

/// What turning a block's keys takes.
#[derive(Clone, PartialEq, Debug)]
pub struct Turning {
    /// Of a pair. `[d / 2]`
    pub factors: Vec<f32>,
    /// `[d]`
    pub means: Vec<f32>,
    /// What a norm is worth to a sum of lanes, and a length to one of marks.
    pub units: [f32; 2],
    /// In 2^-64 of a turn a token. `[d / 2]`
    pub speeds: Vec<u64>,
}

/// RoPE's own speeds under a base.
pub fn plain_speeds(theta: f64, d: usize) -> Vec<f64> {
    (0..d / 2).map(|i| theta.powf(-((2 * i) as f64) / d as f64)).collect()
}

impl Before<'_> {
    /// Rows as they are coded.
    pub(super) fn prepared(&self, rows: &[f32], d: usize) -> Vec<f32> {
        self.whitening.map_or_else(|| rows.to_vec(), |w| rows.chunks_exact(d).flat_map(|row| w.forth(row)).collect())
    }

    /// Gives a block that is coded its integers: `columns` of residuals' coordinates `[rank, d]` and of centres `ways` `[WAYS, d]`.
    pub(super) fn turn(&self, block: &mut Folded, columns: &[f64], ways: Vec<f64>, table: &Levels) {
        let (d, rank, step) = (block.frame.d, block.rank(), f64::from(table.step()));
        let back = |x: &[f64]| match self.whitening {
            Some(w) => x.chunks_exact(d).flat_map(|row| w.back(&row.iter().map(|x| *x as f32).collect::<Vec<f32>>())).map(f64::from).collect(),
            None => x.to_vec(),
        };
        let lanes: Vec<f64> = back(columns).into_iter().map(|x| x / step).collect();
        let (ways, mean) = (back(&ways), back(&block.frame.mean.iter().map(|m| f64::from(*m)).collect::<Vec<f64>>()));
        let half = d / 2;
        let longest = lengths_of(block, table, &lanes, &ways, &mean);
        // Of each pair the largest entry of a row of the matrix.
        let mut grain: Vec<f64> = (0..half).map(|i| (0..rank).fold(0.0, |top: f64, j| top.max(lanes[j * d + i].abs()).max(lanes[j * d + i + half].abs()))).collect();
        let best = grain.iter().zip(&longest).map(|(g, p)| if *p > 0.0 { g / p } else { 0.0 }).fold(0.0, f64::max);
        let least = if best > 0.0 { best / APART } else { 1.0 };
        grain.iter_mut().zip(&longest).for_each(|(g, p)| *g = g.max(p * least).max(f64::from(f32::MIN_POSITIVE) * 1e6));
        let unit = grain.iter().zip(&longest).map(|(g, p)| p / g).fold(0.0, f64::max).max(1e-20) / TOP;
        let most = (0..WAYS * d).fold(0.0, |top: f64, at| top.max(ways[at].abs() / grain[at % half])).max(1e-20);
        let bytes = |x: &[f64], each: f64| x.iter().enumerate().map(|(at, x)| (x / grain[at % half] / each * 127.0).round_ties_even() as i8).collect::<Vec<i8>>();
        block.frame.matrix = bytes(&lanes, 1.0);
        block.ways.matrix = bytes(&ways, most);
        // Marks are 128 times as large as ones.
        let units = [1.0 / (127.0 * unit), most / (127.0 * 128.0 * unit)].map(|unit| unit as f32);
        let factors = grain.iter().map(|g| (g * unit) as f32).collect();
        let means = mean.iter().enumerate().map(|(i, m)| (m / (grain[i % half] * unit)) as f32).collect();
        let speeds = self.speeds.iter().map(|s| (s / TAU).rem_euclid(1.0)).map(|turns| (turns * 2_f64.powi(64)) as u64).collect();
        block.turning = Some(Turning { factors, means, units, speeds });
        block.frame.worth = vec![1.0; rank];
        block.ways.worth = vec![1.0; WAYS];
        block.frame.mean = vec![0.0; d];
    }
}

/// The largest length of each pair among a block's keys. `[d / 2]`
fn lengths_of(block: &Folded, table: &Levels, lanes: &[f64], ways: &[f64], mean: &[f64]) -> Vec<f64> {
    let d = mean.len();
    let mut longest = vec![0.0_f64; d / 2];
    for token in 0..BLOCK {
        let half = |x: u16| f64::from(f16::from_bits(x).to_f32());
        let (norm, length, way) = (half(block.norms[token]), half(block.lengths[token]), usize::from(block.numbers[token]));
        let mut row: Vec<f64> = mean.iter().zip(&ways[way * d..]).map(|(m, w)| m + length * w).collect();
        for (lane, column) in block.lanes(token, |n| table.lane(n)).into_iter().zip(lanes.chunks_exact(d)) {
            let by = norm * f64::from(lane);
            row.iter_mut().zip(column).for_each(|(x, c)| *x += by * c);
        }
        let (low, high) = row.split_at(d / 2);
        longest.iter_mut().zip(low.iter().zip(high)).for_each(|(top, (a, b))| *top = top.max(a.hypot(*b)));
    }
    longest
}

impl Turning {
    /// A token's key before RoPE.
    pub(super) fn row(&self, block: &Folded, token: usize, lanes: &[i32]) -> Vec<f64> {
        let d = self.means.len();
        let half = |x: u16| f64::from(f16::from_bits(x).to_f32());
        let (norm, length) = (half(block.norms[token]) * f64::from(self.units[0]), half(block.lengths[token]) * 128.0 * f64::from(self.units[1]));
        let mut row: Vec<f64> = self.means.iter().map(|m| f64::from(*m)).collect();
        let mut add = |column: &[i8], by: f64| row.iter_mut().zip(column).for_each(|(x, m)| *x += by * f64::from(*m));
        lanes.iter().zip(block.frame.matrix.chunks_exact(d)).for_each(|(lane, column)| add(column, norm * f64::from(*lane)));
        add(&block.ways.matrix[usize::from(block.numbers[token]) * d..][..d], length);
        row.iter().enumerate().map(|(i, x)| x * f64::from(self.factors[i % (d / 2)])).collect()
    }

    /// What a sum of lanes from 0 on starts from, as a float that has it in its lowest bits: lanes of keys stand 128 higher.
    pub fn zeros(matrix: &[i8], d: usize) -> Vec<f32> {
        (0..d).map(|i| MAGIC + (128 * matrix.chunks_exact(d).map(|column| i32::from(column[i])).sum::<i32>()) as f32).collect()
    }
}
