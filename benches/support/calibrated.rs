//! A decode step of a calibrated codec, whole: queries mapped once a segment, decode and join, outputs mapped back. And its store:
//! rows mapped, then coded.

use crate::support::{copies, graph_us, values};
use crate::unit::calibration;
use kernels_gen::kernels::Elem;
use kernels_gen::preset::Preset;
use kernels_gen::reference::CacheShape;
use runtime::{Codec, Decode, DecodePlan, DecodeSpec, Device, Mapped, Memory, PagedCache, Result, Rows, Store, StorePlan, StoreSpec, Stream};

/// What is timed; heads of 128 dims in pages of 64 tokens.
pub struct Step<'a> {
    pub device: &'a Device,
    pub stream: &'a Stream,
    pub preset: &'static Preset,
    pub batch: usize,
    pub ctx: usize,
    pub kv_heads: usize,
    pub group: usize,
}

/// Microseconds of the step and of a store of up to 8192 tokens, and splits.
pub struct Times {
    pub whole: f64,
    pub store: f64,
    pub splits: usize,
}

const D: usize = 128;
const PAGE: usize = 64;

pub fn measure(s: &Step) -> Result<Times> {
    let (device, stream, c) = (s.device, s.stream, s.preset.codec()?);
    let (heads, pages) = (s.kv_heads * s.group, s.batch * s.ctx / PAGE);
    let shape = CacheShape { pages, page_tokens: PAGE, kv_heads: s.kv_heads, d: D };
    let bytes = shape.bytes(c);
    let turns = copies(device, bytes);
    let cache = Memory::zeroed(device, bytes * turns)?;
    let store = stored(s, &cache, bytes, turns)?;

    let stride = s.ctx / PAGE;
    let mut table: Vec<i32> = (0..pages as i32).collect();
    let mut seed = 7_u64;
    for i in (1..table.len()).rev() {
        seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        table.swap(i, (seed >> 33) as usize % (i + 1));
    }
    let codec = Codec::open(s.preset.name)?;
    let calibration = calibration(device, codec, s.preset, s.kv_heads, s.ctx)?;
    let layer = calibration.layer(0)?;
    let spec = DecodeSpec { codec, head_dim: D, group: s.group, page_tokens: PAGE, elem: Elem::Bf16, splits: 0 };
    let plan = DecodePlan::prepare(device, &spec)?;
    let q = Memory::from_slice(device, &values(s.batch * heads * D, 3))?;
    let (table, lens) = (Memory::from_slice(device, &table)?, Memory::from_slice(device, &vec![s.ctx as i32; s.batch])?);
    let workspace = Memory::zeroed(device, plan.workspace_bytes(s.batch, heads, stride)? as usize)?;
    let (lse, out, status) = (Memory::zeroed(device, s.batch * heads * 4)?, Memory::zeroed(device, s.batch * heads * D * 2)?, Memory::zeroed(device, 16)?);
    let call = |copy: usize| -> Result<Decode<'_>> {
        let base = cache.span().part((copy * bytes) as u64, bytes as u64)?;
        Ok(Decode {
            batch: s.batch,
            q: q.span(),
            cache: PagedCache { base, pages, page_tokens: PAGE, kv_heads: s.kv_heads, head_dim: D },
            table: table.span(),
            table_stride: stride,
            lens: lens.span(),
            out: out.span(),
            lse: Some(lse.span()),
            scale: 0.088388346,
            workspace: workspace.span(),
            status: status.span(),
        })
    };
    let whole = graph_us(device, stream, turns.max(4), |stream, i| plan.launch_calibrated(stream, &call(i % turns)?, &layer));
    Ok(Times { whole, store, splits: plan.splits_for(s.batch, s.kv_heads, s.ctx)? })
}

/// Fills the copies of the cache; microseconds of one chunk.
fn stored(s: &Step, cache: &Memory, bytes: usize, turns: usize) -> Result<f64> {
    let (device, stream, kv_heads) = (s.device, s.stream, s.kv_heads);
    let codec = Codec::open(s.preset.name)?;
    let plan = StorePlan::prepare(device, &StoreSpec { codec, head_dim: D, page_tokens: PAGE, elem: Elem::Bf16 })?;
    let tokens = s.ctx.min(8192);
    let shape = CacheShape { pages: tokens / PAGE, page_tokens: PAGE, kv_heads, d: D };
    let (k, v) = (Memory::from_slice(device, &values(tokens * kv_heads * D, 1))?, Memory::from_slice(device, &values(tokens * kv_heads * D, 2))?);
    let slots = Memory::from_slice(device, &(0..tokens as i64).collect::<Vec<_>>())?;
    let positions = Memory::from_slice(device, &(0..tokens as i32).collect::<Vec<_>>())?;
    let status = Memory::zeroed(device, 16)?;
    let calibration = calibration(device, codec, s.preset, kv_heads, s.ctx)?;
    let layer = calibration.layer(0)?;
    let part = shape.bytes(codec.info());
    let put = |stream: &Stream, i: usize| {
        let base = cache.span().part((i * part) as u64, part as u64)?;
        let rows = |memory| Rows { base: Memory::span(memory), token_stride: (kv_heads * D) as i64, head_stride: D as i64 };
        let cache = PagedCache { base, pages: tokens / PAGE, page_tokens: PAGE, kv_heads, head_dim: D };
        let call = Store { tokens, k: rows(&k), v: rows(&v), slots: slots.span(), cache, status: status.span() };
        plan.launch_calibrated(stream, &call, &Mapped { layer, positions: positions.span() })
    };
    let parts = bytes * turns / part;
    (0..parts).try_for_each(|i| put(stream, i))?;
    Ok(graph_us(device, stream, parts.min(8), put))
}
