//! Watches an attention: the outputs of some queries against exact attention over the raw rows of the same layer.

use std::rc::Rc;

use runtime::{Memory, Span};

use super::exact::Exact;
use super::{Attend, DeviceRows, Machine};
use crate::attention::{Distortion, Geometry, Tally};
use crate::error::Result;

pub struct Probe {
    inner: Box<dyn Attend>,
    machine: Rc<Machine>,
    exact: Exact,
    geometry: Geometry,
    /// positions whose outputs are compared, in order
    sampled: Vec<usize>,
    errors: Tally,
}

impl Probe {
    pub fn new(inner: Box<dyn Attend>, machine: Rc<Machine>, geometry: Geometry, sampled: Vec<usize>) -> Probe {
        let exact = Exact::new(machine.clone(), geometry);
        Probe { inner, machine, exact, geometry, sampled, errors: Tally::default() }
    }
}

impl Attend for Probe {
    fn attend(&mut self, rows: &DeviceRows, out: Span) -> Result<()> {
        self.inner.attend(rows, out)?;
        let Geometry { heads, d, .. } = self.geometry;
        let here = self.sampled.iter().copied().filter(|p| (rows.start..rows.seen()).contains(p));
        let positions: Vec<i32> = here.map(|p| p as i32).collect();
        if positions.is_empty() {
            return Ok(());
        }
        let (machine, n, width) = (&self.machine, positions.len(), heads * d);
        let places: Vec<i64> = positions.iter().map(|p| i64::from(*p) - rows.start as i64).collect();
        let device = &machine.device;
        let (places, positions) = (Memory::from_slice(device, &places)?, Memory::from_slice(device, &positions)?);
        let space = |what| machine.scratch(what, 4 * n * width);
        let (q, got, wanted) = (space("probed queries")?, space("probed outputs")?, space("exact outputs")?);
        machine.gather([rows.q, places.span(), q.span()], n, width)?;
        machine.gather([out, places.span(), got.span()], n, width)?;
        let spans = [q.span(), rows.k.span(), rows.v.span(), positions.span(), wanted.span()];
        self.exact.over(spans, n)?;
        let fetch = |memory: &Memory| memory.download::<f32>(&machine.stream, 0, n * width);
        let (got, wanted) = (fetch(&got)?, fetch(&wanted)?);
        let layer = self.errors.layer(rows.layer);
        layer.attention += Distortion::of_rows(&wanted, &got, d);
        Ok(())
    }

    fn tally(&mut self) -> Result<Tally> {
        let mut tally = self.inner.tally()?;
        tally += &self.errors;
        Ok(tally)
    }
}
