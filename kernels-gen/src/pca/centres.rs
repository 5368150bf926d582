//! Spherical k-means: a few directions, taken with either sign, that explain the most of a block's coordinates.

use half::f16;

use super::basis::{EPS, dot};
use super::error::PcaError;
use super::random::Small;
use super::settings::Settings;

/// Unit vectors but for rounding.
#[derive(Clone, PartialEq, Debug)]
pub struct Centres {
    /// `[k, rank]`
    pub rows: Vec<f32>,
    pub rank: usize,
}

impl Centres {
    /// Fitted to coordinates `[n, rank]`. Fewer than asked for where fewer rows are not zero; never none.
    pub fn fit(settings: &Settings, coordinates: &[f32], rank: usize) -> Result<Centres, PcaError> {
        let least = if settings.compat { EPS } else { f32::MIN_POSITIVE };
        let unit = |c: &[f32]| {
            let length = dot(c, c).sqrt();
            (length > least).then(|| c.iter().map(|c| c / length).collect::<Vec<f32>>())
        };
        let rows: Vec<Vec<f32>> = coordinates.chunks_exact(rank).filter_map(unit).collect();
        if rows.is_empty() {
            if settings.compat {
                return Err(PcaError::Original { does: "panics", on: "a block of equal rows" });
            }
            return Ok(Centres { rows: (0..rank).map(|i| f32::from(u8::from(i == 0))).collect(), rank });
        }
        let nonzero = coordinates.chunks_exact(rank).filter(|c| c.iter().any(|c| c.abs() > least)).count();
        let k = settings.centres.min(nonzero).max(1);
        let mut centres = farthest(&rows, k, settings.seed);
        let mut assigned = vec![0; rows.len()];
        for _ in 0..settings.iterations {
            let found: Vec<usize> = rows.iter().map(|row| closest(row, &centres, rank).0).collect();
            if found == assigned {
                break;
            }
            assigned = found;
            update(&mut centres, &rows, &assigned, rank);
        }
        if !settings.wide {
            centres.iter_mut().for_each(|x| *x = f16::from_f32(*x).to_f32());
        }
        Ok(Centres { rows: centres, rank })
    }

    pub fn count(&self) -> usize {
        self.rows.len() / self.rank
    }

    pub fn row(&self, centre: usize) -> &[f32] {
        &self.rows[centre * self.rank..][..self.rank]
    }

    /// The centre with the largest product with `c` by magnitude, the first of equals, and the product.
    pub fn closest(&self, c: &[f32]) -> (usize, f32) {
        closest(c, &self.rows, self.rank)
    }
}

fn closest(c: &[f32], centres: &[f32], rank: usize) -> (usize, f32) {
    let mut best = (0, 0.0_f32);
    for (index, centre) in centres.chunks_exact(rank).enumerate() {
        let product = dot(c, centre);
        if index == 0 || product.abs() > best.1.abs() {
            best = (index, product);
        }
    }
    best
}

/// The first centre is drawn, every further one is the row farthest from all before it.
fn farthest(rows: &[Vec<f32>], k: usize, seed: u64) -> Vec<f32> {
    let mut centres = rows[Small::new(seed).below(rows.len() as u64) as usize].clone();
    let mut near = vec![f32::NEG_INFINITY; rows.len()];
    let rank = centres.len();
    while centres.len() < k * rank {
        let newest = &centres[centres.len() - rank..];
        let mut best = (0, f32::NEG_INFINITY);
        for (index, row) in rows.iter().enumerate() {
            near[index] = near[index].max(dot(row, newest));
            if 1.0 - near[index] > best.1 {
                best = (index, 1.0 - near[index]);
            }
        }
        centres.extend_from_slice(&rows[best.0]);
    }
    centres
}

/// Every centre becomes the direction of its rows, each with the sign that it agrees with; one without rows stays.
fn update(centres: &mut [f32], rows: &[Vec<f32>], assigned: &[usize], rank: usize) {
    let mut sums = vec![0.0_f32; centres.len()];
    for (row, &at) in rows.iter().zip(assigned) {
        let sign = if dot(row, &centres[at * rank..][..rank]) >= 0.0 { 1.0 } else { -1.0 };
        sums[at * rank..][..rank].iter_mut().zip(row).for_each(|(sum, x)| *sum += sign * x);
    }
    for (centre, sum) in centres.chunks_exact_mut(rank).zip(sums.chunks_exact(rank)) {
        let length = dot(sum, sum).sqrt();
        if length > EPS {
            centre.iter_mut().zip(sum).for_each(|(c, s)| *c = s / length);
        }
    }
}
