//! Giving rows back that a cache holds: for measurements, and for readers that cannot attend to codes.

use std::fmt;
use std::sync::Arc;

use super::status;
use super::store::{StoreSpec, size_of_elem};
use crate::argument::{Misuse, agree, int, product, within};
use crate::calibration::needs;
use crate::cuda::{Arg, Device, Kernel, Memory, Span, Stream};
use crate::error::Result;
use crate::page::{PagedCache, Shape};
use kernels_gen::kernels::back::BackMeta;
use kernels_gen::kernels::{self, Elem};
use kernels_gen::preset::{LayerMaps, Turns};

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

/// What brings the coordinates of a calibrated codec back, in device memory: for each layer and kv head two matrices of f32.
pub struct Backs {
    layers: Vec<Memory>,
    turns: Memory,
    segments: usize,
    kv_heads: usize,
    d: usize,
}

impl fmt::Debug for Backs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Backs({} layers, {} heads of {})", self.layers.len(), self.kv_heads, self.d)
    }
}

impl Backs {
    /// From the maps of all layers, one at least, and the turns of all positions.
    pub fn upload<'a>(device: &Device, layers: impl Iterator<Item = &'a LayerMaps>, turns: &Turns) -> Result<Self> {
        let (mut kv_heads, mut d, mut all) = (0, 0, Vec::new());
        for maps in layers {
            (kv_heads, d) = (maps.kv_heads, maps.d);
            all.push(Memory::from_slice(device, &maps.backs())?);
        }
        if all.is_empty() {
            return Err(Misuse::Other("the way back of no layers; give the maps of each".into()).into());
        }
        let table: Vec<f32> = turns.pairs.iter().flat_map(|(cos, sin)| [*cos, *sin]).collect();
        Ok(Backs { layers: all, turns: Memory::from_slice(device, &table)?, segments: turns.pairs.len() / (d / 2), kv_heads, d })
    }
}

/// What a load through a calibrated codec takes besides.
#[derive(Clone, Copy, Debug)]
pub struct Back<'a> {
    /// Of the model that the codec was fitted to.
    pub backs: &'a Backs,
    /// The layer whose cache it is.
    pub layer: usize,
    /// i32 `[tokens]`: each token's place in its sequence, from 0.
    pub positions: Span<'a>,
    /// At least [`LoadPlan::workspace_bytes`], 16-byte aligned; in use until the work has run.
    pub workspace: Span<'a>,
}

/// A load kernel, ready.
#[derive(Debug)]
pub struct LoadPlan {
    shape: Shape,
    elem: Elem,
    kernel: Arc<Kernel>,
    /// Of a calibrated codec: what comes after.
    map: Option<(BackMeta, Arc<Kernel>)>,
}

impl LoadPlan {
    /// Compiles and loads. Slow the first time; not while a stream is being captured. `spec.elem` is the type of what comes back.
    pub fn prepare(device: &Device, spec: &StoreSpec) -> Result<Self> {
        let StoreSpec { codec, head_dim, page_tokens, elem } = *spec;
        codec.by_token("load")?;
        codec.check_store(head_dim, page_tokens)?;
        let calibrated = codec.calibrated().is_ok();
        let inner = if calibrated { Elem::F32 } else { elem };
        let kernel = super::load(device, kernels::load(codec.info(), head_dim, page_tokens, inner))?;
        let map = || Ok::<_, crate::Error>((kernels::back_meta(head_dim), super::load(device, kernels::map_back(head_dim, elem))?));
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

    /// As `launch`, for a calibrated codec: one launch more. Positions beyond the turns are a caller's mistake that turns keys
    /// by the nearest segment.
    pub fn launch_calibrated(&self, stream: &Stream, call: &Load<'_>, back: &Back<'_>) -> Result<()> {
        self.check(call)?;
        let Some((m, map)) = &self.map else { return Err(needs(self.shape.codec).into()) };
        let Backs { layers, turns, segments, kv_heads, d } = back.backs;
        agree("kv_heads", call.cache.kv_heads, *kv_heads, "way back")?;
        agree("head_dim", call.cache.head_dim, *d, "way back")?;
        within("layer", back.layer, 0, layers.len() - 1)?;
        if call.tokens == 0 {
            return Ok(());
        }
        let tokens = call.tokens;
        back.positions.expect("positions", "one i32 a token", 4, 4 * tokens as u64)?;
        let need = self.workspace_bytes(tokens, *kv_heads)?;
        back.workspace.expect("workspace", "workspace_bytes() of device memory", 16, need)?;
        let y = back.workspace.part(0, need)?;
        self.enqueue(stream, &Load { k: y.part(0, need / 2)?, v: y.part(need / 2, need / 2)?, ..*call })?;
        let args = [
            Arg::Ptr(y),
            Arg::Ptr(back.positions),
            Arg::Ptr(call.slots),
            Arg::Ptr(turns.span()),
            Arg::Ptr(layers[back.layer].span()),
            Arg::Ptr(call.k),
            Arg::Ptr(call.v),
            Arg::I32(int("tokens", tokens)?),
            Arg::I32(call.cache.ints()?.0),
            Arg::I32(int("the segments of the turns", *segments)?),
        ];
        map.launch(stream, kernels::back_grid(m, tokens, *kv_heads), &args)
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
        let args = [Arg::Ptr(call.cache.base), Arg::Ptr(call.slots), Arg::Ptr(call.k), Arg::Ptr(call.v), Arg::Ptr(call.status), Arg::I32(int("tokens", call.tokens)?), Arg::I32(call.cache.ints()?.0), Arg::I64(call.cache.slots()?)];
        self.kernel.launch(stream, kernels::store_grid(call.tokens, call.cache.kv_heads), &args)
    }

    /// The kernel, for its attributes.
    pub fn kernel(&self) -> &Kernel {
        &self.kernel
    }
}
