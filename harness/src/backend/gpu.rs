//! The fused kernels through the runtime: rows go to the device as f32, the packed cache stays there.

use std::borrow::Cow;
use std::rc::Rc;

use kernels_gen::registry::CodecInfo;
use runtime::{Calibration, Codec, Decode, DecodePlan, DecodeSpec, Device, Elem, Mapped, Memory, PagedCache, Rows, Store, StorePlan, StoreSpec, Stream};

use super::{Backend, CodedCache};
use crate::attention::{Fitted, Geometry, Pages};
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
        let version = |found: runtime::Result<(i32, i32)>| found.map_or("?".into(), |(a, b)| format!("{a}.{b}"));
        let (driver, nvrtc) = (version(runtime::cuda::driver_version()), version(runtime::nvrtc::version()));
        format!("gpu ({}, {}, driver CUDA {driver}, NVRTC {nvrtc})", self.device.name(), self.device.arch())
    }

    fn device(&self) -> Option<&Device> {
        Some(&self.device)
    }

    fn cache(&self, codec: &'static CodecInfo, geometry: &Geometry, pages: &Pages) -> Result<Box<dyn CodedCache>> {
        Ok(Box::new(self.cache_of(Codec::open(codec.name)?, None, geometry, pages)?))
    }

    fn calibrated(&self, (fitted, layer): (&'static Fitted, usize), geometry: &Geometry, pages: &Pages) -> Result<Box<dyn CodedCache>> {
        let codec = Codec::open(fitted.preset.name)?;
        let own = std::slice::from_ref(fitted.parts(layer));
        let calibration = Calibration::upload(&self.device, codec, own, &fitted.turns)?;
        Ok(Box::new(self.cache_of(calibration.layer(0)?.codec(), Some(calibration), geometry, pages)?))
    }
}

impl Gpu {
    fn cache_of(&self, codec: Codec, calibration: Option<Calibration>, geometry: &Geometry, pages: &Pages) -> Result<GpuCache> {
        let device = &self.device;
        let (head_dim, page_tokens, elem) = (geometry.d, pages.page_tokens, Elem::F32);
        let store = StorePlan::prepare(device, &StoreSpec { codec, head_dim, page_tokens, elem })?;
        let bytes = codec.cache_bytes(pages.count(), page_tokens, geometry.kv_heads, head_dim)? as usize;
        let layers = (0..geometry.layers).map(|_| Memory::zeroed(device, bytes)).collect::<runtime::Result<_>>()?;
        let status = Memory::zeroed(device, runtime::status::BYTES as usize)?;
        Ok(GpuCache { device: device.clone(), stream: device.stream()?, codec, calibration, store, decode: None, layers, status, geometry: *geometry, pages: pages.count() })
    }
}

struct GpuCache {
    device: Device,
    stream: Stream,
    codec: Codec,
    calibration: Option<Calibration>,
    store: StorePlan,
    /// made by the first attention: more head dims can be stored than attended to
    decode: Option<Rc<DecodePlan>>,
    layers: Vec<Memory>,
    status: Memory,
    geometry: Geometry,
    pages: usize,
}

impl CodedCache for GpuCache {
    fn store(&mut self, layer: usize, first: usize, k: &[f32], v: &[f32], pages: &Pages) -> Result<()> {
        let Geometry { kv_heads, d, .. } = self.geometry;
        let tokens = k.len() / (kv_heads * d);
        let (k, v) = (Memory::from_slice(&self.device, k)?, Memory::from_slice(&self.device, v)?);
        let slots = Memory::from_slice(&self.device, &pages.slots(first..first + tokens))?;
        let rows = |memory| Rows { base: Memory::span(memory), token_stride: (kv_heads * d) as i64, head_stride: d as i64 };
        let (k, v) = (rows(&k), rows(&v));
        let call = Store { tokens, k, v, slots: slots.span(), cache: self.cache(layer, pages), status: self.status.span() };
        let Some(calibration) = &self.calibration else {
            self.store.launch(&self.stream, &call)?;
            return self.check();
        };
        let positions: Vec<i32> = (first..first + tokens).map(|position| position as i32).collect();
        let positions = Memory::from_slice(&self.device, &positions)?;
        let mapped = Mapped { layer: calibration.layer(layer)?, positions: positions.span() };
        self.store.launch_calibrated(&self.stream, &call, &mapped)?;
        self.check()
    }

    fn attend(&mut self, layer: usize, q: &[f32], lens: &[i32], pages: &Pages) -> Result<Vec<f32>> {
        let Geometry { heads, d, scale, .. } = self.geometry;
        let plan = self.decode_plan(pages)?;
        let mut out = Vec::with_capacity(q.len());
        for (q, lens) in q.chunks(BATCH * heads * d).zip(lens.chunks(BATCH)) {
            let batch = lens.len();
            let table = pages.table.repeat(batch);
            let (q, table) = (Memory::from_slice(&self.device, q)?, Memory::from_slice(&self.device, &table)?);
            let lens = Memory::from_slice(&self.device, lens)?;
            let result = Memory::zeroed(&self.device, q.bytes())?;
            let space = plan.workspace_bytes(batch, heads, pages.count())?;
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
            match &self.calibration {
                Some(calibration) => plan.launch_calibrated(&self.stream, &call, &calibration.layer(layer)?)?,
                None => plan.launch(&self.stream, &call)?,
            }
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
    fn decode_plan(&mut self, pages: &Pages) -> Result<Rc<DecodePlan>> {
        if let Some(plan) = &self.decode {
            return Ok(plan.clone());
        }
        let Geometry { heads, kv_heads, d: head_dim, .. } = self.geometry;
        let (codec, group, page_tokens) = (self.codec, heads / kv_heads, pages.page_tokens);
        let spec = DecodeSpec { codec, head_dim, group, page_tokens, elem: Elem::F32, splits: 0 };
        let plan = Rc::new(DecodePlan::prepare(&self.device, &spec)?);
        self.decode = Some(plan.clone());
        Ok(plan)
    }

    fn cache(&self, layer: usize, pages: &Pages) -> PagedCache<'_> {
        let Geometry { kv_heads, d, .. } = self.geometry;
        PagedCache { base: self.layers[layer].span(), pages: self.pages, page_tokens: pages.page_tokens, kv_heads, head_dim: d }
    }

    /// Waits, then reads the status that the kernels raised.
    fn check(&self) -> Result<()> {
        let status: Vec<i32> = self.status.download(&self.stream, 0, 4)?;
        if status.iter().take(3).all(|flag| *flag == 0) {
            return Ok(());
        }
        let reasons = vec![format!("a kernel reported a bad slot, page or length (flags {:?}) at index {}", &status[..3], status[3])];
        Err(Error::Invalid { reasons })
    }
}
