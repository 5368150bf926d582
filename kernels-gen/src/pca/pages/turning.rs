//! Keys before RoPE: what a block keeps beside its matrices, so that whoever reads it turns its keys.
//!
//! A key is `factor (mean + length C + norm A)`, A a sum of bytes, a factor for each pair of coordinates that turn together: so what is turned are
//! numbers in one unit, integers of 16 bits (about 1e-9 of a row's square), and factors belong to the query. Mean, lengths and the centre C are integers
//! of a finer grid, so that `mean + length C` is exact in a sum of f16 products. Speeds lie in the page: a page says itself how its keys turn.

use std::f64::consts::TAU;

use half::f16;

use super::super::whiten::Whitening;
use super::{BLOCK, Columns, Folded, WAYS};
use crate::codecs::Levels;

/// Magnitude of what is turned, at most, but for rounding.
const TOP: f64 = 32000.0;

/// Steps of the grid in one of what is turned, and that step.
const GRID: f64 = 64.0;
pub const STEP: f32 = 0.015625;

/// The largest length of a block in its own steps: exact in f16, as centres are in theirs.
const LONGEST: f64 = 2000.0;

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
    /// Integers, in steps of the grid. `[d]`
    pub means: Vec<f32>,
    /// Likewise, of a length's step. `[WAYS / 2, d]`
    pub centres: Vec<i16>,
    /// What a norm is worth to a sum of lanes, in steps of the grid.
    pub unit: f32,
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
        let length = |t: usize| f64::from(f16::from_bits(block.lengths[t]).to_f32());
        let most = (0..BLOCK).map(length).fold(0.0, f64::max).max(1e-20);
        let longest = lengths_of(block, table, &lanes, &ways, &mean, most);
        // Of each pair the largest entry of a row of the matrix.
        let mut grain: Vec<f64> = (0..half).map(|i| (0..rank).fold(0.0, |top: f64, j| top.max(lanes[j * d + i].abs()).max(lanes[j * d + i + half].abs()))).collect();
        let best = grain.iter().zip(&longest).map(|(g, p)| if *p > 0.0 { g / p } else { 0.0 }).fold(0.0, f64::max);
        let least = if best > 0.0 { best / APART } else { 1.0 };
        grain.iter_mut().zip(&longest).for_each(|(g, p)| *g = g.max(p * least).max(f64::from(f32::MIN_POSITIVE) * 1e6));
        let unit = grain.iter().zip(&longest).map(|(g, p)| p / g).fold(0.0, f64::max).max(1e-20) / TOP;
        let steps = |x: f64, i: usize| (x / (grain[i % half] * unit) * GRID).round_ties_even();
        let centres = (0..WAYS / 2 * d).map(|at| steps(ways[at / d * 2 * d + at % d] * (most / LONGEST), at % d) as i16).collect();
        let means = mean.iter().enumerate().map(|(i, m)| steps(*m, i) as f32).collect();
        let factors = grain.iter().map(|g| (g * unit) as f32).collect();
        let lengths = (0..BLOCK).map(|t| f16::from_f64((length(t) / most * LONGEST).round_ties_even()).to_bits()).collect();
        block.frame.matrix = lanes.iter().enumerate().map(|(at, x)| (x / grain[at % half] * 127.0).round_ties_even() as i8).collect();
        block.ways = Columns { matrix: vec![], worth: vec![] };
        block.lengths = lengths;
        let unit = (GRID / (127.0 * unit)) as f32;
        let speeds = self.speeds.iter().map(|s| (s / TAU).rem_euclid(1.0)).map(|turns| (turns * 2_f64.powi(64)) as u64).collect();
        block.turning = Some(Turning { factors, means, centres, unit, speeds });
        block.frame.worth = vec![1.0; rank];
        block.frame.mean = vec![0.0; d];
    }
}

/// The largest length of each pair among a block's keys, its mean, and its centres at the largest length, `most`. `[d / 2]`
fn lengths_of(block: &Folded, table: &Levels, lanes: &[f64], ways: &[f64], mean: &[f64], most: f64) -> Vec<f64> {
    let d = mean.len();
    let mut longest = vec![0.0_f64; d / 2];
    let mut count = |row: &[f64], by: f64| {
        let (low, high) = row.split_at(d / 2);
        longest.iter_mut().zip(low.iter().zip(high)).for_each(|(top, (a, b))| *top = top.max(by * a.hypot(*b)));
    };
    count(mean, 1.0);
    ways.chunks_exact(d).for_each(|way| count(way, most));
    for token in 0..BLOCK {
        let half = |x: u16| f64::from(f16::from_bits(x).to_f32());
        let (norm, length, way) = (half(block.norms[token]), half(block.lengths[token]), usize::from(block.numbers[token]));
        let mut row: Vec<f64> = mean.iter().zip(&ways[way * d..]).map(|(m, w)| m + length * w).collect();
        for (lane, column) in block.lanes(token, |n| table.lane(n)).into_iter().zip(lanes.chunks_exact(d)) {
            let by = norm * f64::from(lane);
            row.iter_mut().zip(column).for_each(|(x, c)| *x += by * c);
        }
        count(&row, 1.0);
    }
    longest
}

impl Turning {
    /// A token's key before RoPE.
    pub(super) fn row(&self, block: &Folded, token: usize, lanes: &[i32]) -> Vec<f64> {
        let d = self.means.len();
        let norm = f64::from(f16::from_bits(block.norms[token]).to_f32()) * f64::from(self.unit);
        let mut row: Vec<f64> = (0..d).map(|i| f64::from(self.along(block, token, i))).collect();
        let mut add = |column: &[i8], by: f64| row.iter_mut().zip(column).for_each(|(x, m)| *x += by * f64::from(*m));
        lanes.iter().zip(block.frame.matrix.chunks_exact(d)).for_each(|(lane, column)| add(column, norm * f64::from(*lane)));
        row.iter().enumerate().map(|(i, x)| x * f64::from(STEP * self.factors[i % (d / 2)])).collect()
    }

    /// Coordinate `i` of the mean and what a token has along its centre, in steps of the grid.
    pub fn along(&self, block: &Folded, token: usize, i: usize) -> f32 {
        let (d, number) = (self.means.len(), block.numbers[token]);
        let length = f16::from_bits(block.lengths[token]).to_f32();
        let centre = f32::from(self.centres[usize::from(number / 2) * d + i]);
        self.means[i] + centre * if number % 2 == 0 { length } else { -length }
    }

    /// What a sum of lanes from 0 on starts from, as a float that has it in its lowest bits: lanes of keys stand 128 higher.
    pub fn zeros(matrix: &[i8], d: usize) -> Vec<f32> {
        (0..d).map(|i| MAGIC + (128 * matrix.chunks_exact(d).map(|column| i32::from(column[i])).sum::<i32>()) as f32).collect()
    }
}
