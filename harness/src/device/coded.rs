//! The measured read path without the host: rows go from the projection into codes, and every query reads codes.

use std::rc::Rc;

use kernels_gen::layout::Operand;
use kernels_gen::registry::CodecInfo;
use rayon::prelude::*;
use runtime::{
    Calibration, Codec, Decode, DecodePlan, DecodeSpec, Device, Elem, Layer, Mapped, Memory, PagedCache, Rows, Span,
    Store, StorePlan, StoreSpec,
};

use super::jobs::Jobs;
use super::{Attend, DeviceRows, Machine};
use crate::attention::{Distortion, Fitted, Geometry, Misread, PAGE_TOKENS, Pages, Tally};
use crate::error::{Error, Result};

/// Queries of one launch.
const BATCH: usize = 1024;

/// What codes the rows: a codec of the registry, or one that was fitted to the model's layers.
#[derive(Clone, Copy)]
pub enum Scheme {
    Codec(&'static CodecInfo),
    Fitted(&'static Fitted),
}

impl Scheme {
    /// The codec of a layer, with the bands of its own.
    fn codec(self, machine: &Machine, layer: usize) -> Result<Codec> {
        Ok(match self {
            Scheme::Codec(info) => Codec::open(info.name)?,
            Scheme::Fitted(fitted) => calibration(machine, fitted)?.layer(layer)?.codec(),
        })
    }
}

/// The kernels of a codec in one geometry.
pub struct Plans {
    geometry: Geometry,
    store: StorePlan,
    decode: DecodePlan,
}

impl Plans {
    fn make(device: &Device, codec: Codec, geometry: &Geometry) -> Result<Plans> {
        let Geometry { heads, kv_heads, d: head_dim, .. } = *geometry;
        let (page_tokens, elem, group) = (PAGE_TOKENS, Elem::F32, heads / kv_heads);
        let store = StorePlan::prepare(device, &StoreSpec { codec, head_dim, page_tokens, elem })?;
        let spec = DecodeSpec { codec, head_dim, group, page_tokens, elem, splits: 0 };
        let decode = DecodePlan::prepare(device, &spec)?;
        Ok(Plans { geometry: *geometry, store, decode })
    }

    fn known(machine: &Machine, codec: Codec, geometry: &Geometry) -> Option<Rc<Plans>> {
        let plans = machine.plans.borrow().get(&key(codec)).cloned();
        plans.filter(|plans| plans.geometry == *geometry)
    }

    fn of(machine: &Machine, codec: Codec, geometry: &Geometry) -> Result<Rc<Plans>> {
        if let Some(plans) = Plans::known(machine, codec, geometry) {
            return Ok(plans);
        }
        let plans = Rc::new(Plans::make(&machine.device, codec, geometry)?);
        machine.plans.borrow_mut().insert(key(codec), plans.clone());
        Ok(plans)
    }
}

/// The name asked for, and that of the bands.
fn key(codec: Codec) -> [&'static str; 2] {
    [codec.name(), codec.info().name]
}

/// Compiles what these layers need, several kernels at a time: bands of each layer's own are kernels of their own.
pub fn prepare(machine: &Machine, wanted: &[(Scheme, Vec<usize>)], geometry: &Geometry) -> Result<()> {
    let mut missing: Vec<Codec> = Vec::new();
    for (scheme, layers) in wanted {
        for layer in layers {
            let codec = scheme.codec(machine, *layer)?;
            if Plans::known(machine, codec, geometry).is_none() && missing.iter().all(|m| key(*m) != key(codec)) {
                missing.push(codec);
            }
        }
    }
    let device = &machine.device;
    let make = |codec: &Codec| Ok((key(*codec), Plans::make(device, *codec, geometry)?));
    let made: Vec<_> = missing.par_iter().map(make).collect::<Result<_>>()?;
    machine.plans.borrow_mut().extend(made.into_iter().map(|(key, plans)| (key, Rc::new(plans))));
    Ok(())
}

/// The cache of one layer.
struct LayerCache {
    codec: Codec,
    plans: Rc<Plans>,
    memory: Memory,
}

pub struct Coded {
    machine: Rc<Machine>,
    scheme: Scheme,
    calibration: Option<Rc<Calibration>>,
    geometry: Geometry,
    /// of the whole passage
    tokens: usize,
    pages: Pages,
    /// None for layers that are not coded so
    layers: Vec<Option<LayerCache>>,
    /// i64 [token]
    slots: Memory,
    /// i32 [BATCH, pages]: the same pages for every query
    table: Memory,
    status: Memory,
    misread: Misread,
    /// its tables on the device
    wrong: Option<[Memory; 2]>,
    jobs: Jobs,
    tally: Tally,
}

impl Coded {
    /// For the layers of that list.
    pub fn new(
        machine: Rc<Machine>,
        scheme: Scheme,
        geometry: Geometry,
        layers: &[usize],
        tokens: usize,
    ) -> Result<Coded> {
        let (pages, device) = (Pages::new(tokens, PAGE_TOKENS), machine.device.clone());
        let calibration = match scheme {
            Scheme::Codec(_) => None,
            Scheme::Fitted(fitted) => Some(calibration(&machine, fitted)?),
        };
        let cache = |layer: usize| -> Result<LayerCache> {
            let codec = scheme.codec(&machine, layer)?;
            let bytes = codec.cache_bytes(pages.count(), PAGE_TOKENS, geometry.kv_heads, geometry.d)? as usize;
            let plans = Plans::of(&machine, codec, &geometry)?;
            Ok(LayerCache { codec, plans, memory: Memory::zeroed(&device, bytes)? })
        };
        let own = (0..geometry.layers).map(|layer| layers.contains(&layer).then(|| cache(layer)).transpose());
        let layers = own.collect::<Result<Vec<_>>>()?;
        let allocated = layers.iter().flatten().map(|own| own.memory.bytes() as u64).sum();
        Ok(Coded {
            slots: Memory::from_slice(&device, &pages.slots(0..tokens))?,
            table: Memory::from_slice(&device, &pages.table.repeat(BATCH))?,
            status: Memory::zeroed(&device, runtime::status::BYTES as usize)?,
            tally: Tally { allocated, ..Tally::default() },
            machine,
            scheme,
            calibration,
            geometry,
            tokens,
            pages,
            layers,
            misread: Misread::default(),
            wrong: None,
            jobs: Jobs::default(),
        })
    }

    /// A codec that is broken on purpose.
    pub fn misreading(mut self) -> Result<Coded> {
        self.misread = Misread::of(self.geometry.d);
        if let Some([read, aim]) = self.misread.tables() {
            let device = &self.machine.device;
            self.wrong = Some([Memory::from_slice(device, &read)?, Memory::from_slice(device, &aim)?]);
        }
        Ok(self)
    }

    fn layer(&self, layer: usize) -> Result<&LayerCache> {
        let none = || Error::Invalid { reasons: vec![format!("layer {layer} has no coded cache")] };
        self.layers.get(layer).and_then(Option::as_ref).ok_or_else(none)
    }

    /// The maps of a calibrated layer.
    fn maps(&self, layer: usize) -> Result<Option<Layer<'_>>> {
        Ok(self.calibration.as_ref().map(|calibration| calibration.layer(layer)).transpose()?)
    }

    fn cache<'a>(&self, own: &'a LayerCache) -> PagedCache<'a> {
        let Geometry { kv_heads, d: head_dim, .. } = self.geometry;
        PagedCache { base: own.memory.span(), pages: self.pages.count(), page_tokens: PAGE_TOKENS, kv_heads, head_dim }
    }

    fn store(&self, rows: &DeviceRows) -> Result<()> {
        let (own, stream) = (self.layer(rows.layer)?, &self.machine.stream);
        let Geometry { kv_heads, d, .. } = self.geometry;
        let width = kv_heads * d;
        let strided = |base| Rows { base, token_stride: width as i64, head_stride: d as i64 };
        let call = Store {
            tokens: rows.tokens,
            k: strided(rows.own(rows.k, width)?),
            v: strided(rows.own(rows.v, width)?),
            slots: self.slots.span().part(8 * rows.start as u64, 8 * rows.tokens as u64)?,
            cache: self.cache(own),
            status: self.status.span(),
        };
        let Some(layer) = self.maps(rows.layer)? else { return Ok(own.plans.store.launch(stream, &call)?) };
        let mapped = Mapped { layer, positions: rows.own_positions()? };
        Ok(own.plans.store.launch_calibrated(stream, &call, &mapped)?)
    }

    fn decode(&self, rows: &DeviceRows, q: Span, out: Span) -> Result<()> {
        let Geometry { heads, d, scale, .. } = self.geometry;
        let (own, stream) = (self.layer(rows.layer)?, &self.machine.stream);
        let plan = &own.plans.decode;
        let need = plan.workspace_bytes(BATCH.min(rows.tokens), heads, self.pages.count())? as usize;
        let workspace = self.machine.scratch("decode", need)?;
        for first in (0..rows.tokens).step_by(BATCH) {
            let batch = BATCH.min(rows.tokens - first);
            let (from, bytes) = ((4 * first * heads * d) as u64, (4 * batch * heads * d) as u64);
            let call = Decode {
                batch,
                q: q.part(from, bytes)?,
                cache: self.cache(own),
                table: self.table.span(),
                table_stride: self.pages.count(),
                lens: rows.lens()?.part(4 * first as u64, 4 * batch as u64)?,
                out: out.part(from, bytes)?,
                lse: None,
                scale,
                workspace: workspace.span(),
                status: self.status.span(),
            };
            match self.maps(rows.layer)? {
                Some(layer) => plan.launch_calibrated(stream, &call, &layer)?,
                None => plan.launch(stream, &call)?,
            }
        }
        Ok(())
    }

    /// Compares all rows of a layer with what lies in its cache, aside.
    fn compare(&mut self, rows: &DeviceRows) -> Result<()> {
        let Geometry { kv_heads, d, .. } = self.geometry;
        let (stream, own, layer) = (&self.machine.stream, self.layer(rows.layer)?, rows.layer);
        let bytes: Vec<u8> = own.memory.download(stream, 0, own.memory.bytes())?;
        let count = self.tokens * kv_heads * d;
        let (k, v): (Vec<f32>, Vec<f32>) = (rows.k.download(stream, 0, count)?, rows.v.download(stream, 0, count)?);
        let (codec, scheme) = (own.codec.info(), self.scheme);
        let (pages, misread) = (self.pages.clone(), self.misread.clone());
        self.jobs.start(&mut self.tally, layer, move || {
            Distortion::of_pairs(k.len() / d, |index| {
                let (token, head) = (index / kv_heads, index % kv_heads);
                [(Operand::K, &k), (Operand::V, &v)].map(|(operand, x)| {
                    let row = pages.row(codec, &bytes, (kv_heads, d), (token, head), operand);
                    let read = match scheme {
                        Scheme::Codec(_) => misread.read(codec.half(operand).decode_row(&row, d)),
                        Scheme::Fitted(fitted) => fitted.layer(layer).decode_row(operand, &row, head, token),
                    };
                    Distortion::of_row(&x[index * d..][..d], &read)
                })
            })
        })
    }

    /// Waits, then reads the status that the kernels raised.
    fn check(&self) -> Result<()> {
        let status: Vec<i32> = self.status.download(&self.machine.stream, 0, 4)?;
        if status.iter().take(3).all(|flag| *flag == 0) {
            return Ok(());
        }
        let reason =
            format!("a kernel reported a bad slot, page or length (flags {:?}) at index {}", &status[..3], status[3]);
        Err(Error::Invalid { reasons: vec![reason] })
    }
}

impl Attend for Coded {
    fn attend(&mut self, rows: &DeviceRows, out: Span) -> Result<()> {
        let Geometry { heads, kv_heads, d, .. } = self.geometry;
        self.store(rows)?;
        let token_bytes = self.layer(rows.layer)?.codec.info().token_bytes(d) as u64;
        self.tally.count_rows([rows.start, rows.tokens], token_bytes, kv_heads, d);
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
            self.check()?;
        }
        Ok(())
    }

    fn tally(&mut self) -> Result<Tally> {
        self.jobs.finish(&mut self.tally)?;
        Ok(self.tally.clone())
    }
}

/// The maps of all layers on the device, made once.
fn calibration(machine: &Machine, fitted: &'static Fitted) -> Result<Rc<Calibration>> {
    let key: *const Fitted = fitted;
    if let Some(known) = machine.calibrations.borrow().get(&key) {
        return Ok(known.clone());
    }
    let codec = Codec::open(fitted.preset.name)?;
    let made = Rc::new(Calibration::upload(&machine.device, codec, fitted.all_parts(), &fitted.turns)?);
    machine.calibrations.borrow_mut().insert(key, made.clone());
    Ok(made)
}
