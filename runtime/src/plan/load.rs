//! Giving rows back that a cache holds: for measurements, and for readers that cannot attend to codes.

use std::sync::Arc;

use super::store::{Mapped, StoreSpec, size_of_elem};
use super::status;
use crate::argument::{Misuse, int, product, within};
use crate::calibration::needs;
use crate::cuda::{Arg, Device, Kernel, Span, Stream};
use crate::error::Result;
use crate::page::{PagedCache, Shape};
use kernels_gen::kernels::maps::MapMeta;
use kernels_gen::kernels::{self, Elem, Mapping};

/// One load call.
#[derive(Clone, Copy, Debug)]
pub struct Load<'a> {
    /// Tokens to load.
    pub tokens: usize,
    /// Where each lies: i64 `[tokens]`, page * page_tokens + offset; a row whose slot is below 0 is left as it is.
    pub slots: Span<'a>,
    /// The cache.
    pub cache: PagedCache<'a>,
    /// Keys `[tokens, kv_heads, d]`, 16-byte aligned.
    pub k: Span<'a>,
    /// Values, likewise.
    pub v: Span<'a>,
    /// i32 `[4]`, see [`status`].
    pub status: Span<'a>,
}

/// A load kernel, ready.
#[derive(Debug)]
pub struct LoadPlan {
    shape: Shape,
    elem: Elem,
    kernel: Arc<Kernel>,
    /// Of a calibrated codec: what comes after.
    map: Option<(MapMeta, Arc<Kernel>)>,
}

impl LoadPlan {
    /// Compiles and loads. Slow the first time; not while a stream is being captured. `spec.elem` is the type of what comes back.
    pub fn prepare(device: &Device, spec: &StoreSpec) -> Result<Self> {
        let StoreSpec { codec, head_dim, page_tokens, elem } = *spec;
        codec.check_store(head_dim, page_tokens)?;
        let calibrated = codec.calibrated().is_ok();
        let inner = if calibrated { Elem::F32 } else { elem };
        let kernel = super::load(device, kernels::load(codec.info(), head_dim, page_tokens, inner))?;
        let m = kernels::map_meta(codec.info(), head_dim, 1, page_tokens, Mapping::Loaded);
        let map = || Ok::<_, crate::Error>((m, super::load(device, kernels::map_of(codec.info(), &m, Mapping::Loaded, elem))?));
        let map = if calibrated { Some(map()?) } else { None };
        Ok(LoadPlan { shape: Shape { codec, head_dim, page_tokens }, elem, kernel, map })
    }

    /// Bytes of workspace that a launch of so many tokens needs; 0 but for calibrated codecs.
    pub fn workspace_bytes(&self, tokens: usize, kv_heads: usize) -> Result<u64> {
        if self.map.is_none() {
            return Ok(0);
        }
        Ok(product("the workspace", &[2, tokens, kv_heads, self.shape.head_dim, 4])?)
    }

    /// Enqueues the load: one launch, no allocation, no wait. Zero tokens enqueue nothing.
    pub fn launch(&self, stream: &Stream, call: &Load<'_>) -> Result<()> {
        self.check(call)?;
        if self.map.is_some() {
            return Err(needs(self.shape.codec).into());
        }
        if call.tokens == 0 { Ok(()) } else { self.enqueue(stream, call) }
    }

    /// As `launch`, for a calibrated codec: one launch more. Positions beyond the calibration are a caller's mistake that
    /// turns keys by the nearest segment that it knows.
    pub fn launch_calibrated(&self, stream: &Stream, call: &Load<'_>, mapped: &Mapped<'_>) -> Result<()> {
        self.check(call)?;
        let Some((m, map)) = &self.map else { return Err(needs(self.shape.codec).into()) };
        mapped.layer.check(self.shape.codec, &call.cache)?;
        if call.tokens == 0 {
            return Ok(());
        }
        let (tokens, kv_heads) = (call.tokens, call.cache.kv_heads);
        mapped.positions.expect("positions", "one i32 a token", 4, 4 * tokens as u64)?;
        let need = self.workspace_bytes(tokens, kv_heads)?;
        mapped.workspace.expect("workspace", "workspace_bytes() of device memory", 16, need)?;
        let y = mapped.workspace.part(0, need)?;
        self.enqueue(stream, &Load { k: y.part(0, need / 2)?, v: y.part(need / 2, need / 2)?, ..*call })?;
        let args = [
            Arg::Ptr(y),
            Arg::Ptr(mapped.positions),
            Arg::Ptr(call.slots),
            Arg::Ptr(mapped.layer.turns()),
            Arg::Ptr(mapped.layer.maps()),
            Arg::Ptr(call.k),
            Arg::Ptr(call.v),
            Arg::I32(int("tokens", tokens)?),
            Arg::I32(call.cache.ints()?.0),
            Arg::I32(int("the segments of the calibration", mapped.layer.segments())?),
        ];
        map.launch(stream, kernels::rows_grid(m, tokens, kv_heads), &args)
    }

    fn check(&self, call: &Load<'_>) -> Result<()> {
        call.cache.check(&self.shape)?;
        if call.tokens == 0 {
            return Ok(());
        }
        within("tokens", call.tokens, 1, i32::MAX as usize)?;
        let rows = [call.tokens, call.cache.kv_heads, call.cache.head_dim, size_of_elem(self.elem)];
        let need = product("the rows", &rows)?;
        if need > i64::MAX as u64 {
            return Err(Misuse::Overflow { what: "the rows", limit: "63 bits" }.into());
        }
        call.k.expect("k", "a row for each token and kv head", 16, need)?;
        call.v.expect("v", "a row for each token and kv head", 16, need)?;
        call.slots.expect("slots", "one i64 a token", 8, 8 * call.tokens as u64)?;
        Ok(call.status.expect("status", "four i32 on the device", 4, status::BYTES)?)
    }

    fn enqueue(&self, stream: &Stream, call: &Load<'_>) -> Result<()> {
        let args = [
            Arg::Ptr(call.cache.base),
            Arg::Ptr(call.slots),
            Arg::Ptr(call.k),
            Arg::Ptr(call.v),
            Arg::Ptr(call.status),
            Arg::I32(int("tokens", call.tokens)?),
            Arg::I32(call.cache.ints()?.0),
            Arg::I64(call.cache.slots()?),
        ];
        self.kernel.launch(stream, kernels::store_grid(call.tokens, call.cache.kv_heads), &args)
    }

    /// The kernel, for its attributes.
    pub fn kernel(&self) -> &Kernel {
        &self.kernel
    }
}
