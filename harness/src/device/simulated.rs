//! Rows that make a round trip through a codec that no kernel reads, and are then attended to exactly. The round trip is
//! made on the host; what kernels code has [`super::loaded::Loaded`].

use std::rc::Rc;

use runtime::{Memory, Span};

use super::exact::Exact;
use super::{Attend, DeviceRows, Machine};
use crate::attention::{Coder, Distortion, Geometry, Own, Stream, Tally};
use crate::error::Result;

pub struct Simulated {
    machine: Rc<Machine>,
    exact: Exact,
    geometry: Geometry,
    coders: [Option<Coder>; 2],
    own: Own,
    /// rows of one layer as later queries see them, [K | V][position, kv head, d]
    past: [Memory; 2],
    tally: Tally,
}

impl Simulated {
    pub fn new(
        machine: Rc<Machine>,
        geometry: Geometry,
        coders: [Option<Coder>; 2],
        own: Own,
        tokens: usize,
    ) -> Result<Simulated> {
        let bytes = 4 * tokens * geometry.kv_heads * geometry.d;
        let past = [Memory::zeroed(&machine.device, bytes)?, Memory::zeroed(&machine.device, bytes)?];
        let exact = Exact::new(machine.clone(), geometry);
        Ok(Simulated { machine, exact, geometry, coders, own, past, tally: Tally::default() })
    }
}

impl Attend for Simulated {
    fn attend(&mut self, rows: &DeviceRows, out: Span) -> Result<()> {
        let Geometry { kv_heads, d, .. } = self.geometry;
        let (stream, width) = (&self.machine.stream, kv_heads * d);
        let (first, count) = (4 * rows.start * width, rows.tokens * width);
        let mut coded = [None, None];
        for (half, raw) in [(Stream::K, rows.k), (Stream::V, rows.v)] {
            let past = &self.past[half as usize];
            past.copy_from(stream, first, rows.own(raw, width)?)?;
            let Some(coder) = self.coders[half as usize] else { continue };
            let x: Vec<f32> = raw.download(stream, first, count)?;
            let y = if coder.leaves_raw(self.own, rows.start) {
                x.clone()
            } else {
                let (read, sizes) = coder.round_trip(half, (rows.layer, rows.start), &x, d)?;
                self.tally.sizes += sizes;
                read
            };
            let layer = self.tally.layer(rows.layer);
            let found = Distortion::of_rows(&x, &y, d);
            if half == Stream::K {
                layer.k += found
            } else {
                layer.v += found
            }
            if self.own == Own::Coded {
                past.upload(stream, first, &y)?;
            }
            coded[half as usize] = Some(y);
        }
        let [k, v] = &self.past;
        self.exact.over([rows.q, k.span(), v.span(), rows.own_positions()?, out], rows.tokens)?;
        if self.own == Own::Raw {
            for (past, y) in self.past.iter().zip(&coded) {
                if let Some(y) = y {
                    past.upload(stream, first, y)?;
                }
            }
        }
        Ok(())
    }

    fn tally(&mut self) -> Result<Tally> {
        Ok(self.tally.clone())
    }
}
