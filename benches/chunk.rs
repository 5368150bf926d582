//! Attention of a chunk of prompt tokens over a prefix of coded keys and values, one sequence, 8 kv heads, D 128, joins included: device
//! events around a replayed graph. Without a GPU it prints SKIPPED.
//!
//! `KVF_CODECS=int4,e8w4` chooses codecs, `KVF_SHAPES=4x2048+32768` query heads a kv head, tokens of the chunk and of the prefix before it;
//! `KVF_LAUNCHES=3` launches so often and ends, for a profiler; `KVF_RESULTS=FILE` appends JSON.

mod support;

use runtime::{Codec, Decode, DecodeSpec, Device, Elem, Memory, PagedCache, QueriesPlan, Result, Rows, Store, StorePlan, StoreSpec, Stream};
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

fn measure(device: &Device, stream: &Stream, name: &str, s: &Shape) -> Result<()> {
    let (codec, heads, len) = (Codec::open(name)?, KV_HEADS * s.group, (s.prefix + s.queries).next_multiple_of(PAGE));
    let (pages, cache) = (len / PAGE, stored(device, stream, codec, len)?);
    let plan = QueriesPlan::prepare(device, &DecodeSpec { codec, head_dim: D, group: s.group, page_tokens: PAGE, elem: Elem::Bf16, splits: 0 }, s.queries)?;
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
    let us = support::graph_us(device, stream, 1, |st, _| plan.launch(st, &call, s.queries));
    let pairs = heads as f64 * s.queries as f64 * (s.prefix as f64 + (s.queries + 1) as f64 / 2.0);
    let [attend, _] = plan.kernels().map(|k| k.attributes().registers);
    support::report(&serde_json::json!({
        "bench": "chunk", "codec": name, "group": s.group, "queries": s.queries, "prefix": s.prefix, "kv_heads": KV_HEADS, "d": D, "block_queries": plan.block_queries(),
        "us": us, "byte_tops": 2.0 * PRODUCTS * pairs / us * 1e-6, "bf16_tflops": 4.0 * D as f64 * pairs / us * 1e-6, "registers": attend, "device": device.name(),
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
