//! The fused kernels through the runtime: rows go to the device as f32, the packed cache stays there.

use std::borrow::Cow;

use kernels_gen::registry::CodecInfo;
use runtime::{
    Codec, Decode, DecodePlan, DecodeSpec, Device, Elem, Memory, PagedCache, Rows, Store, StorePlan, StoreSpec, Stream,
};

use super::{Backend, CodedCache};
use crate::attention::{Geometry, Pages};
use crate::error::{Error, Result};

/// Queries of one launch.
const BATCH: usize = 512;

/// Fails with the reason when kernels cannot run here.
pub fn open() -> Result<Box<dyn Backend>> {
    let device = Device::open(0)?;
    runtime::nvrtc::version()?;
    Ok(Box::new(Gpu { device }))
}

struct Gpu {
    device: Device,
}

impl Backend for Gpu {
    fn name(&self) -> String {
        format!("gpu ({}, {})", self.device.name(), self.device.arch())
    }

    fn cache(&self, codec: &'static CodecInfo, geometry: &Geometry, pages: &Pages) -> Result<Box<dyn CodedCache>> {
        let (device, codec) = (&self.device, Codec::open(codec.name)?);
        let (head_dim, page_tokens, elem) = (geometry.d, pages.page_tokens, Elem::F32);
        let store = StorePlan::prepare(device, &StoreSpec { codec, head_dim, page_tokens, elem })?;
        let group = geometry.heads / geometry.kv_heads;
        let decode = DecodePlan::prepare(device, &DecodeSpec { codec, head_dim, group, page_tokens, elem, splits: 0 })?;
        let bytes = codec.cache_bytes(pages.count(), page_tokens, geometry.kv_heads, head_dim)? as usize;
        let layers = (0..geometry.layers).map(|_| Memory::zeroed(device, bytes)).collect::<runtime::Result<_>>()?;
        let status = Memory::zeroed(device, runtime::status::BYTES as usize)?;
        Ok(Box::new(GpuCache {
            device: device.clone(),
            stream: device.stream()?,
            store,
            decode,
            layers,
            status,
            geometry: *geometry,
            pages: pages.count(),
        }))
    }
}

struct GpuCache {
    device: Device,
    stream: Stream,
    store: StorePlan,
    decode: DecodePlan,
    layers: Vec<Memory>,
    status: Memory,
    geometry: Geometry,
    pages: usize,
}

impl CodedCache for GpuCache {
    fn store(&mut self, layer: usize, k: &[f32], v: &[f32], pages: &Pages) -> Result<()> {
        let Geometry { kv_heads, d, .. } = self.geometry;
        let tokens = k.len() / (kv_heads * d);
        let (k, v) = (Memory::from_slice(&self.device, k)?, Memory::from_slice(&self.device, v)?);
        let slots = Memory::from_slice(&self.device, &pages.slots(tokens))?;
        let rows =
            |memory| Rows { base: Memory::span(memory), token_stride: (kv_heads * d) as i64, head_stride: d as i64 };
        let (k, v) = (rows(&k), rows(&v));
        let call =
            Store { tokens, k, v, slots: slots.span(), cache: self.cache(layer, pages), status: self.status.span() };
        self.store.launch(&self.stream, &call)?;
        self.check()
    }

    fn attend(&mut self, layer: usize, q: &[f32], lens: &[i32], pages: &Pages) -> Result<Vec<f32>> {
        let Geometry { heads, d, scale, .. } = self.geometry;
        let mut out = Vec::with_capacity(q.len());
        for (q, lens) in q.chunks(BATCH * heads * d).zip(lens.chunks(BATCH)) {
            let batch = lens.len();
            let table = pages.table.repeat(batch);
            let (q, table) = (Memory::from_slice(&self.device, q)?, Memory::from_slice(&self.device, &table)?);
            let lens = Memory::from_slice(&self.device, lens)?;
            let result = Memory::zeroed(&self.device, q.bytes())?;
            let space = self.decode.workspace_bytes(batch, heads, pages.count())?;
            let workspace = Memory::zeroed(&self.device, space as usize)?;
            let call = Decode {
                batch,
                q: q.span(),
                cache: self.cache(layer, pages),
                table: table.span(),
                table_stride: pages.count(),
                lens: lens.span(),
                out: result.span(),
                lse: None,
                scale,
                workspace: workspace.span(),
                status: self.status.span(),
            };
            self.decode.launch(&self.stream, &call)?;
            out.extend(result.download::<f32>(&self.stream, 0, batch * heads * d)?);
        }
        self.check()?;
        Ok(out)
    }

    fn bytes(&self, layer: usize) -> Result<Cow<'_, [u8]>> {
        let memory = &self.layers[layer];
        Ok(Cow::Owned(memory.download(&self.stream, 0, memory.bytes())?))
    }

    fn allocated(&self) -> u64 {
        self.layers.iter().map(|layer| layer.bytes() as u64).sum()
    }
}

impl GpuCache {
    fn cache(&self, layer: usize, pages: &Pages) -> PagedCache<'_> {
        let Geometry { kv_heads, d, .. } = self.geometry;
        PagedCache {
            base: self.layers[layer].span(),
            pages: self.pages,
            page_tokens: pages.page_tokens,
            kv_heads,
            head_dim: d,
        }
    }

    /// Waits, then reads the status that the kernels raised.
    fn check(&self) -> Result<()> {
        let status: Vec<i32> = self.status.download(&self.stream, 0, 4)?;
        if status[0] == 0 {
            return Ok(());
        }
        let reasons = vec![format!(
            "a kernel reported status {:#x} at index {}: a slot, page or length was out of range",
            status[0], status[1]
        )];
        Err(Error::Invalid { reasons })
    }
}
