//! Rows that make a round trip through a codec that no kernel reads, and are then attended to exactly. The round trip is
//! made on the host; what kernels code has [`super::loaded::Loaded`].

use std::rc::Rc;

use rayon::prelude::*;
use runtime::{Memory, Span};

use super::exact::Exact;
use super::{Attend, DeviceRows, Machine};
use crate::attention::{Coder, Distortion, Geometry, Own, Sizes, Stream, Tally};
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
    pub fn new(machine: Rc<Machine>, geometry: Geometry, coders: [Option<Coder>; 2], own: Own, tokens: usize) -> Result<Simulated> {
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
        for (past, raw) in self.past.iter().zip([rows.k, rows.v]) {
            past.copy_from(stream, first, rows.own(raw, width)?)?;
        }
        let halves = [(Stream::K, rows.k), (Stream::V, rows.v)].into_iter().zip(self.coders);
        let halves = halves.filter_map(|((half, raw), coder)| Some((half, raw, coder?)));
        let given = halves.map(|(half, raw, coder)| Ok((half, coder, raw.download::<f32>(stream, first, count)?)));
        let given: Vec<(Stream, Coder, Vec<f32>)> = given.collect::<Result<_>>()?;
        let own = self.own;
        let became = |(half, coder, x): &(Stream, Coder, Vec<f32>)| match coder.leaves_raw(own, rows.start) {
            true => Ok((x.clone(), Sizes::default())),
            false => coder.round_trip(*half, (rows.layer, rows.start), x, d),
        };
        let became: Vec<(Vec<f32>, Sizes)> = given.par_iter().map(became).collect::<Result<_>>()?;
        for ((half, _, x), (y, sizes)) in given.iter().zip(&became) {
            self.tally.sizes += *sizes;
            let layer = self.tally.layer(rows.layer);
            let of = if *half == Stream::K { &mut layer.k } else { &mut layer.v };
            *of += Distortion::of_rows(x, y, d);
        }
        let put = || -> Result<()> {
            let each = given.iter().zip(&became);
            Ok(each.map(|((half, ..), (y, _))| self.past[*half as usize].upload(stream, first, y)).collect::<runtime::Result<()>>()?)
        };
        if own == Own::Coded {
            put()?;
        }
        let [k, v] = &self.past;
        self.exact.over([rows.q, k.span(), v.span(), rows.own_positions()?, out], rows.tokens)?;
        if own == Own::Raw {
            put()?;
        }
        Ok(())
    }

    fn tally(&mut self) -> Result<Tally> {
        Ok(self.tally.clone())
    }
}
