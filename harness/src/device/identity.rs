//! The identity codec on a device: f32 rows through slots and page table, then exact attention. It must change nothing.

use std::rc::Rc;

use runtime::{Memory, Span};

use super::compared::Compared;
use super::exact::Exact;
use super::{Attend, DeviceRows, Machine};
use crate::attention::{Geometry, PAGE_TOKENS, Pages, Tally};
use crate::error::Result;

pub struct Identity {
    machine: Rc<Machine>,
    exact: Exact,
    geometry: Geometry,
    /// i64 [token]
    slots: Memory,
    /// [layer][K | V][slot, kv head, d]
    caches: Vec<[Memory; 2]>,
    /// of the whole passage
    tokens: usize,
    compared: Compared,
    tally: Tally,
}

impl Identity {
    pub fn new(machine: Rc<Machine>, geometry: Geometry, tokens: usize) -> Result<Identity> {
        let pages = Pages::new(tokens, PAGE_TOKENS);
        let bytes = 4 * pages.count() * pages.page_tokens * geometry.kv_heads * geometry.d;
        let cache = || -> Result<Memory> {
            let memory = Memory::zeroed(&machine.device, bytes)?;
            // what nobody wrote is not a number
            memory.fill(&machine.stream, 0xff)?;
            Ok(memory)
        };
        let caches = (0..geometry.layers).map(|_| Ok([cache()?, cache()?])).collect::<Result<_>>()?;
        let slots = Memory::from_slice(&machine.device, &pages.slots(0..tokens))?;
        let tally = Tally { allocated: (geometry.layers * 2 * bytes) as u64, ..Tally::default() };
        let exact = Exact::new(machine.clone(), geometry);
        let compared = Compared::new(machine.clone(), geometry, tokens)?;
        Ok(Identity { machine, exact, geometry, slots, caches, tokens, compared, tally })
    }
}

impl Attend for Identity {
    fn attend(&mut self, rows: &DeviceRows, out: Span) -> Result<()> {
        let (machine, d) = (&self.machine, self.geometry.d);
        let width = self.geometry.kv_heads * d;
        let own_slots = self.slots.span().part(8 * rows.start as u64, 8 * rows.tokens as u64)?;
        let bytes = 4 * rows.seen() * width;
        let read = [machine.scratch("read keys", bytes)?, machine.scratch("read values", bytes)?];
        for ((cache, read), input) in self.caches[rows.layer].iter().zip(&read).zip([rows.k, rows.v]) {
            machine.scatter([rows.own(input, width)?, own_slots, cache.span()], rows.tokens, width)?;
            machine.gather([cache.span(), self.slots.span(), read.span()], rows.seen(), width)?;
        }
        let [k, v] = &read;
        self.exact.over([rows.q, k.span(), v.span(), rows.own_positions()?, out], rows.tokens)?;
        self.tally.count_rows([rows.start, rows.tokens, 1], 8 * d as u64, self.geometry.kv_heads, d);
        if rows.seen() == self.tokens {
            self.compared.rows(rows.layer, [[rows.k.span(), k.span()], [rows.v.span(), v.span()]])?;
        }
        Ok(())
    }

    fn tally(&mut self) -> Result<Tally> {
        self.compared.finish(&mut self.tally)?;
        Ok(self.tally.clone())
    }
}
