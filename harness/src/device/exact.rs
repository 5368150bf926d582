//! Exact attention over plain rows: the base model's.

use std::rc::Rc;

use runtime::Span;

use super::{Attend, DeviceRows, Machine};
use crate::attention::Geometry;
use crate::error::Result;

/// Keys that are summed at a time.
const KEYS: usize = 64;
/// Of the noise row: the same mathematics in another order of sums.
const OTHER_KEYS: usize = 16;

pub struct Exact {
    machine: Rc<Machine>,
    geometry: Geometry,
    keys: usize,
}

impl Exact {
    pub fn new(machine: Rc<Machine>, geometry: Geometry) -> Exact {
        // 64 keys of 256 dims leave little room for rows.
        let keys = if geometry.d > 128 { KEYS / 2 } else { KEYS };
        Exact { machine, geometry, keys }
    }

    pub fn reordered(machine: Rc<Machine>, geometry: Geometry) -> Exact {
        Exact { machine, geometry, keys: OTHER_KEYS }
    }

    /// `queries` rows of `q` at ascending `positions` over `k` and `v`.
    pub fn over(&self, [q, k, v, positions, out]: [Span; 5], queries: usize) -> Result<()> {
        self.machine.attention(&self.geometry, self.keys, [q, k, v, positions, out], queries)
    }
}

impl Attend for Exact {
    fn attend(&mut self, rows: &DeviceRows, out: Span) -> Result<()> {
        self.over([rows.q, rows.k.span(), rows.v.span(), rows.own_positions()?, out], rows.tokens)
    }
}
