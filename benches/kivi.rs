//! A step of KIVI's cache beside int2 and int4: attention over the coded prefix, over the raw window, and their merge; and the
//! store of 8192 tokens. 8 kv heads of 4 query heads each, D 128, cold L2. Times are device events around a replayed graph.
//!
//! `KVF_SHAPES=32x8192` chooses shapes (sequences x tokens), `KVF_CODECS=kivi_k2v2,int2` codecs, `KVF_RESULTS=FILE` appends JSON.
//! `KVF_WARPS`, `KVF_STAGES` and `KVF_MIN_BLOCKS` change what the plan would choose. Without a GPU it prints SKIPPED.

#[path = "support/mod.rs"]
mod support;

use kernels_gen::kernels::decode_attention::DecodeMeta;
use kernels_gen::kernels::kivi::decode_meta;
use runtime::{Codec, Decode, DecodePlan, DecodeSpec, Device, Elem, Memory, Merge, MergePlan, PagedCache, Result, Rows, Span, State, Store, StorePlan, StoreSpec, Stream};
use support::{D, HEADS, KV_HEADS, PAGE, chosen};

/// Tokens of a stored chunk.
const CHUNK: usize = 8192;

/// Attention over a cache, as many copies of it as the L2 does not hold.
struct Attention {
    plan: DecodePlan,
    cache: Memory,
    table: Memory,
    lens: Memory,
    q: Memory,
    workspace: Memory,
    status: Memory,
    batch: usize,
    pages: usize,
    stride: usize,
    copies: usize,
    /// Bytes of a copy.
    bytes: usize,
    /// Microseconds of the store of 8192 tokens.
    store: f64,
}

fn paged(base: Span<'_>, pages: usize) -> PagedCache<'_> {
    PagedCache { base, pages, page_tokens: PAGE, kv_heads: KV_HEADS, head_dim: D }
}

impl Attention {
    /// Sequences of `len` tokens.
    fn new(device: &Device, stream: &Stream, name: &str, batch: usize, len: usize) -> Result<Attention> {
        let (codec, pages) = (Codec::open(name)?, batch * len.div_ceil(PAGE));
        let bytes = codec.cache_bytes(pages, PAGE, KV_HEADS, D)? as usize;
        let copies = support::copies(device, bytes);
        let cache = Memory::zeroed(device, bytes * copies)?;
        let status = Memory::zeroed(device, 16)?;
        let chunk = (pages * PAGE).min(CHUNK);
        let [k, v] = [1, 2].map(|seed| Memory::from_slice(device, &support::values(chunk * KV_HEADS * D, seed)));
        let (k, v, slots) = (k?, v?, Memory::from_slice(device, &(0..chunk as i64).collect::<Vec<i64>>())?);
        let store = StorePlan::prepare(device, &StoreSpec { codec, head_dim: D, page_tokens: PAGE, elem: Elem::Bf16 })?;
        let rows = |memory| Rows { base: Memory::span(memory), token_stride: (KV_HEADS * D) as i64, head_stride: D as i64 };
        let size = codec.cache_bytes(chunk / PAGE, PAGE, KV_HEADS, D)?;
        let put = |stream: &Stream, part: usize| {
            let cache = paged(cache.span().part(part as u64 * size, size)?, chunk / PAGE);
            store.launch(stream, &Store { tokens: chunk, k: rows(&k), v: rows(&v), slots: slots.span(), cache, status: status.span() })
        };
        let parts = pages * PAGE * copies / chunk;
        (0..parts).try_for_each(|part| put(stream, part))?;
        let store_us = support::graph_us(device, stream, parts.min(8), &put);
        let stride = len.div_ceil(PAGE);
        let (table, lens) = (Memory::from_slice(device, &support::shuffled(pages))?, Memory::from_slice(device, &vec![len as i32; batch])?);
        let q = Memory::from_slice(device, &support::values(batch * HEADS * D, 3))?;
        let spec = DecodeSpec { codec, head_dim: D, group: HEADS / KV_HEADS, page_tokens: PAGE, elem: Elem::Bf16, splits: 0 };
        let number = |name: &str| std::env::var(name).ok().and_then(|v| v.parse().ok());
        let [warps, stages, min_blocks] = ["KVF_WARPS", "KVF_STAGES", "KVF_MIN_BLOCKS"].map(number);
        let plan = match codec.kivi() {
            Some(kivi) if warps.or(stages).or(min_blocks).is_some() => {
                let own = decode_meta(kivi, D, HEADS / KV_HEADS, PAGE);
                DecodePlan::with_meta(device, &spec, DecodeMeta { warps: warps.unwrap_or(own.warps), stages: stages.unwrap_or(own.stages), min_blocks: min_blocks.unwrap_or(own.min_blocks), ..own })?
            }
            _ => DecodePlan::prepare(device, &spec)?,
        };
        let workspace = Memory::zeroed(device, plan.workspace_bytes(batch, HEADS, stride)? as usize)?;
        Ok(Attention { plan, cache, table, lens, q, workspace, status, batch, pages, stride, copies, bytes, store: store_us })
    }

    /// Over the `i`-th copy, join included; the outputs go to `state`.
    fn launch(&self, stream: &Stream, i: usize, state: State<'_>) -> Result<()> {
        let cache = paged(self.cache.span().part((i % self.copies * self.bytes) as u64, self.bytes as u64)?, self.pages);
        let call = Decode {
            batch: self.batch,
            q: self.q.span(),
            cache,
            table: self.table.span(),
            table_stride: self.stride,
            lens: self.lens.span(),
            out: state.out,
            lse: Some(state.lse),
            scale: 0.088388346,
            workspace: self.workspace.span(),
            status: self.status.span(),
        };
        self.plan.launch(stream, &call)
    }
}

fn main() -> Result<()> {
    let Some((device, stream)) = support::open("kivi") else { return Ok(()) };
    for shape in chosen("KVF_SHAPES", "32x8192,8x32768") {
        let (batch, len) = shape.split_once('x').and_then(|(b, n)| Some((b.parse().ok()?, n.parse().ok()?))).unwrap_or_else(|| panic!("KVF_SHAPES: {shape}; write sequences x tokens, such as 32x8192"));
        let states = [(); 3].map(|()| Ok::<_, runtime::Error>((Memory::zeroed(&device, batch * HEADS * D * 2)?, Memory::zeroed(&device, batch * HEADS * 4)?)));
        let [a, b, c] = states;
        let states = [a?, b?, c?];
        let state = |i: usize| -> State<'_> { State { out: Memory::span(&states[i].0), lse: Memory::span(&states[i].1) } };
        // The window holds 128 tokens to 159.
        let window = Attention::new(&device, &stream, "bf16", batch, 160)?;
        let window_us = support::graph_us(&device, &stream, window.copies.max(4), |stream, i| window.launch(stream, i, state(1)));
        for name in chosen("KVF_CODECS", "kivi_k2v2,int2,kivi_k4v4,int4,bf16") {
            let coded = Attention::new(&device, &stream, &name, batch, len)?;
            let us = support::graph_us(&device, &stream, coded.copies.max(4), |stream, i| coded.launch(stream, i, state(0)));
            let floor = support::read_us(&device, &stream, coded.bytes);
            let mut line = serde_json::json!({
                "bench": "kivi", "codec": name, "shape": shape, "batch": batch, "ctx": len, "heads": HEADS, "kv_heads": KV_HEADS, "d": D, "us": us, "read_us": floor,
                "share_of_ceiling": floor / us, "kv_bytes": coded.bytes, "store_8192_us": coded.store, "device": device.name(),
            });
            if name.starts_with("kivi") {
                let merge = MergePlan::prepare(&device, D, Elem::Bf16)?;
                let join = |stream: &Stream| merge.launch(stream, &Merge { rows: batch * HEADS, a: state(0), b: state(1), into: state(2) });
                line["window_us"] = window_us.into();
                line["merge_us"] = support::graph_us(&device, &stream, 8, |stream, _| join(stream)).into();
                // All of it in a row, as an engine has it.
                let step = |stream: &Stream, i: usize| window.launch(stream, i, state(1)).and_then(|()| coded.launch(stream, i, state(0))).and_then(|()| join(stream));
                line["step_us"] = support::graph_us(&device, &stream, coded.copies.max(4), step).into();
            }
            support::report(&line);
        }
    }
    Ok(())
}
