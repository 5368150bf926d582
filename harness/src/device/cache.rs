//! The coded cache of one layer: rows go in from where the projection left them, and come out again where a measurement
//! or an exact attention wants them.

use std::rc::Rc;

use runtime::{Back, Backs, Calibration, Codec, Layer, Load, Mapped, Memory, PagedCache, Rows, Span, Store};

use super::plans::{self, Decoding, Plans, Scheme};
use super::{DeviceRows, Machine};
use crate::attention::{Geometry, PAGE_TOKENS, Pages};
use crate::error::{Error, Result};

/// Where the tokens of a passage lie, in all layers alike.
pub struct Places {
    pub pages: Pages,
    /// i64 [token]
    pub slots: Memory,
    pub status: Memory,
}

impl Places {
    pub fn new(machine: &Machine, tokens: usize) -> Result<Rc<Places>> {
        let (pages, device) = (Pages::new(tokens, PAGE_TOKENS), &machine.device);
        let slots = Memory::from_slice(device, &pages.slots(0..tokens))?;
        Ok(Rc::new(Places { pages, slots, status: Memory::zeroed(device, runtime::status::BYTES as usize)? }))
    }

    /// Waits, then reads the status that the kernels raised.
    pub fn check(&self, machine: &Machine) -> Result<()> {
        let status: Vec<i32> = self.status.download(&machine.stream, 0, 4)?;
        if status.iter().take(3).all(|flag| *flag == 0) {
            return Ok(());
        }
        let reason = format!("a kernel reported a bad slot, page or length (flags {:?}) at index {}", &status[..3], status[3]);
        Err(Error::Invalid { reasons: vec![reason] })
    }
}

pub struct Cache {
    machine: Rc<Machine>,
    geometry: Geometry,
    layer: usize,
    calibration: Option<Rc<Calibration>>,
    backs: Option<Rc<Backs>>,
    pub codec: Codec,
    pub plans: Rc<Plans>,
    pub memory: Rc<Memory>,
    pub places: Rc<Places>,
}

impl Cache {
    /// Of a layer that is coded so; in `memory` if that is given, else in its own. `decode`: queries read its codes.
    pub fn new(machine: &Rc<Machine>, scheme: Scheme, (geometry, layer): (Geometry, usize), places: &Rc<Places>, memory: Option<&Rc<Memory>>, decode: bool) -> Result<Cache> {
        let codec = scheme.codec(machine, layer)?;
        let bytes = bytes(codec, &geometry, places)?;
        Ok(Cache {
            machine: machine.clone(),
            geometry,
            layer,
            calibration: scheme.calibration(machine)?,
            backs: plans::backs(machine, scheme)?,
            codec,
            plans: Plans::of(machine, codec, &geometry, decode)?,
            memory: memory.map_or_else(|| Memory::zeroed(&machine.device, bytes).map(Rc::new), |m| Ok(m.clone()))?,
            places: places.clone(),
        })
    }

    /// Bytes that one of the layers takes at most.
    pub fn most(machine: &Machine, scheme: Scheme, geometry: &Geometry, layers: &[usize], places: &Places) -> Result<usize> {
        let each = layers.iter().map(|layer| bytes(scheme.codec(machine, *layer)?, geometry, places));
        Ok(each.collect::<Result<Vec<_>>>()?.into_iter().max().unwrap_or(0))
    }

    /// The maps of a calibrated layer.
    pub fn maps(&self) -> Result<Option<Layer<'_>>> {
        Ok(self.calibration.as_ref().map(|calibration| calibration.layer(self.layer)).transpose()?)
    }

    pub fn paged(&self) -> PagedCache<'_> {
        self.paged_in(self.memory.span())
    }

    fn paged_in<'a>(&self, base: Span<'a>) -> PagedCache<'a> {
        let Geometry { kv_heads, d: head_dim, .. } = self.geometry;
        PagedCache { base, pages: self.places.pages.count(), page_tokens: PAGE_TOKENS, kv_heads, head_dim }
    }

    /// Codes the rows that came.
    pub fn store(&self, rows: &DeviceRows) -> Result<()> {
        let (call, plan, stream) = (self.call(rows, self.memory.span())?, &self.plans.store, &self.machine.stream);
        match self.mapped(rows)? {
            Some(mapped) => Ok(plan.launch_calibrated(stream, &call, &mapped)?),
            None => Ok(plan.launch(stream, &call)?),
        }
    }

    /// The same into another memory of that size, by the kernel that counts.
    pub fn store_counted(&self, rows: &DeviceRows, memory: Span, counter: Span) -> Result<()> {
        let plan = &self.decoding()?.counted_store;
        Ok(plan.launch_counted(&self.machine.stream, &self.call(rows, memory)?, self.mapped(rows)?.as_ref(), counter)?)
    }

    /// What attends to the codes.
    pub fn decoding(&self) -> Result<&Decoding> {
        let missing = || Error::Invalid { reasons: vec![format!("{} was prepared without decode", self.codec.name())] };
        self.plans.decode.as_ref().ok_or_else(missing)
    }

    fn mapped<'a>(&'a self, rows: &DeviceRows<'a>) -> Result<Option<Mapped<'a>>> {
        let positions = rows.own_positions()?;
        Ok(self.maps()?.map(|layer| Mapped { layer, positions }))
    }

    fn call<'a>(&'a self, rows: &DeviceRows<'a>, memory: Span<'a>) -> Result<Store<'a>> {
        let Geometry { kv_heads, d, .. } = self.geometry;
        let width = kv_heads * d;
        let strided = |base| Rows { base, token_stride: width as i64, head_stride: d as i64 };
        Ok(Store {
            tokens: rows.tokens,
            k: strided(rows.own(rows.k, width)?),
            v: strided(rows.own(rows.v, width)?),
            slots: self.places.slots.span().part(8 * rows.start as u64, 8 * rows.tokens as u64)?,
            cache: self.paged_in(memory),
            status: self.places.status.span(),
        })
    }

    /// Keys and values [token, kv head, d] of `tokens` tokens from `start` on, as the cache has them.
    pub fn load(&self, rows: &DeviceRows, [start, tokens]: [usize; 2], [k, v]: [Span; 2]) -> Result<()> {
        let (stream, plan) = (&self.machine.stream, &self.plans.load);
        let slots = self.places.slots.span().part(8 * start as u64, 8 * tokens as u64)?;
        let call = Load { tokens, slots, cache: self.paged(), k, v, status: self.places.status.span() };
        let Some(backs) = &self.backs else { return Ok(plan.launch(stream, &call)?) };
        let workspace = self.machine.scratch("load", plan.workspace_bytes(tokens, self.geometry.kv_heads)? as usize)?;
        let positions = rows.positions.span().part(4 * start as u64, 4 * tokens as u64)?;
        Ok(plan.launch_calibrated(stream, &call, &Back { backs, layer: self.layer, positions, workspace: workspace.span() })?)
    }
}

fn bytes(codec: Codec, geometry: &Geometry, places: &Places) -> Result<usize> {
    Ok(codec.cache_bytes(places.pages.count(), PAGE_TOKENS, geometry.kv_heads, geometry.d)? as usize)
}
