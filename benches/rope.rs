//! Norm, RoPE and store of a prefill chunk of 8192 tokens, and of a decode step of 64 sequences: in one launch, and as a
//! kernel that normalises and turns queries and keys followed by a store. 32 query heads, 8 kv heads, D 128, bf16 rows
//! [q | k | v] as a projection leaves them. Device events around a replayed graph over rotating buffers. Without a GPU it
//! prints SKIPPED.
//!
//! `KVF_CODECS=int4,e8w4` chooses codecs, `KVF_TOKENS=8192,64` sizes, `KVF_RESULTS=FILE` appends JSON.

#[path = "support/mod.rs"]
mod support;

use half::bf16;
use kernels_gen::kernels::rope::Rope;
use kernels_gen::kernels::{self, Elem};
use kernels_gen::reference::CacheShape;
use kernels_gen::registry::{CodecInfo, codec};
use runtime::{Arg, Codec, Device, Memory, PagedCache, Result, RopePlan, RopeSpec, Roped, Rows, Store, StorePlan, StoreSpec, Stream};
use support::{D, KV_HEADS, PAGE, chosen};

const CHUNK: usize = 8192;
const GROUP: usize = 4;
const HEADS: usize = GROUP * KV_HEADS;
/// Numbers of a token's row.
const WIDTH: usize = (HEADS + 2 * KV_HEADS) * D;
const EPSILON: f32 = 1e-6;
/// Slots of a sequence of the small launches: every token lies in a page of its own.
const STRIDE: usize = 128;
/// What Qwen3 has.
const QWEN3: Rope = Rope { dims: D, pairs: false, norm: true, weights: true, table_elem: 4, group: GROUP, keys: false };

/// Everything but the cache, for every turn.
struct Input {
    rows: Memory,
    table: Memory,
    weight: Memory,
    /// Queries and keys, turned.
    turned: Memory,
    status: Memory,
    turns: usize,
}

impl Input {
    fn new(device: &Device, stream: &Stream) -> Result<Input> {
        let chunk = CHUNK * WIDTH * 2;
        let turns = support::copies(device, chunk);
        let once = support::values(CHUNK * WIDTH, 1);
        let all: Vec<bf16> = (0..turns).flat_map(|_| once.iter().copied()).collect();
        let angle = |i: usize| (i / D) as f64 * 1e6_f64.powf(-2.0 * (i % (D / 2)) as f64 / D as f64);
        let table: Vec<f32> = (0..CHUNK * D).map(|i| (if i % D < D / 2 { angle(i).cos() } else { angle(i).sin() }) as f32).collect();
        let input = Input {
            rows: Memory::from_slice(device, &all)?,
            table: Memory::from_slice(device, &table)?,
            weight: Memory::from_slice(device, &[1.1_f32; D])?,
            turned: Memory::zeroed(device, turns * CHUNK * (HEADS + KV_HEADS) * D * 2)?,
            status: Memory::zeroed(device, 16)?,
            turns,
        };
        stream.synchronise()?;
        Ok(input)
    }
}

/// Microseconds: fused with queries, and without; norm and RoPE of queries and keys, then a store; of keys alone, then a
/// store; a store alone.
fn times(device: &Device, stream: &Stream, c: &'static CodecInfo, tokens: usize, x: &Input) -> Result<[f64; 5]> {
    let slots: Vec<i64> = (0..tokens).map(|t| if tokens >= 1024 { t } else { t * STRIDE + t % 32 } as i64).collect();
    let pages = (slots.last().map_or(0, |s| *s as usize) + 1).div_ceil(PAGE);
    let bytes = CacheShape { pages, page_tokens: PAGE, kv_heads: KV_HEADS, d: D }.bytes(c);
    let turns = x.turns * (CHUNK / tokens).min(8);
    let cache = Memory::zeroed(device, bytes * turns)?;
    let slots = Memory::from_slice(device, &slots)?;
    let positions = Memory::from_slice(device, &(0..tokens as i32).collect::<Vec<i32>>())?;
    let codec = Codec::open(c.name)?;
    let spec = StoreSpec { codec, head_dim: D, page_tokens: PAGE, elem: Elem::Bf16 };
    let fused = [GROUP, 0].map(|group| RopePlan::prepare(device, &RopeSpec { store: spec, rope: Rope { group, ..QWEN3 } }));
    let (store, alone) = (StorePlan::prepare(device, &spec)?, kernels::turn_heads(c, D, PAGE, Elem::Bf16, QWEN3));
    let alone = device.kernel(&alone.map_err(|e| runtime::Error::Generate(e.to_string()))?)?;
    let row = (tokens * WIDTH * 2) as u64;
    // The rows of a turn from a head on, and where queries and keys go.
    let from = |i: usize, head: usize| -> Result<Rows<'_>> {
        let skip = (head * D * 2) as u64;
        Ok(Rows { base: x.rows.span().part(i as u64 * row + skip, row - skip)?, token_stride: WIDTH as i64, head_stride: D as i64 })
    };
    let out = |i: usize, heads: usize| x.turned.span().part((i * tokens * (HEADS + KV_HEADS) * D * 2) as u64, (tokens * heads * D * 2) as u64);
    let call = |i: usize| -> Result<Store<'_>> {
        let base = cache.span().part((i * bytes) as u64, bytes as u64)?;
        let cache = PagedCache { base, pages, page_tokens: PAGE, kv_heads: KV_HEADS, head_dim: D };
        Ok(Store { tokens, k: from(i, HEADS)?, v: from(i, HEADS + KV_HEADS)?, slots: slots.span(), cache, status: x.status.span() })
    };
    let roped = |i: usize| -> Result<Roped<'_>> {
        let weight = Some(x.weight.span());
        Ok(Roped { positions: positions.span(), table: x.table.span(), turns: CHUNK, epsilon: EPSILON, k_weight: weight, q_weight: weight, q: Some(from(i, 0)?), q_out: Some(out(i, HEADS)?), k_out: None })
    };
    // Heads of a row from `first` on, which may be queries and keys.
    let turn = |stream: &Stream, i: usize, first: usize, heads: usize| -> Result<()> {
        let args = [
            Arg::Ptr(from(i, first)?.base),
            Arg::I64(WIDTH as i64),
            Arg::I64(D as i64),
            Arg::Ptr(positions.span()),
            Arg::Ptr(x.table.span()),
            Arg::I32(CHUNK as i32),
            Arg::F32(EPSILON),
            Arg::Ptr(x.weight.span()),
            Arg::Ptr(out(i, heads)?),
            Arg::I32(tokens as i32),
            Arg::I32(heads as i32),
        ];
        alone.launch(stream, [tokens.div_ceil(32) as u32, heads as u32, 1], &args)
    };
    let then = |stream: &Stream, i: usize, heads: usize| -> Result<()> {
        let all = out(i, heads)?;
        let skip = ((heads - KV_HEADS) * D * 2) as u64;
        let k = Rows { base: all.part(skip, all.bytes() - skip)?, token_stride: (heads * D) as i64, head_stride: D as i64 };
        store.launch(stream, &Store { k, ..call(i)? })
    };
    let [with_q, without] = fused;
    let (with_q, without) = (with_q?, without?);
    Ok([
        support::graph_us(device, stream, turns, |stream, i| with_q.launch(stream, &call(i)?, &roped(i)?, None)),
        support::graph_us(device, stream, turns, |stream, i| without.launch(stream, &call(i)?, &roped(i)?, None)),
        support::graph_us(device, stream, turns, |stream, i| turn(stream, i, 0, HEADS + KV_HEADS).and_then(|()| then(stream, i, HEADS + KV_HEADS))),
        support::graph_us(device, stream, turns, |stream, i| turn(stream, i, HEADS, KV_HEADS).and_then(|()| then(stream, i, KV_HEADS))),
        support::graph_us(device, stream, turns, |stream, i| store.launch(stream, &call(i)?)),
    ])
}

fn main() {
    let Some((device, stream)) = support::open("rope") else { return };
    let input = Input::new(&device, &stream).expect("memory");
    for tokens in chosen("KVF_TOKENS", "8192,64").iter().filter_map(|t| t.parse::<usize>().ok()) {
        for name in chosen("KVF_CODECS", "bf16,int4,e8w4,e8q38,turboquant_4bit_nc") {
            match times(&device, &stream, codec(&name).expect("a codec"), tokens, &input) {
                Ok([fused, fused_keys, apart, apart_keys, store]) => support::report(&serde_json::json!({
                    "bench": "rope", "codec": name, "tokens": tokens, "heads": HEADS, "kv_heads": KV_HEADS, "d": D,
                    "fused_us": fused, "apart_us": apart, "fused_keys_us": fused_keys, "apart_keys_us": apart_keys, "store_us": store, "device": device.name(),
                })),
                Err(e) => println!("FAILED {name} {tokens}: {e}"),
            }
        }
    }
}
