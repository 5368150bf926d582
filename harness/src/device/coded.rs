//! The measured read path without the host: rows go from the projection into codes, and every query reads codes.

use std::rc::Rc;

use kernels_gen::layout::Operand;
use kernels_gen::registry::CodecInfo;
use runtime::{
    Codec, Decode, DecodePlan, DecodeSpec, Elem, Memory, PagedCache, Rows, Span, Store, StorePlan, StoreSpec,
};

use super::jobs::Jobs;
use super::{Attend, DeviceRows, Machine};
use crate::attention::{Distortion, Geometry, Misread, PAGE_TOKENS, Pages, Tally};
use crate::error::{Error, Result};

/// Queries of one launch.
const BATCH: usize = 1024;

/// The kernels of a codec in one geometry.
pub struct Plans {
    geometry: Geometry,
    store: StorePlan,
    decode: DecodePlan,
}

impl Plans {
    fn of(machine: &Machine, codec: Codec, geometry: &Geometry) -> Result<Rc<Plans>> {
        let known = machine.plans.borrow().get(codec.info().name).cloned();
        if let Some(plans) = known.filter(|plans| plans.geometry == *geometry) {
            return Ok(plans);
        }
        let Geometry { heads, kv_heads, d: head_dim, .. } = *geometry;
        let (page_tokens, elem, group) = (PAGE_TOKENS, Elem::F32, heads / kv_heads);
        let store = StorePlan::prepare(&machine.device, &StoreSpec { codec, head_dim, page_tokens, elem })?;
        let spec = DecodeSpec { codec, head_dim, group, page_tokens, elem, splits: 0 };
        let decode = DecodePlan::prepare(&machine.device, &spec)?;
        let plans = Rc::new(Plans { geometry: *geometry, store, decode });
        machine.plans.borrow_mut().insert(codec.info().name, plans.clone());
        Ok(plans)
    }
}

pub struct Coded {
    machine: Rc<Machine>,
    codec: Codec,
    geometry: Geometry,
    /// of the whole passage
    tokens: usize,
    pages: Pages,
    plans: Rc<Plans>,
    caches: Vec<Memory>,
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
    pub fn new(machine: Rc<Machine>, info: &'static CodecInfo, geometry: Geometry, tokens: usize) -> Result<Coded> {
        let (pages, codec) = (Pages::new(tokens, PAGE_TOKENS), Codec::open(info.name)?);
        let bytes = codec.cache_bytes(pages.count(), PAGE_TOKENS, geometry.kv_heads, geometry.d)? as usize;
        let device = &machine.device;
        let caches: Vec<Memory> =
            (0..geometry.layers).map(|_| Memory::zeroed(device, bytes)).collect::<runtime::Result<_>>()?;
        Ok(Coded {
            plans: Plans::of(&machine, codec, &geometry)?,
            slots: Memory::from_slice(device, &pages.slots(0..tokens))?,
            table: Memory::from_slice(device, &pages.table.repeat(BATCH))?,
            status: Memory::zeroed(device, runtime::status::BYTES as usize)?,
            tally: Tally { allocated: (caches.len() * bytes) as u64, ..Tally::default() },
            machine,
            codec,
            geometry,
            tokens,
            pages,
            caches,
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

    fn cache(&self, layer: usize) -> PagedCache<'_> {
        let Geometry { kv_heads, d: head_dim, .. } = self.geometry;
        let base = self.caches[layer].span();
        PagedCache { base, pages: self.pages.count(), page_tokens: PAGE_TOKENS, kv_heads, head_dim }
    }

    fn store(&self, rows: &DeviceRows) -> Result<()> {
        let Geometry { kv_heads, d, .. } = self.geometry;
        let width = kv_heads * d;
        let strided = |base| Rows { base, token_stride: width as i64, head_stride: d as i64 };
        let call = Store {
            tokens: rows.tokens,
            k: strided(rows.own(rows.k, width)?),
            v: strided(rows.own(rows.v, width)?),
            slots: self.slots.span().part(8 * rows.start as u64, 8 * rows.tokens as u64)?,
            cache: self.cache(rows.layer),
            status: self.status.span(),
        };
        Ok(self.plans.store.launch(&self.machine.stream, &call)?)
    }

    fn decode(&self, rows: &DeviceRows, q: Span, out: Span) -> Result<()> {
        let Geometry { heads, d, scale, .. } = self.geometry;
        let plan = &self.plans.decode;
        let need = plan.workspace_bytes(BATCH.min(rows.tokens), heads, self.pages.count())? as usize;
        let workspace = self.machine.scratch("decode", need)?;
        for first in (0..rows.tokens).step_by(BATCH) {
            let batch = BATCH.min(rows.tokens - first);
            let (from, bytes) = ((4 * first * heads * d) as u64, (4 * batch * heads * d) as u64);
            let call = Decode {
                batch,
                q: q.part(from, bytes)?,
                cache: self.cache(rows.layer),
                table: self.table.span(),
                table_stride: self.pages.count(),
                lens: rows.lens()?.part(4 * first as u64, 4 * batch as u64)?,
                out: out.part(from, bytes)?,
                lse: None,
                scale,
                workspace: workspace.span(),
                status: self.status.span(),
            };
            plan.launch(&self.machine.stream, &call)?;
        }
        Ok(())
    }

    /// Compares all rows of a layer with what lies in its cache, aside.
    fn compare(&mut self, rows: &DeviceRows) -> Result<()> {
        let Geometry { kv_heads, d, .. } = self.geometry;
        let (stream, memory) = (&self.machine.stream, &self.caches[rows.layer]);
        let bytes: Vec<u8> = memory.download(stream, 0, memory.bytes())?;
        let count = self.tokens * kv_heads * d;
        let (k, v): (Vec<f32>, Vec<f32>) = (rows.k.download(stream, 0, count)?, rows.v.download(stream, 0, count)?);
        let (codec, pages, misread) = (self.codec.info(), self.pages.clone(), self.misread.clone());
        self.jobs.start(&mut self.tally, rows.layer, move || {
            Distortion::of_pairs(k.len() / d, |index| {
                let (token, head) = (index / kv_heads, index % kv_heads);
                [(Operand::K, &k), (Operand::V, &v)].map(|(operand, x)| {
                    let row = pages.row(codec, &bytes, (kv_heads, d), (token, head), operand);
                    Distortion::of_row(&x[index * d..][..d], &misread.read(codec.half(operand).decode_row(&row, d)))
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
        let reason = format!("a kernel reported a bad slot, page or length (flags {:?}) at index {}", &status[..3], status[3]);
        Err(Error::Invalid { reasons: vec![reason] })
    }
}

impl Attend for Coded {
    fn attend(&mut self, rows: &DeviceRows, out: Span) -> Result<()> {
        let Geometry { heads, kv_heads, d, .. } = self.geometry;
        self.store(rows)?;
        let vector_bytes = (self.codec.info().stored_bits_per_element(d) / 8.0 * d as f64) as u64;
        self.tally.count_rows([rows.start, rows.tokens], vector_bytes, kv_heads, d);
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
