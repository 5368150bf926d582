//! A cache that keeps its latest tokens raw, simulated on the host.

use std::rc::Rc;

use runtime::Span;

use super::{Attend, DeviceRows, Machine};
use crate::attention::{Counted, Geometry, Tally};
use crate::error::Result;
use crate::model::Rows;

pub struct Windowed {
    machine: Rc<Machine>,
    geometry: Geometry,
    inner: Box<dyn Counted>,
}

impl Windowed {
    pub fn new(machine: Rc<Machine>, geometry: Geometry, inner: Box<dyn Counted>) -> Windowed {
        Windowed { machine, geometry, inner }
    }
}

impl Attend for Windowed {
    fn attend(&mut self, rows: &DeviceRows, out: Span) -> Result<()> {
        let Geometry { heads, kv_heads, d, .. } = self.geometry;
        let (stream, width) = (&self.machine.stream, kv_heads * d);
        let count = rows.tokens * heads * d;
        let scratch = self.machine.scratch("queries and outputs on their way", 4 * count)?;
        scratch.copy_from(stream, 0, rows.q)?;
        let q: Vec<f32> = scratch.download(stream, 0, count)?;
        let own = |memory: &runtime::Memory| memory.download::<f32>(stream, 4 * rows.start * width, rows.tokens * width);
        let (k, v) = (own(rows.k)?, own(rows.v)?);
        let rows = Rows { layer: rows.layer, start: rows.start, tokens: rows.tokens, q: &q, k: &k, v: &v };
        scratch.upload(stream, 0, &self.inner.attend(&rows)?)?;
        Ok(out.copy_from(stream, scratch.span().part(0, 4 * count as u64)?)?)
    }

    fn tally(&mut self) -> Result<Tally> {
        Ok(self.inner.tally())
    }
}
