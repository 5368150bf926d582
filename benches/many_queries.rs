//! Several query tokens a sequence beside decode attention of the same rows: speculative tokens of 32 sequences of
//! 8192 tokens in one launch each, and a chunk of 2048 prompt tokens over a prefix of 32768. 32 query heads, 8 kv heads,
//! D 128, joins included, device events around a replayed graph. Without a GPU it prints SKIPPED.
//!
//! `KVF_CODECS=int4,e8w4` chooses codecs, `KVF_BLOCK=2` at most so many query tokens a block, `KVF_RESULTS=FILE` appends JSON.

#[path = "support/mod.rs"]
mod support;
#[path = "support/unit.rs"]
mod unit;

use kernels_gen::preset::preset;
use runtime::{Codec, Decode, DecodePlan, DecodeSpec, Device, Elem, Layer, Mapped, Memory, PagedCache, QueriesPlan, Result, Rows, Store, StorePlan, StoreSpec, Stream};
use support::{D, HEADS, KV_HEADS, PAGE};

/// Query tokens that are no long chunk.
const SHORT: usize = 32;

/// Rows of a launch of decode attention that stands for a chunk.
const BATCH: usize = 256;

/// Sequences of equal length in shuffled pages, their codes, and buffers for the launches.
struct Setup {
    batch: usize,
    len: usize,
    cache: Memory,
    /// Page tables, one a row of a launch, and the lengths of rows.
    table: Memory,
    q: Memory,
    out: Memory,
    status: Memory,
}

impl Setup {
    /// `rows`: the most query tokens of a launch.
    fn new(device: &Device, stream: &Stream, codec: Codec, layer: Option<Layer<'_>>, batch: usize, len: usize, rows: usize) -> Result<Setup> {
        let pages = batch * len / PAGE;
        let order = support::shuffled(pages);
        let cache = Memory::zeroed(device, codec.cache_bytes(pages, PAGE, KV_HEADS, D)? as usize)?;
        let status = Memory::zeroed(device, 16)?;
        let store = StorePlan::prepare(device, &StoreSpec { codec, head_dim: D, page_tokens: PAGE, elem: Elem::Bf16 })?;
        let chunk = 4096;
        let (k, v) = (Memory::from_slice(device, &support::values(chunk * KV_HEADS * D, 1))?, Memory::from_slice(device, &support::values(chunk * KV_HEADS * D, 2))?);
        let side = |m| Rows { base: m, token_stride: (KV_HEADS * D) as i64, head_stride: D as i64 };
        let paged = PagedCache { base: cache.span(), pages, page_tokens: PAGE, kv_heads: KV_HEADS, head_dim: D };
        for first in (0..pages * PAGE).step_by(chunk) {
            let slots: Vec<i64> = (first as i64..(first + chunk).min(pages * PAGE) as i64).collect();
            let own = Memory::from_slice(device, &slots)?;
            let call = Store { tokens: slots.len(), k: side(k.span()), v: side(v.span()), slots: own.span(), cache: paged, status: status.span() };
            let positions = Memory::from_slice(device, &slots.iter().map(|slot| (*slot % len as i64) as i32).collect::<Vec<i32>>())?;
            match layer {
                Some(layer) => store.launch_calibrated(stream, &call, &Mapped { layer, positions: positions.span() })?,
                None => store.launch(stream, &call)?,
            }
            stream.synchronise()?;
        }
        // Sequences one after another, then as many more times the first.
        let stride = len / PAGE;
        let table: Vec<i32> = (0..rows.max(batch))
            .flat_map(|row| {
                let b = if batch > 1 { row % batch } else { 0 };
                order[b * stride..(b + 1) * stride].to_vec()
            })
            .collect();
        let q = Memory::from_slice(device, &support::values(rows.max(batch) * HEADS * D, 3))?;
        let (out, table) = (Memory::zeroed(device, rows.max(batch) * HEADS * D * 2)?, Memory::from_slice(device, &table)?);
        Ok(Setup { batch, len, cache, table, q, out, status })
    }

    fn call<'a>(&'a self, batch: usize, lens: &'a Memory, workspace: &'a Memory) -> Decode<'a> {
        let pages = self.batch * self.len / PAGE;
        Decode {
            batch,
            q: self.q.span(),
            cache: PagedCache { base: self.cache.span(), pages, page_tokens: PAGE, kv_heads: KV_HEADS, head_dim: D },
            table: self.table.span(),
            table_stride: self.len / PAGE,
            lens: lens.span(),
            out: self.out.span(),
            lse: None,
            scale: 0.088388346,
            workspace: workspace.span(),
            status: self.status.span(),
        }
    }
}

fn measure(device: &Device, stream: &Stream, codec: Codec, layer: Option<Layer<'_>>, (batch, len, queries): (usize, usize, usize), of: usize, s: &Setup) -> Result<()> {
    let spec = DecodeSpec { codec, head_dim: D, group: HEADS / KV_HEADS, page_tokens: PAGE, elem: Elem::Bf16, splits: 0 };
    let block = std::env::var("KVF_BLOCK").ok().and_then(|v| v.parse().ok()).unwrap_or(of).min(of);
    let (many, one) = (QueriesPlan::prepare(device, &spec, block)?, DecodePlan::prepare(device, &spec)?);
    let workspace = Memory::zeroed(device, many.workspace_bytes(batch, HEADS, queries, len / PAGE)? as usize)?;
    let lens = Memory::from_slice(device, &vec![len as i32; batch])?;
    let us = support::graph_us(device, stream, 2, |st, _| match &layer {
        Some(layer) => many.launch_calibrated(st, &s.call(batch, &lens, &workspace), queries, layer),
        None => many.launch(st, &s.call(batch, &lens, &workspace), queries),
    });
    // The same rows one token at a time: a launch for each of the sequences' tokens, or many launches of a chunk's rows.
    let rows = if batch > 1 { batch } else { BATCH.min(queries) };
    let launches = batch * queries / rows;
    let space = Memory::zeroed(device, one.workspace_bytes(rows, HEADS, len / PAGE)? as usize)?;
    let of_launch = |i: usize| (0..rows).map(|row| (if batch > 1 { len - queries + i + 1 } else { len - queries + i * rows + row + 1 }) as i32).collect::<Vec<i32>>();
    let each: Vec<Memory> = (0..launches).map(|i| Memory::from_slice(device, &of_launch(i))).collect::<Result<_>>()?;
    let alone = support::graph_us(device, stream, 1, |st, _| {
        each.iter().try_for_each(|lens| match &layer {
            Some(layer) => one.launch_calibrated(st, &s.call(rows, lens, &space), layer),
            None => one.launch(st, &s.call(rows, lens, &space)),
        })
    });
    let [attend, join] = many.kernels().map(|k| k.attributes().registers);
    support::report(&serde_json::json!({
        "bench": "many_queries", "codec": codec.name(), "batch": batch, "ctx": len, "queries": queries, "block_queries": many.block_queries(), "heads": HEADS, "kv_heads": KV_HEADS, "d": D,
        "us": us, "row_by_row_us": alone, "times": alone / us, "registers": attend, "join_registers": join, "kv_bytes": batch * len / 32 * KV_HEADS * codec.info().tile_bytes(D), "device": device.name(),
    }));
    Ok(())
}

fn main() {
    let Some((device, stream)) = support::open("many_queries") else { return };
    for name in support::chosen("KVF_CODECS", "bf16,int4,e8w4,e8q38,kvfuse-4") {
        let run = || -> Result<()> {
            let codec = Codec::open(&name)?;
            let ((batch, len), (chunk, prefix)) = ((32, 8192), (2048, 32768));
            let fitted = preset(&name).map(|p| unit::calibration(&device, codec, p, KV_HEADS, prefix + chunk)).transpose()?;
            let layer = fitted.as_ref().map(|c| c.layer(0)).transpose()?;
            let s = Setup::new(&device, &stream, codec, layer, batch, len, 4 * batch)?;
            (1..=4).try_for_each(|queries| measure(&device, &stream, codec, layer, (batch, len, queries), queries, &s))?;
            drop(s);
            let s = Setup::new(&device, &stream, codec, layer, 1, prefix + chunk, chunk)?;
            // The kernel of long chunks, where it serves the codec, and the one of shorter chunks beside it.
            [chunk, SHORT].iter().try_for_each(|&of| measure(&device, &stream, codec, layer, (1, prefix + chunk, chunk), of, &s))
        };
        if let Err(e) = run() {
            println!("FAILED {name}: {e}");
        }
    }
}
