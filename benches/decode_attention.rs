//! Decode attention of every codec beside the time to read its bytes: 8 kv heads of 4 query heads each, D 128,
//! cold L2, join included. Times are device events around a replayed graph. Without a GPU it prints SKIPPED.
//! A `kvfuse` codec is timed whole, the maps of queries and outputs included.
//!
//! `KVF_SHAPES=32x8192,1x65536+31x4096` chooses shapes (sequences x tokens), `KVF_CODECS=int4,e8w4` codecs, `KVF_GROUPS=1,4,8` query
//! heads a kv head, `KVF_RESULTS=FILE` appends JSON, `KVF_QUICK=1` leaves out criterion's own samples. What is timed is the plan's launch, by
//! the tuning that it finds; `KVF_SPLITS`, `KVF_WARPS`, `KVF_STAGES`, `KVF_PAIR` (tiles a copy) and `KVF_MIN_BLOCKS` change what it would choose.

#[path = "support/calibrated.rs"]
mod calibrated;
#[path = "support/mod.rs"]
mod support;
#[path = "support/unit.rs"]
mod unit;

use calibrated::{Step, Times};
use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, BenchmarkId, Criterion, Throughput};
use kernels_gen::kernels::{self, decode_attention::DecodeMeta};
use kernels_gen::preset::{Preset, preset};
use kernels_gen::reference::CacheShape;
use kernels_gen::registry::{CodecInfo, codec, codecs};
use runtime::{Codec, Decode, DecodePlan, DecodeSpec, Device, Elem, Graph, Memory, PagedCache, Rows, Store, StorePlan, StoreSpec, Stream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use support::{D, KV_HEADS, PAGE, chosen};

struct Setup<'a> {
    device: &'a Device,
    stream: &'a Stream,
    c: &'static CodecInfo,
    lens: &'a [usize],
    group: usize,
}

/// Lengths of the sequences of a shape: `1x65536+31x4096`.
fn lens_of(shape: &str) -> Option<Vec<usize>> {
    let parts = shape.split('+').map(|part| {
        let (n, len) = part.split_once('x')?;
        Some(vec![len.parse().ok()?; n.parse().ok()?])
    });
    Some(parts.collect::<Option<Vec<Vec<usize>>>>()?.concat())
}

/// Median microseconds of decode plus join, microseconds of storing one chunk of 8192 tokens, splits.
fn measure(s: &Setup, group: &mut BenchmarkGroup<'_, WallTime>, id: BenchmarkId) -> Result<(f64, f64, usize), runtime::Error> {
    let (device, stream) = (s.device, s.stream);
    let (batch, longest) = (s.lens.len(), s.lens.iter().copied().max().unwrap_or(0));
    let pages: usize = s.lens.iter().map(|len| len.div_ceil(PAGE)).sum();
    let shape = CacheShape { pages, page_tokens: PAGE, kv_heads: KV_HEADS, d: D };
    let bytes = shape.bytes(s.c);
    let copies = support::copies(device, bytes);
    let cache = Memory::zeroed(device, bytes * copies)?;
    let chunk = (pages * PAGE).min(8192);
    let (k, v) = (Memory::from_slice(device, &support::values(chunk * KV_HEADS * D, 1))?, Memory::from_slice(device, &support::values(chunk * KV_HEADS * D, 2))?);
    let status = Memory::zeroed(device, 16)?;
    let codec = Codec::open(s.c.name)?;
    let store = StorePlan::prepare(device, &StoreSpec { codec, head_dim: D, page_tokens: PAGE, elem: Elem::Bf16 })?;
    let slots = Memory::from_slice(device, &(0..chunk as i64).collect::<Vec<i64>>())?;
    let rows = |memory| Rows { base: Memory::span(memory), token_stride: (KV_HEADS * D) as i64, head_stride: D as i64 };
    let paged = |base, pages| PagedCache { base, pages, page_tokens: PAGE, kv_heads: KV_HEADS, head_dim: D };
    let put = |stream: &Stream, part: usize| {
        let size = chunk / PAGE * KV_HEADS * shape.block_bytes(s.c);
        let cache = paged(cache.span().part((part * size) as u64, size as u64)?, chunk / PAGE);
        store.launch(stream, &Store { tokens: chunk, k: rows(&k), v: rows(&v), slots: slots.span(), cache, status: status.span() })
    };
    let parts = pages * PAGE * copies / chunk;
    (0..parts).try_for_each(|p| put(stream, p))?;
    let store_us = support::graph_us(device, stream, parts.min(8), |st, i| put(st, i));

    let heads = KV_HEADS * s.group;
    let stride = longest.div_ceil(PAGE);
    let mut table = vec![0_i32; batch * stride];
    let mut free = support::shuffled(pages).into_iter();
    for (row, len) in table.chunks_mut(stride).zip(s.lens) {
        row.iter_mut().zip(free.by_ref().take(len.div_ceil(PAGE))).for_each(|(entry, page)| *entry = page);
    }
    let q = Memory::from_slice(device, &support::values(batch * heads * D, 3))?;
    let (table, lens) = (Memory::from_slice(device, &table)?, Memory::from_slice(device, &s.lens.iter().map(|len| *len as i32).collect::<Vec<i32>>())?);
    let plan = plan(s, codec)?;
    let workspace = Memory::zeroed(device, plan.workspace_bytes(batch, heads, stride)? as usize)?;
    let (out, lse) = (Memory::zeroed(device, batch * heads * D * 2)?, Memory::zeroed(device, batch * heads * 4)?);
    let run = |stream: &Stream, copy: usize| {
        let call = Decode {
            batch,
            q: q.span(),
            cache: paged(cache.span().part((copy * bytes) as u64, bytes as u64)?, pages),
            table: table.span(),
            table_stride: stride,
            lens: lens.span(),
            out: out.span(),
            lse: Some(lse.span()),
            scale: 0.088388346,
            workspace: workspace.span(),
            status: status.span(),
        };
        plan.launch(stream, &call)
    };
    let us = support::graph_us(device, stream, copies.max(4), |st, i| run(st, i % copies));
    if std::env::var_os("KVF_QUICK").is_none() {
        let graph = Graph::record(stream, |st| (0..copies).try_for_each(|i| run(st, i)))?;
        group.throughput(Throughput::Bytes((bytes * copies) as u64));
        // One iteration is a replay over every copy of the cache.
        group.bench_function(id, |b| b.iter_custom(|n| support::replays(device, stream, &graph, n)));
    }
    Ok((us, store_us, plan.splits_for(batch, KV_HEADS, stride * PAGE)?))
}

/// As an engine makes it, or as the environment has it.
fn plan(s: &Setup, codec: Codec) -> Result<DecodePlan, runtime::Error> {
    let number = |name: &str| std::env::var(name).ok().and_then(|v| v.parse().ok());
    let spec = DecodeSpec { codec, head_dim: D, group: s.group, page_tokens: PAGE, elem: Elem::Bf16, splits: number("KVF_SPLITS").unwrap_or(0) };
    let [warps, stages, pair, min_blocks] = ["KVF_WARPS", "KVF_STAGES", "KVF_PAIR", "KVF_MIN_BLOCKS"].map(number);
    if warps.or(stages).or(pair).or(min_blocks).is_none() {
        return DecodePlan::prepare(s.device, &spec);
    }
    let own = kernels::decode_meta(s.c, D, s.group, PAGE);
    let m = DecodeMeta { warps: warps.unwrap_or(own.warps), stages: stages.unwrap_or(own.stages), pair: pair.unwrap_or(own.pair), min_blocks: min_blocks.unwrap_or(own.min_blocks), ..own };
    DecodePlan::with_meta(s.device, &spec, m)
}

/// Compiles what will be timed, as many kernels at a time as there are cores; what is measured later finds them in the cache.
fn compile(device: &Device, subjects: &[&'static CodecInfo], groups: &[usize]) {
    let jobs: Vec<(&'static CodecInfo, usize)> = subjects.iter().flat_map(|c| groups.iter().map(|g| (*c, *g))).collect();
    let next = AtomicUsize::new(0);
    let work = || {
        while let Some(&(c, group)) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
            // A codec that fails says so where it is measured.
            let Ok(codec) = Codec::open(c.name) else { continue };
            let _ = DecodePlan::prepare(device, &DecodeSpec { codec, head_dim: D, group, page_tokens: PAGE, elem: Elem::Bf16, splits: 0 });
            let _ = StorePlan::prepare(device, &StoreSpec { codec, head_dim: D, page_tokens: PAGE, elem: Elem::Bf16 });
        }
    };
    std::thread::scope(|threads| {
        for _ in 0..std::thread::available_parallelism().map_or(1, |n| n.get()) {
            threads.spawn(work);
        }
    });
}

fn main() {
    let Some((device, stream)) = support::open("decode_attention") else { return };
    let shapes = chosen("KVF_SHAPES", "32x8192,8x32768,64x4096,1x131072,1x32768,1x65536+31x4096,47x4096,32x128+32x4096,33x4096");
    let groups: Vec<usize> = chosen("KVF_GROUPS", "4").iter().map(|g| g.parse().unwrap_or_else(|_| panic!("KVF_GROUPS: {g}; write 1 to 8 or 16, with commas"))).collect();
    let names = chosen("KVF_CODECS", &codecs().iter().map(|c| c.name).collect::<Vec<_>>().join(","));
    let presets: Vec<&'static Preset> = names.iter().filter_map(|n| preset(n)).collect();
    let subjects: Vec<&'static CodecInfo> = names.iter().filter(|n| preset(n).is_none()).map(|n| codec(n).unwrap_or_else(|e| panic!("KVF_CODECS: {e}"))).collect();
    compile(&device, &subjects, &groups);
    let mut criterion = Criterion::default().sample_size(10).warm_up_time(Duration::from_millis(1)).measurement_time(Duration::from_millis(1)).configure_from_args();
    let mut group = criterion.benchmark_group("decode_attention");
    for shape in &shapes {
        let Some(lens) = lens_of(shape) else { panic!("KVF_SHAPES: {shape}; write sequences x tokens, such as 32x8192 or 1x65536+31x4096") };
        for (&c, &heads) in subjects.iter().flat_map(|c| groups.iter().map(move |g| (c, g))) {
            let setup = Setup { device: &device, stream: &stream, c, lens: &lens, group: heads };
            let bytes = lens.iter().map(|len| len.div_ceil(32)).sum::<usize>() * KV_HEADS * c.tile_bytes(D);
            let (us, store_us, splits) = match measure(&setup, &mut group, BenchmarkId::new(format!("{} group {heads}", c.name), shape)) {
                Ok(x) => x,
                Err(e) => {
                    println!("FAILED {} {shape}: {e}", c.name);
                    continue;
                }
            };
            let floor = support::read_us(&device, &stream, bytes);
            support::report(&serde_json::json!({
                "bench": "decode_attention", "codec": c.name, "shape": shape, "batch": lens.len(), "ctx": lens.iter().sum::<usize>() / lens.len(), "heads": KV_HEADS * heads, "group": heads, "kv_heads": KV_HEADS, "d": D, "us": us, "read_us": floor,
                "share_of_ceiling": floor / us, "kv_bytes": bytes, "gbps": bytes as f64 / us * 1e-3, "splits": splits, "store_8192_us": store_us,
                "device": device.name(),
            }));
        }
        for (&preset, &heads) in presets.iter().flat_map(|p| groups.iter().map(move |g| (p, g))) {
            let (batch, ctx) = (lens.len(), lens[0]);
            if lens.iter().any(|len| *len != ctx) {
                println!("SKIPPED {} {shape}: calibrated codecs are timed with sequences of one length", preset.name);
                continue;
            }
            let step = Step { device: &device, stream: &stream, preset, batch, ctx, kv_heads: KV_HEADS, group: heads };
            match calibrated::measure(&step) {
                Ok(times) => report_step(&step, &times),
                Err(e) => println!("FAILED {} {shape}: {e}", preset.name),
            }
        }
    }
    group.finish();
}

fn report_step(s: &Step, t: &Times) {
    let bytes = s.preset.codec().map_or(0, |c| s.batch * s.ctx / 32 * KV_HEADS * c.tile_bytes(D));
    let floor = support::read_us(s.device, s.stream, bytes);
    support::report(&serde_json::json!({
        "bench": "decode_attention", "codec": s.preset.name, "shape": format!("{}x{}", s.batch, s.ctx), "batch": s.batch, "ctx": s.ctx, "heads": KV_HEADS * s.group, "group": s.group, "kv_heads": KV_HEADS, "d": D,
        "us": t.whole, "read_us": floor, "share_of_ceiling": floor / t.whole,
        "kv_bytes": bytes, "splits": t.splits, "store_8192_us": t.store, "device": s.device.name(),
    }));
}
