//! An engine's layer in Rust: tokens of two sequences are stored in pages, then one query token of each attends to its own.
//!
//!     cargo run --release -p runtime --example decode -- [codec]
//!
//! The outputs are compared with the scalar reference, bit for bit where the codec promises it. Without a GPU it says so.

use kernels_gen::reference::{self, CacheShape};
use runtime::{Codec, Decode, DecodePlan, DecodeSpec, Device, Elem, Memory, PagedCache, Result, Rows, Store, StorePlan, StoreSpec, status};

const D: usize = 128;
const KV_HEADS: usize = 2;
const GROUP: usize = 4;
const PAGE: usize = 64;
const LENS: [i32; 2] = [200, 97];
const STRIDE: usize = 4;

fn main() -> Result<()> {
    let codec = Codec::open(&std::env::args().nth(1).unwrap_or("e8w4".into()))?;
    let device = match Device::open(0) {
        Ok(device) => device,
        Err(why) => return Ok(println!("SKIPPED: {why}")),
    };
    // Slow: kernels are compiled, or found in the cubin cache. An engine does this once for a model.
    let rows = StoreSpec { codec, head_dim: D, page_tokens: PAGE, elem: Elem::F32 };
    let store = StorePlan::prepare(&device, &rows)?;
    let decode = DecodePlan::prepare(&device, &DecodeSpec { codec, head_dim: D, group: GROUP, page_tokens: PAGE, elem: Elem::F32, splits: 0 })?;

    // The engine's own: pages, which sequence has which, where each token goes.
    let (pages, tokens, heads) = (2 * STRIDE, LENS.iter().sum::<i32>() as usize, GROUP * KV_HEADS);
    let table: Vec<i32> = (0..pages as i32).map(|i| (5 * i + 3) % pages as i32).collect();
    let slot = |b: usize, i: usize| (table[b * STRIDE + i / PAGE] as usize * PAGE + i % PAGE) as i64;
    let slots: Vec<i64> = (0..2).flat_map(|b| (0..LENS[b] as usize).map(move |i| (b, i))).map(|(b, i)| slot(b, i)).collect();
    let numbers = |n: usize, by: f32| (0..n).map(|i| (i as f32 * by).sin()).collect::<Vec<f32>>();
    let (k, v, q) = (numbers(tokens * KV_HEADS * D, 0.37), numbers(tokens * KV_HEADS * D, 0.11), numbers(2 * heads * D, 0.23));

    let stream = device.stream()?;
    let put = |x: &[f32]| Memory::from_slice(&device, x);
    let (gk, gv, gq, out) = (put(&k)?, put(&v)?, put(&q)?, Memory::zeroed(&device, 4 * q.len())?);
    let (gslots, gtable, lens) = (Memory::from_slice(&device, &slots)?, Memory::from_slice(&device, &table)?, Memory::from_slice(&device, &LENS)?);
    let base = Memory::zeroed(&device, codec.cache_bytes(pages, PAGE, KV_HEADS, D)? as usize)?;
    let flags = Memory::zeroed(&device, status::BYTES as usize)?;
    let workspace = Memory::zeroed(&device, decode.workspace_bytes(2, heads, STRIDE)? as usize)?;
    let cache = PagedCache { base: base.span(), pages, page_tokens: PAGE, kv_heads: KV_HEADS, head_dim: D };
    let strided = |rows| Rows { base: Memory::span(rows), token_stride: (KV_HEADS * D) as i64, head_stride: D as i64 };

    // A step: both only enqueue.
    store.launch(&stream, &Store { tokens, k: strided(&gk), v: strided(&gv), slots: gslots.span(), cache, status: flags.span() })?;
    let scale = (D as f32).sqrt().recip();
    let call = Decode { batch: 2, q: gq.span(), cache, table: gtable.span(), table_stride: STRIDE, lens: lens.span(), out: out.span(), lse: None, scale, workspace: workspace.span(), status: flags.span() };
    decode.launch(&stream, &call)?;

    let found: Vec<f32> = out.download(&stream, 0, q.len())?;
    let (shape, mut bytes) = (CacheShape { pages, page_tokens: PAGE, kv_heads: KV_HEADS, d: D }, vec![0; base.bytes()]);
    reference::store(codec.info(), &shape, &mut bytes, &k, &v, &slots);
    let wanted = reference::decode(codec.info(), &shape, &bytes, &q, heads, &table, STRIDE, &LENS, scale);
    let apart = found.iter().zip(&wanted.out).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    println!("{}: out[0] = {}, apart from the reference by {apart:e}; {}", codec.name(), found[0], status::describe(&flags.download(&stream, 0, 4)?).unwrap_or("no row was refused".into()));
    assert!(if codec.info().exact() { apart == 0.0 } else { apart < 1e-2 }, "too far apart");
    Ok(())
}
