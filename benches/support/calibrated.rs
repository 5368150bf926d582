//! A decode step of a calibrated codec, whole and in parts: queries mapped once a segment, decode and join, outputs
//! mapped back. And its store: rows mapped, then coded.

use crate::support::{copies, graph_us, values};
use kernel_dsl::Source;
use kernels_gen::kernels::join_splits::NARROW;
use kernels_gen::kernels::{self, Elem, Mapping, SEGMENT};
use kernels_gen::preset::{LayerMaps, Preset, Turns};
use kernels_gen::reference::CacheShape;
use runtime::{Arg, Calibration, Codec, Device, Mapped, Memory, PagedCache, Result, Rows, Store, StorePlan, StoreSpec, Stream};
use std::sync::Arc;

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

/// Microseconds of the whole step and of its parts, of a store of up to 8192 tokens, and splits.
pub struct Times {
    pub whole: f64,
    pub queries: f64,
    pub decode: f64,
    pub outputs: f64,
    pub store: f64,
    pub splits: usize,
}

const D: usize = 128;
const PAGE: usize = 64;

fn load(device: &Device, source: std::result::Result<Source, kernel_dsl::Report>) -> Result<Arc<runtime::Kernel>> {
    device.kernel(&source.map_err(|e| runtime::Error::Generate(e.to_string()))?)
}

pub fn measure(s: &Step) -> Result<Times> {
    let (device, stream, c) = (s.device, s.stream, s.preset.codec()?);
    let (heads, pages) = (s.kv_heads * s.group, s.batch * s.ctx / PAGE);
    let shape = CacheShape { pages, page_tokens: PAGE, kv_heads: s.kv_heads, d: D };
    let bytes = shape.bytes(c);
    let turns = copies(device, bytes);
    let cache = Memory::zeroed(device, bytes * turns)?;
    let store = stored(s, &cache, bytes, turns)?;

    let (stride, segments) = (s.ctx / PAGE, s.ctx.div_ceil(SEGMENT));
    let mut table: Vec<i32> = (0..pages as i32).collect();
    let mut seed = 7_u64;
    for i in (1..table.len()).rev() {
        seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        table.swap(i, (seed >> 33) as usize % (i + 1));
    }
    let [to, from] = [Mapping::Queries, Mapping::Outputs].map(|mapping| kernels::map_meta(c, D, s.group, PAGE, mapping));
    let m = kernels::calibrated_meta(c, D, s.group, PAGE);
    let [queries, outputs] = [(to, Mapping::Queries), (from, Mapping::Outputs)].map(|(m, mapping)| load(device, kernels::map_of(c, &m, mapping, Elem::Bf16)));
    let (queries, outputs, decode) = (queries?, outputs?, load(device, kernels::decode_of(c, &m, Elem::F32))?);
    let j = kernels::join_meta(D, PAGE);
    let resident = device.multiprocessors() * decode.attributes().blocks_per_multiprocessor as usize;
    let unit = kernels::whole_unit(&m, s.batch * s.kv_heads, s.ctx, resident);
    let splits = kernels::splits_of(&m, s.ctx, unit.unwrap_or(m.least()));
    let join = load(device, kernels::join_of(c, &if splits <= NARROW { j.narrow() } else { j }, Elem::F32))?;
    let turn = Memory::from_slice(device, &Turns::new(&(0..D / 2).map(|i| 1e4_f32.powf(-((2 * i) as f32) / D as f32)).collect::<Vec<_>>(), s.ctx).packed())?;
    let plain = unit_maps(s)?;
    let (maps, scales) = (Memory::from_slice(device, &plain.0.packed())?, Memory::from_slice(device, &plain.0.scales())?);
    let q = Memory::from_slice(device, &values(s.batch * heads * D, 3))?;
    let (table, lens) = (Memory::from_slice(device, &table)?, Memory::from_slice(device, &vec![s.ctx as i32; s.batch])?);
    let (part, stat) = (Memory::zeroed(device, s.batch * heads * splits * D * 4)?, Memory::zeroed(device, s.batch * heads * splits * 8)?);
    let records = Memory::zeroed(device, s.batch * s.kv_heads * segments * m.record)?;
    let (joined, lse, out) = (Memory::zeroed(device, s.batch * heads * D * 4)?, Memory::zeroed(device, s.batch * heads * 4)?, Memory::zeroed(device, s.batch * heads * D * 2)?);
    let (chosen, status) = (Memory::zeroed(device, 4)?, Memory::zeroed(device, 16)?);
    let [kv_heads, group, stride, page_count, count] = [s.kv_heads, s.group, stride, pages, segments].map(|n| Arg::I32(n as i32));
    let scale = Arg::F32(0.088388346);

    let before = |stream: &Stream| {
        let args = [Arg::Ptr(q.span()), Arg::Ptr(turn.span()), Arg::Ptr(maps.span()), Arg::Ptr(scales.span()), Arg::Ptr(lens.span()), Arg::Ptr(records.span()), kv_heads, stride, count, scale];
        queries.launch(stream, kernels::queries_grid(&to, segments, s.kv_heads, s.batch), &args)
    };
    let attend = |stream: &Stream, copy: usize| {
        let kv = cache.span().part((copy * bytes) as u64, bytes as u64)?;
        // As the plan has it.
        let most = s.batch * splits;
        let own = splits == 1 && most * s.kv_heads <= resident;
        let blocks = if splits == 1 { most } else { (resident / s.kv_heads).clamp(1, most) };
        let args = [
            Arg::Ptr(records.span()), Arg::Ptr(kv), Arg::Ptr(table.span()), Arg::Ptr(lens.span()), Arg::Ptr(joined.span()), Arg::Ptr(lse.span()), Arg::Ptr(part.span()), Arg::Ptr(stat.span()), Arg::Ptr(chosen.span()), Arg::Ptr(status.span()),
            Arg::I32(s.batch as i32), kv_heads, page_count, stride, count, Arg::I32(splits as i32), Arg::I32(blocks as i32), Arg::I32(unit.map_or(-1, |unit| unit as i32)), Arg::I32(i32::from(own)), scale,
        ];
        decode.launch(stream, [s.kv_heads as u32, blocks as u32, 1], &args)?;
        if splits == 1 {
            return Ok(());
        }
        let args = [
            Arg::Ptr(part.span()), Arg::Ptr(stat.span()), Arg::Ptr(chosen.span()), Arg::Ptr(table.span()), Arg::Ptr(lens.span()), Arg::Ptr(joined.span()), Arg::Ptr(lse.span()), Arg::Ptr(status.span()),
            kv_heads, group, Arg::I32(splits as i32), page_count, stride,
        ];
        join.launch(stream, [s.group as u32, s.kv_heads as u32, s.batch as u32], &args)
    };
    let after = |stream: &Stream| {
        let args = [Arg::Ptr(joined.span()), Arg::Ptr(lse.span()), Arg::Ptr(maps.span()), Arg::Ptr(scales.span()), Arg::Ptr(out.span()), Arg::I32(s.batch as i32), kv_heads];
        outputs.launch(stream, kernels::outputs_grid(&from, s.kv_heads, s.batch), &args)
    };
    let whole = |stream: &Stream, copy: usize| {
        before(stream)?;
        attend(stream, copy)?;
        after(stream)
    };
    let us = graph_us(device, stream, turns.max(4), |stream, i| whole(stream, i % turns));
    Ok(Times {
        whole: us,
        queries: graph_us(device, stream, 8, |stream, _| before(stream)),
        decode: graph_us(device, stream, turns.max(4), |stream, i| attend(stream, i % turns)),
        outputs: graph_us(device, stream, 8, |stream, _| after(stream)),
        store,
        splits,
    })
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
    let (maps, turns_of) = unit_maps(s)?;
    let identity = Calibration::upload(device, codec, &[(s.preset.codec()?, maps)], &turns_of)?;
    let layer = identity.layer(0)?;
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

/// Maps of one layer that keep rows as they are, but for their steps.
fn unit_maps(s: &Step) -> Result<(LayerMaps, Turns)> {
    use kernels_gen::preset::{Calibration as Fitted, Fit, Shape};
    let shape = Shape { layers: 1, kv_heads: s.kv_heads, d: D };
    let mut basis = vec![0.0; s.kv_heads * D * D];
    (0..s.kv_heads * D).for_each(|row| basis[row * D + row % D] = 1.0);
    let fit = Fit { basis, mean: vec![0.0; s.kv_heads * D], energy: vec![0.3; s.kv_heads * D] };
    let speeds = (0..D / 2).map(|i| 1e4_f32.powf(-((2 * i) as f32) / D as f32)).collect();
    let fitted = Fitted { shape, model: String::new(), text: String::new(), tokens: 0, speeds, keys: fit.clone(), values: fit, bands: Default::default() };
    Ok((fitted.maps(s.preset, 0)?, fitted.turns(s.ctx)))
}
