//! Attention of a chunk of prompt tokens over a prefix of coded keys and values, one sequence, 8 kv heads, D 128, joins included: device
//! events around a replayed graph. Without a GPU it prints SKIPPED.
//!
//! `KVF_CODECS=int4,e8w4` chooses codecs, `KVF_SHAPES=4x2048+32768` query heads a kv head, tokens of the chunk and of the prefix before it.
//! Outputs of the first and of the last tokens of a chunk are held to what decode attention gives them alone, bit for bit.
//!
//! `KVF_LAUNCHES=3` launches so often and ends, for a profiler; `KVF_RESULTS=FILE` appends JSON.

mod support;

use runtime::{Codec, Decode, DecodePlan, DecodeSpec, Device, Elem, Memory, PagedCache, QueriesPlan, Result, Rows, Store, StorePlan, StoreSpec, Stream};
use support::{D, KV_HEADS, PAGE};

/// Multiplications of bytes a row, token and head: two bytes of a query times keys, two of a weight times values.
const PRODUCTS: f64 = 4.0 * D as f64;

struct Shape {
    group: usize,
    queries: usize,
    prefix: usize,
}

impl Shape {
    fn parse(text: &str) -> Option<Shape> {
        let (group, rest) = text.split_once('x')?;
        let (queries, prefix) = rest.split_once('+')?;
        Some(Shape { group: group.parse().ok()?, queries: queries.parse().ok()?, prefix: prefix.parse().ok()? })
    }
}

fn stored(device: &Device, stream: &Stream, codec: Codec, tokens: usize) -> Result<Memory> {
    let (pages, chunk) = (tokens / PAGE, 4096);
    let cache = Memory::zeroed(device, codec.cache_bytes(pages, PAGE, KV_HEADS, D)? as usize)?;
    let plan = StorePlan::prepare(device, &StoreSpec { codec, head_dim: D, page_tokens: PAGE, elem: Elem::Bf16 })?;
    let status = Memory::zeroed(device, 16)?;
    let [k, v] = [1, 2].map(|seed| Memory::from_slice(device, &support::values(chunk * KV_HEADS * D, seed)));
    let (k, v) = (k?, v?);
    let side = |m| Rows { base: m, token_stride: (KV_HEADS * D) as i64, head_stride: D as i64 };
    for first in (0..tokens).step_by(chunk) {
        let slots: Vec<i64> = (first as i64..(first + chunk).min(tokens) as i64).collect();
        let own = Memory::from_slice(device, &slots)?;
        let paged = PagedCache { base: cache.span(), pages, page_tokens: PAGE, kv_heads: KV_HEADS, head_dim: D };
        plan.launch(stream, &Store { tokens: slots.len(), k: side(k.span()), v: side(v.span()), slots: own.span(), cache: paged, status: status.span() })?;
        stream.synchronise()?;
    }
    Ok(cache)
}

/// Query tokens that are held to decode attention at once.
const SOME: usize = 64;

/// Numbers of the outputs of query tokens `first ..` that differ from those of decode attention.
fn differing(device: &Device, stream: &Stream, spec: &DecodeSpec, s: &Shape, call: &Decode<'_>, made: &Memory, first: usize) -> Result<usize> {
    let (n, row, pages) = (SOME.min(s.queries - first), KV_HEADS * s.group * D, call.table_stride);
    let plan = DecodePlan::prepare(device, spec)?;
    let workspace = Memory::zeroed(device, plan.workspace_bytes(n, KV_HEADS * s.group, pages)? as usize)?;
    let rows = Memory::from_slice(device, &support::shuffled(pages).repeat(n))?;
    let lens = Memory::from_slice(device, &(0..n).map(|i| (s.prefix + first + i + 1) as i32).collect::<Vec<i32>>())?;
    let (out, q) = (Memory::zeroed(device, n * row * 2)?, call.q.part((first * row * 2) as u64, (n * row * 2) as u64)?);
    plan.launch(stream, &Decode { batch: n, q, table: rows.span(), lens: lens.span(), out: out.span(), workspace: workspace.span(), ..*call })?;
    let (own, alone) = (made.download::<u16>(stream, 2 * first * row, n * row)?, out.download::<u16>(stream, 0, n * row)?);
    Ok(own.iter().zip(&alone).filter(|(a, b)| a != b).count())
}

fn measure(device: &Device, stream: &Stream, name: &str, s: &Shape) -> Result<()> {
    let (codec, heads, len) = (Codec::open(name)?, KV_HEADS * s.group, (s.prefix + s.queries).next_multiple_of(PAGE));
    let (pages, cache) = (len / PAGE, stored(device, stream, codec, len)?);
    let spec = DecodeSpec { codec, head_dim: D, group: s.group, page_tokens: PAGE, elem: Elem::Bf16, splits: 0 };
    let plan = QueriesPlan::prepare(device, &spec, s.queries)?;
    let workspace = Memory::zeroed(device, plan.workspace_bytes(1, heads, s.queries, pages)? as usize)?;
    let (table, lens) = (Memory::from_slice(device, &support::shuffled(pages))?, Memory::from_slice(device, &[(s.prefix + s.queries) as i32])?);
    let q = Memory::from_slice(device, &support::values(s.queries * heads * D, 3))?;
    let (out, status) = (Memory::zeroed(device, s.queries * heads * D * 2)?, Memory::zeroed(device, 16)?);
    let call = Decode {
        batch: 1,
        q: q.span(),
        cache: PagedCache { base: cache.span(), pages, page_tokens: PAGE, kv_heads: KV_HEADS, head_dim: D },
        table: table.span(),
        table_stride: pages,
        lens: lens.span(),
        out: out.span(),
        lse: None,
        scale: 0.088388346,
        workspace: workspace.span(),
        status: status.span(),
    };
    if let Some(launches) = std::env::var("KVF_LAUNCHES").ok().and_then(|n| n.parse::<usize>().ok()) {
        (0..launches).try_for_each(|_| plan.launch(stream, &call, s.queries))?;
        return stream.synchronise();
    }
    plan.launch(stream, &call, s.queries)?;
    let differ = [0, s.queries.saturating_sub(SOME)].into_iter().map(|first| differing(device, stream, &spec, s, &call, &out, first)).sum::<Result<usize>>()?;
    let us = support::graph_us(device, stream, 1, |st, _| plan.launch(st, &call, s.queries));
    let pairs = heads as f64 * s.queries as f64 * (s.prefix as f64 + (s.queries + 1) as f64 / 2.0);
    let [attend, _] = plan.kernels().map(|k| k.attributes().registers);
    support::report(&serde_json::json!({
        "bench": "chunk", "codec": name, "group": s.group, "queries": s.queries, "prefix": s.prefix, "kv_heads": KV_HEADS, "d": D, "block_queries": plan.block_queries(),
        "differ": differ, "us": us, "byte_tops": 2.0 * PRODUCTS * pairs / us * 1e-6, "bf16_tflops": 4.0 * D as f64 * pairs / us * 1e-6, "registers": attend, "device": device.name(),
    }));
    Ok(())
}

fn main() {
    let Some((device, stream)) = support::open("chunk") else { return };
    for name in support::chosen("KVF_CODECS", "int4,e8w4,e8q38,turboquant_4bit_nc,int4_per_token_head") {
        for shape in support::chosen("KVF_SHAPES", "4x2048+32768,4x512+32768,8x2048+32768,1x2048+32768") {
            let done = Shape::parse(&shape).map(|s| measure(&device, &stream, &name, &s));
            match done {
                Some(Ok(())) => {}
                Some(Err(e)) => println!("FAILED {name} {shape}: {e}"),
                None => println!("FAILED: KVF_SHAPES has {shape}, write it as 4x2048+32768"),
            }
        }
    }
}
