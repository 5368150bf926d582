//! A full block: its skeleton and its rows.

use super::basis::Basis;
use super::centres::Centres;
use super::error::PcaError;
use super::row::{Coded, Rules};

/// What all rows of a block are coded by.
#[derive(Clone, Copy, Debug)]
pub struct Skeleton<'a> {
    pub basis: &'a Basis,
    pub centres: &'a Centres,
}

#[derive(Clone, PartialEq, Debug)]
pub struct Block {
    /// None where the stream's is shared
    pub basis: Option<Basis>,
    pub centres: Centres,
    pub rows: Vec<Coded>,
}

impl Block {
    /// Codes rows of `d` coordinates, under `shared` or under a basis of their own.
    pub fn encode(rules: &Rules, shared: Option<&Basis>, rows: &[f32], d: usize) -> Result<Block, PcaError> {
        let own = if shared.is_none() { Some(Basis::fit(rules.settings, rows, d)?) } else { None };
        let basis = own.as_ref().or(shared).ok_or(PcaError::Missing { what: "a basis" })?;
        let coordinates: Vec<f32> = rows.chunks_exact(d).flat_map(|x| basis.project(x)).collect();
        let centres = Centres::fit(rules.settings, &coordinates, basis.rank())?;
        let skeleton = Skeleton { basis, centres: &centres };
        let rows = rows.chunks_exact(d).map(|x| rules.encode(skeleton, x)).collect();
        Ok(Block { basis: own, centres, rows })
    }

    /// Its own skeleton, or that with the stream's basis.
    pub fn skeleton<'a>(&'a self, shared: Option<&'a Basis>) -> Result<Skeleton<'a>, PcaError> {
        let basis = self.basis.as_ref().or(shared).ok_or(PcaError::Missing { what: "a basis" })?;
        Ok(Skeleton { basis, centres: &self.centres })
    }

    /// All rows `[n, d]`.
    pub fn decode(&self, rules: &Rules, shared: Option<&Basis>) -> Result<Vec<f32>, PcaError> {
        let skeleton = self.skeleton(shared)?;
        Ok(self.rows.iter().flat_map(|coded| rules.decode(skeleton, coded)).collect())
    }
}
