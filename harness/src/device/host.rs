//! Any attention of the CPU for a forward pass on a device: its rows travel to the host and back.

use std::rc::Rc;

use runtime::Span;

use super::{Attend, DeviceRows, Machine};
use crate::attention::{Counted, Geometry, Tally};
use crate::error::Result;
use crate::model::Rows;

pub struct OnHost {
    machine: Rc<Machine>,
    geometry: Geometry,
    inner: Box<dyn Counted>,
}

impl OnHost {
    pub fn new(machine: Rc<Machine>, geometry: Geometry, inner: Box<dyn Counted>) -> OnHost {
        OnHost { machine, geometry, inner }
    }
}

impl Attend for OnHost {
    fn attend(&mut self, rows: &DeviceRows, out: Span) -> Result<()> {
        let Geometry { heads, kv_heads, d, .. } = self.geometry;
        let (stream, width) = (&self.machine.stream, kv_heads * d);
        let own = |memory: &runtime::Memory| memory.download(stream, 4 * rows.start * width, rows.tokens * width);
        let q = self.machine.fetch(rows.q, rows.tokens * heads * d)?;
        let (k, v): (Vec<f32>, Vec<f32>) = (own(rows.k)?, own(rows.v)?);
        let given = Rows { layer: rows.layer, start: rows.start, tokens: rows.tokens, q: &q, k: &k, v: &v };
        let found = self.inner.attend(&given)?;
        self.machine.give(&found, out)
    }

    fn tally(&mut self) -> Result<Tally> {
        Ok(self.inner.tally())
    }
}
