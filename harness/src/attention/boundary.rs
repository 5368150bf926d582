//! A codec on the inner layers only: the first and the last ones often carry more than their share of the loss.

use super::{Counted, Dense, Geometry, Tally};
use crate::error::Result;
use crate::model::{Attention, Rows};

pub struct Boundary {
    inner: Box<dyn Counted>,
    raw: Dense,
    /// layers at either end that stay raw
    skip: usize,
}

impl Boundary {
    pub fn new(geometry: Geometry, skip: usize, inner: Box<dyn Counted>) -> Boundary {
        Boundary { inner, raw: Dense::new(geometry), skip }
    }
}

impl Attention for Boundary {
    fn attend(&mut self, rows: &Rows) -> Result<Vec<f32>> {
        let inside = rows.layer >= self.skip && rows.layer + self.skip < self.raw.geometry.layers;
        if inside { self.inner.attend(rows) } else { self.raw.attend(rows) }
    }
}

impl Counted for Boundary {
    fn tally(&self) -> Tally {
        self.inner.tally()
    }
}
