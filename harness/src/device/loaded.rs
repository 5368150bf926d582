//! Rows that go into a coded cache, come back as f32 and are attended to exactly, all on the device: keys or values alone,
//! and the read paths on which a query sees some rows raw. Tells apart what the packed path mixes.

use std::rc::Rc;

use runtime::{Memory, Span};

use super::cache::{Cache, Places};
use super::compared::Compared;
use super::exact::Exact;
use super::plans::Scheme;
use super::{Attend, DeviceRows, Machine};
use crate::attention::{Geometry, Misread, Own, Tally};
use crate::error::{Error, Result};

pub struct Loaded {
    machine: Rc<Machine>,
    exact: Exact,
    geometry: Geometry,
    /// whether keys are coded, and values
    halves: [bool; 2],
    own: Own,
    /// of the whole passage
    tokens: usize,
    places: Rc<Places>,
    /// None for layers that are not coded so; they share a memory
    layers: Vec<Option<Cache>>,
    /// of a control: the coordinate that comes to each place
    wrong: Option<Memory>,
    /// rows of one layer as later queries see them, [K | V][position, kv head, d]
    past: [Memory; 2],
    compared: Compared,
}

impl Loaded {
    /// For the layers of that list.
    pub fn new(machine: Rc<Machine>, scheme: Scheme, (geometry, layers): (Geometry, &[usize]), halves: [bool; 2], own: Own, tokens: usize) -> Result<Loaded> {
        let places = Places::new(&machine, tokens)?;
        let memory = machine.scratch("loaded cache", Cache::most(&machine, scheme, &geometry, layers, &places)?)?;
        let cache = |layer: usize| Cache::new(&machine, scheme, (geometry, layer), &places, Some(&memory), false);
        let each = (0..geometry.layers).map(|layer| layers.contains(&layer).then(|| cache(layer)).transpose());
        let each = each.collect::<Result<Vec<_>>>()?;
        let past = || Memory::zeroed(&machine.device, 4 * tokens * geometry.kv_heads * geometry.d);
        Ok(Loaded { exact: Exact::new(machine.clone(), geometry), past: [past()?, past()?], compared: Compared::new(machine.clone(), geometry, tokens)?, machine, geometry, halves, own, tokens, places, layers: each, wrong: None })
    }

    /// Broken on purpose.
    pub fn misreading(mut self) -> Result<Loaded> {
        if let Some([read, _]) = Misread::of(self.geometry.d).tables() {
            self.wrong = Some(Memory::from_slice(&self.machine.device, &read)?);
        }
        Ok(self)
    }

    /// The coded halves of the rows that came, as they read, into `past`.
    fn read(&self, rows: &DeviceRows) -> Result<()> {
        let none = || Error::Invalid { reasons: vec![format!("layer {} has no coded cache", rows.layer)] };
        let cache = self.layers.get(rows.layer).and_then(Option::as_ref).ok_or_else(none)?;
        let (machine, Geometry { kv_heads, d, .. }) = (&self.machine, self.geometry);
        let bytes = 4 * rows.tokens * kv_heads * d;
        let back = [machine.scratch("loaded keys", bytes)?, machine.scratch("loaded values", bytes)?];
        cache.store(rows)?;
        cache.load(rows, [rows.start, rows.tokens], [back[0].span(), back[1].span()])?;
        for ((back, past), _) in back.iter().zip(&self.past).zip(self.halves).filter(|(_, coded)| *coded) {
            let (from, at) = (back.span().part(0, bytes as u64)?, 4 * rows.start * kv_heads * d);
            match &self.wrong {
                None => past.copy_from(&machine.stream, at, from)?,
                Some(table) => {
                    let to = past.span().part(at as u64, bytes as u64)?;
                    machine.reorder([from, table.span(), to], rows.tokens * kv_heads, d)?;
                }
            }
        }
        Ok(())
    }
}

impl Attend for Loaded {
    fn attend(&mut self, rows: &DeviceRows, out: Span) -> Result<()> {
        let width = self.geometry.kv_heads * self.geometry.d;
        for (past, raw) in self.past.iter().zip([rows.k, rows.v]) {
            past.copy_from(&self.machine.stream, 4 * rows.start * width, rows.own(raw, width)?)?;
        }
        if self.own == Own::Coded {
            self.read(rows)?;
        }
        let [k, v] = &self.past;
        self.exact.over([rows.q, k.span(), v.span(), rows.own_positions()?, out], rows.tokens)?;
        if self.own == Own::Raw {
            self.read(rows)?;
        }
        if rows.seen() == self.tokens {
            self.compared.rows(rows.layer, [[rows.k.span(), k.span()], [rows.v.span(), v.span()]])?;
            self.places.check(&self.machine)?;
        }
        Ok(())
    }

    fn tally(&mut self) -> Result<Tally> {
        let mut tally = Tally::default();
        self.compared.finish(&mut tally)?;
        Ok(tally)
    }
}
