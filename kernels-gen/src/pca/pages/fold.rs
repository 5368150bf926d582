//! A block of rows with its skeleton folded into one matrix: a row is `mean + M c`, and what rotates residuals, the components and the
//! centres are all in M. Its integers are bytes under a step a column, part of the format (about 6e-5 of a row's square).
//!
//! A token's coordinates c are its residual's levels times its norm, and its length in the place of its centre. Centres lie there each
//! way, so that lengths are not negative. What an outlier is beyond its level are whole lanes too.

use half::f16;

use super::super::basis::Basis;
use super::super::block::Skeleton;
use super::super::centres::Centres;
use super::super::error::PcaError;
use super::super::pack::unpack;
use super::super::stream::Coding;
use super::{BLOCK, Before, Columns, Frame, Turning, WAYS};
use crate::codecs::Levels;
use crate::layout::TILE;

/// Lanes that a coordinate of a token of a tile has more than its level.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Outlier {
    /// In its tile.
    pub token: usize,
    pub coordinate: usize,
    pub more: i8,
}

/// A block's map and its rows, of keys or of values.
#[derive(Clone, PartialEq, Debug)]
pub struct Folded {
    pub frame: Frame,
    /// Of centres.
    pub ways: Columns,
    /// Of keys before RoPE, whose frame and centres are its integers.
    pub turning: Option<Turning>,
    /// Of each token: number of its centre, length along it, norm of the residual (f16 bits), numbers of levels `[rank]`.
    pub numbers: Vec<u8>,
    pub lengths: Vec<u16>,
    pub norms: Vec<u16>,
    pub levels: Vec<u8>,
    /// As many a tile as its page has room for, or none.
    pub outliers: Vec<Outlier>,
}

impl Folded {
    /// Fitted to 512 rows, under the frame of a stream or one of their own; `most`: outliers of a tile, `before`: of keys before RoPE.
    pub fn fit(coding: &Coding, table: &Levels, rows: &[f32], rank: usize, shared: Option<Frame>, most: usize, before: Option<&Before>) -> Result<Folded, PcaError> {
        let (settings, d) = (&coding.settings, coding.d);
        if rows.len() != BLOCK * d {
            return Err(PcaError::Setting { what: "a block", is: format!("{} numbers", rows.len()), wanted: format!("{BLOCK} rows of {d}") });
        }
        let rows = coding.sound(rows)?;
        let rows = before.map_or_else(|| rows.clone(), |before| before.prepared(&rows, d));
        let (frame, basis) = match shared {
            Some(frame) => {
                let basis = frame.basis(settings, table.step())?;
                (frame, basis)
            }
            None => Frame::fit(settings, table.step(), &rows, d, rank)?,
        };
        let coordinates: Vec<f32> = rows.chunks_exact(d).flat_map(|x| basis.project(x)).collect();
        let centres = Centres::fit(settings, &coordinates, rank)?;
        let along = ways(&basis, &centres, d);
        let mut block = Folded { frame, ways: Columns::of(&along, d), turning: None, numbers: vec![], lengths: vec![], norms: vec![], levels: vec![], outliers: vec![] };
        let skeleton = Skeleton { basis: &basis, centres: &centres };
        let mut beyond = Vec::new();
        for (token, row) in rows.chunks_exact(d).enumerate() {
            let coded = coding.rules().encode(skeleton, row);
            block.numbers.push((2 * coded.segment) as u8 + u8::from(f16::from_bits(coded.t16) < f16::ZERO));
            block.lengths.push(coded.t16 & 0x7fff);
            block.norms.push(coded.norm16);
            let levels = unpack(&coded.packed, settings.bits, rank);
            for (j, value) in &coded.outliers {
                let coordinate = usize::from(*j);
                let more = f16::from_bits(*value).to_f32() * table.step() - table.lane(usize::from(levels[coordinate])) as f32;
                beyond.push(Outlier { token: token % TILE, coordinate, more: more.round_ties_even().clamp(-127.0, 127.0) as i8 });
            }
            block.levels.extend(levels.iter().map(|n| *n as u8));
            if token % TILE == TILE - 1 {
                block.outliers.extend(largest(std::mem::take(&mut beyond), most));
            }
        }
        if let Some(before) = before {
            before.turn(&mut block, &Frame::columns(settings, &basis, d), along, table);
        }
        Ok(block)
    }

    pub fn rank(&self) -> usize {
        self.frame.rank()
    }

    /// What the outliers of a token of the block add to its lanes: coordinate and lanes.
    pub fn more(&self, token: usize) -> impl Iterator<Item = (usize, i32)> {
        let most = self.outliers.len() / (BLOCK / TILE);
        let own = &self.outliers[token / TILE * most..][..most];
        own.iter().filter(move |o| o.token == token % TILE).map(|o| (o.coordinate, i32::from(o.more)))
    }

    /// Lanes of a token, its outliers included, `lane`: of a level's number.
    pub fn lanes(&self, token: usize, lane: impl Fn(usize) -> i32) -> Vec<i32> {
        let rank = self.rank();
        let mut lanes: Vec<i32> = self.levels[token * rank..][..rank].iter().map(|n| lane(usize::from(*n))).collect();
        self.more(token).for_each(|(j, more)| lanes[j] += more);
        lanes
    }

    /// The numbers that a token stands for; of keys before RoPE, before it.
    pub fn row(&self, token: usize, lane: impl Fn(usize) -> i32) -> Vec<f64> {
        if let Some(turning) = &self.turning {
            return turning.row(self, token, &self.lanes(token, lane));
        }
        let d = self.frame.d;
        let half = |x: u16| f64::from(f16::from_bits(x).to_f32());
        let mut row: Vec<f64> = self.frame.mean.iter().map(|m| f64::from(*m)).collect();
        let mut add = |column: &[i8], c: f64| row.iter_mut().zip(column).for_each(|(x, m)| *x += c * f64::from(*m));
        for (j, lane) in self.lanes(token, lane).into_iter().enumerate() {
            add(&self.frame.matrix[j * d..][..d], half(self.norms[token]) * f64::from(lane) * f64::from(self.frame.worth[j]));
        }
        let way = usize::from(self.numbers[token]);
        add(&self.ways.matrix[way * d..][..d], half(self.lengths[token]) * f64::from(self.ways.worth[way]));
        row
    }
}

/// Exactly `most` of a tile's outliers: those that add most, filled up with such as add nothing.
fn largest(mut found: Vec<Outlier>, most: usize) -> Vec<Outlier> {
    found.sort_by_key(|o| (-i32::from(o.more).abs(), o.token, o.coordinate));
    found.resize(most, Outlier { token: 0, coordinate: 0, more: 0 });
    found
}

/// Centres each way.
fn ways(basis: &Basis, centres: &Centres, d: usize) -> Vec<f64> {
    let mut columns = vec![0.0_f64; WAYS * d];
    for i in 0..d {
        for k in 0..centres.count() {
            let along: f64 = (0..centres.rank).map(|c| f64::from(basis.rows[c * d + i]) * f64::from(centres.row(k)[c])).sum();
            columns[2 * k * d + i] = along * f64::from(basis.scale);
            columns[(2 * k + 1) * d + i] = -along * f64::from(basis.scale);
        }
    }
    columns
}
