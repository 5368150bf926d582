//! The measured read path without the host: rows go from the projection into codes, and every query reads codes.

use std::rc::Rc;

use kernels_gen::layout::TILE;
use runtime::{Decode, DecodePlan, Memory, Span};

use super::cache::{Cache, Places};
use super::compared::Compared;
use super::plans::{Decoding, Scheme};
use super::twins::Twins;
use super::{Attend, DeviceRows, Machine};
use crate::attention::{Geometry, Misread, Tally};
use crate::error::{Error, Result};

/// Queries of one launch.
const BATCH: usize = 1024;

pub struct Coded {
    machine: Rc<Machine>,
    geometry: Geometry,
    /// of the whole passage
    tokens: usize,
    places: Rc<Places>,
    /// None for layers that are not coded so
    layers: Vec<Option<Cache>>,
    /// i32 [BATCH, pages]: the same pages for every query
    table: Memory,
    /// of a control: the coordinate that comes to each place of what is read, and of a query
    wrong: Option<[Memory; 2]>,
    compared: Compared,
    twins: Twins,
    tally: Tally,
}

impl Coded {
    /// For the layers of that list.
    pub fn new(machine: Rc<Machine>, scheme: Scheme, geometry: Geometry, layers: &[usize], tokens: usize) -> Result<Coded> {
        let places = Places::new(&machine, tokens)?;
        let cache = |layer: usize| Cache::new(&machine, scheme, (geometry, layer), &places, None, true);
        let own = (0..geometry.layers).map(|layer| layers.contains(&layer).then(|| cache(layer)).transpose());
        let own = own.collect::<Result<Vec<_>>>()?;
        let allocated = own.iter().flatten().map(|own| own.memory.bytes() as u64).sum();
        let most = Cache::most(&machine, scheme, &geometry, layers, &places)?;
        Ok(Coded {
            table: Memory::from_slice(&machine.device, &places.pages.table.repeat(BATCH))?,
            tally: Tally { allocated, ..Tally::default() },
            compared: Compared::new(machine.clone(), geometry, tokens)?,
            twins: Twins::new(machine.clone(), &geometry, tokens, most)?,
            machine,
            geometry,
            tokens,
            places,
            layers: own,
            wrong: None,
        })
    }

    /// A codec that is broken on purpose.
    pub fn misreading(mut self) -> Result<Coded> {
        if let Some([read, aim]) = Misread::of(self.geometry.d).tables() {
            let device = &self.machine.device;
            self.wrong = Some([Memory::from_slice(device, &read)?, Memory::from_slice(device, &aim)?]);
        }
        Ok(self)
    }

    fn layer(&self, layer: usize) -> Result<&Cache> {
        let none = || Error::Invalid { reasons: vec![format!("layer {layer} has no coded cache")] };
        self.layers.get(layer).and_then(Option::as_ref).ok_or_else(none)
    }

    /// Into the cache, and once more for proof.
    fn store(&self, rows: &DeviceRows) -> Result<()> {
        let own = self.layer(rows.layer)?;
        own.store(rows)?;
        let bytes = own.memory.bytes();
        let shadow = self.twins.shadow(bytes, rows.start == 0)?;
        own.store_counted(rows, shadow.span().part(0, bytes as u64)?, self.twins.of_stores()?)
    }

    /// Attention into `out`, and once more for proof.
    fn decode(&self, rows: &DeviceRows, q: Span, out: Span) -> Result<()> {
        let (own, stream, Geometry { heads, d, scale, .. }) = (self.layer(rows.layer)?, &self.machine.stream, self.geometry);
        let Decoding { plan, counted, .. } = own.decoding()?;
        let pages = self.places.pages.count();
        let space = |plan: &DecodePlan| plan.workspace_bytes(BATCH.min(rows.tokens), heads, pages);
        let workspace = self.machine.scratch("decode", space(plan)?.max(space(counted)?) as usize)?;
        let bytes = 4 * rows.tokens * heads * d;
        let again = self.machine.scratch("counted output", bytes)?;
        for first in (0..rows.tokens).step_by(BATCH) {
            let batch = BATCH.min(rows.tokens - first);
            let (from, bytes) = ((4 * first * heads * d) as u64, (4 * batch * heads * d) as u64);
            let call = Decode {
                batch,
                q: q.part(from, bytes)?,
                cache: own.paged(),
                table: self.table.span(),
                table_stride: pages,
                lens: rows.lens()?.part(4 * first as u64, 4 * batch as u64)?,
                out: out.part(from, bytes)?,
                lse: None,
                scale,
                workspace: workspace.span(),
                status: self.places.status.span(),
            };
            let maps = own.maps()?;
            match &maps {
                Some(layer) => plan.launch_calibrated(stream, &call, layer)?,
                None => plan.launch(stream, &call)?,
            }
            let call = Decode { out: again.span().part(from, bytes)?, ..call };
            counted.launch_counted(stream, &call, maps.as_ref(), self.twins.of_attention()?)?;
        }
        self.twins.compare_outputs(out, again.span(), bytes)
    }

    /// Compares all rows of a layer with what lies in its cache.
    fn compare(&mut self, rows: &DeviceRows) -> Result<()> {
        let (Geometry { kv_heads, d, .. }, machine) = (self.geometry, self.machine.clone());
        let (count, bytes) = (self.tokens * kv_heads, 4 * self.tokens * kv_heads * d);
        let [k, v] = [machine.scratch("loaded keys", bytes)?, machine.scratch("loaded values", bytes)?];
        let own = self.layer(rows.layer)?;
        own.load(rows, [0, self.tokens], [k.span(), v.span()])?;
        self.twins.compare_caches(rows.layer, &own.memory)?;
        let mut read = [k, v];
        if let Some([table, _]) = &self.wrong {
            let wrong = [machine.scratch("misread keys", bytes)?, machine.scratch("misread values", bytes)?];
            for (from, to) in read.iter().zip(&wrong) {
                machine.reorder([from.span(), table.span(), to.span()], count, d)?;
            }
            read = wrong;
        }
        self.compared.rows(rows.layer, [[rows.k.span(), read[0].span()], [rows.v.span(), read[1].span()]])
    }
}

impl Attend for Coded {
    fn attend(&mut self, rows: &DeviceRows, out: Span) -> Result<()> {
        let Geometry { heads, kv_heads, d, .. } = self.geometry;
        self.store(rows)?;
        let token_bytes = self.layer(rows.layer)?.codec.info().token_bytes(d) as u64;
        self.tally.count_rows([rows.start, rows.tokens, TILE], token_bytes, kv_heads, d);
        match &self.wrong {
            None => self.decode(rows, rows.q, out)?,
            Some([read, aim]) => {
                let bytes = 4 * rows.tokens * heads * d;
                let aside = self.machine.scratch("misread", bytes)?;
                let aside = aside.span().part(0, bytes as u64)?;
                self.machine.reorder([rows.q, aim.span(), aside], rows.tokens * heads, d)?;
                let right = self.machine.scratch("misread output", bytes)?;
                self.decode(rows, aside, right.span())?;
                self.machine.reorder([right.span(), read.span(), out], rows.tokens * heads, d)?;
            }
        }
        if rows.seen() == self.tokens {
            self.compare(rows)?;
            self.places.check(&self.machine)?;
        }
        Ok(())
    }

    fn tally(&mut self) -> Result<Tally> {
        self.compared.finish(&mut self.tally)?;
        self.twins.finish(&mut self.tally)?;
        Ok(self.tally.clone())
    }
}
