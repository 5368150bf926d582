//! Layers that attend in different ways: a codec on the inner layers only, or another codec where a layer needs it.

use super::{Counted, Dense, Geometry, Tally};
use crate::error::Result;
use crate::model::{Attention, Rows};

pub struct ByLayer {
    ways: Vec<Box<dyn Counted>>,
    /// index of a layer's way; None for exact attention over raw rows
    of: Vec<Option<usize>>,
    raw: Dense,
}

impl ByLayer {
    pub fn new(geometry: Geometry, ways: Vec<Box<dyn Counted>>, of: Vec<Option<usize>>) -> ByLayer {
        ByLayer { ways, of, raw: Dense::new(geometry) }
    }
}

impl Attention for ByLayer {
    fn attend(&mut self, rows: &Rows) -> Result<Vec<f32>> {
        match self.of[rows.layer] {
            Some(way) => self.ways[way].attend(rows),
            None => self.raw.attend(rows),
        }
    }
}

impl Counted for ByLayer {
    fn tally(&self) -> Tally {
        let mut tally = Tally::default();
        self.ways.iter().for_each(|way| tally += &way.tally());
        tally
    }
}
