//! Storing a prefill chunk of 8192 tokens, and a decode step of 64 sequences, beside a plain read of the same bf16 input:
//! 8 kv heads, D 128, K and V. Device events around a replayed graph over rotating buffers. Without a GPU it prints SKIPPED.
//!
//! `KVF_CODECS=int4,e8w4` chooses codecs, `KVF_TOKENS=8192,64` sizes, `KVF_RESULTS=FILE` appends JSON.

#[path = "support/mod.rs"]
mod support;

use half::bf16;
use kernels_gen::kernels::{self, Elem};
use kernels_gen::reference::CacheShape;
use kernels_gen::registry::{CodecInfo, codec};
use runtime::{Arg, Device, Memory, Stream};
use support::{D, KV_HEADS, PAGE, chosen};

/// What a prefill chunk reads: the tokens of a small launch take turns in as much memory.
const CHUNK: usize = 8192;
/// Slots of a sequence of the small launches: every token lies in a page of its own.
const STRIDE: usize = 128;

/// Rows of K and V for every turn.
struct Input {
    k: Memory,
    v: Memory,
    turns: usize,
}

impl Input {
    fn new(device: &Device, stream: &Stream) -> runtime::Result<Input> {
        let chunk = CHUNK * KV_HEADS * D * 2;
        let turns = support::copies(device, 2 * chunk);
        let rows = |seed| {
            let once = support::values(CHUNK * KV_HEADS * D, seed);
            let all: Vec<bf16> = (0..turns).flat_map(|_| once.iter().copied()).collect();
            Memory::from_slice(device, &all)
        };
        let input = Input { k: rows(1)?, v: rows(2)?, turns };
        stream.synchronise()?;
        Ok(input)
    }
}

/// Microseconds of one store of `tokens`: consecutive slots for a chunk, a page apart for a decode step.
fn store_us(device: &Device, stream: &Stream, c: &CodecInfo, tokens: usize, x: &Input) -> Result<f64, runtime::Error> {
    let slots: Vec<i64> = (0..tokens).map(|t| if tokens >= 1024 { t } else { t * STRIDE + t % 32 } as i64).collect();
    let pages = (slots.last().map_or(0, |s| *s as usize) + 1).div_ceil(PAGE);
    let shape = CacheShape { pages, page_tokens: PAGE, kv_heads: KV_HEADS, d: D };
    let bytes = shape.bytes(c);
    let turns = x.turns * (CHUNK / tokens).min(8);
    let (cache, status) = (Memory::zeroed(device, bytes * turns)?, Memory::zeroed(device, 16)?);
    let slots = Memory::from_slice(device, &slots)?;
    let kernel = device.kernel(&kernels::store(c, D, PAGE, Elem::Bf16).map_err(|e| runtime::Error::Generate(e.to_string()))?)?;
    let (ts, hs, rows) = ((KV_HEADS * D) as i64, D as i64, (tokens * KV_HEADS * D * 2) as u64);
    Ok(support::graph_us(device, stream, turns, |stream, i| {
        let (k, v) = (x.k.span().part(i as u64 * rows, rows)?, x.v.span().part(i as u64 * rows, rows)?);
        let to = cache.span().part((i * bytes) as u64, bytes as u64)?;
        let args = [
            Arg::Ptr(k),
            Arg::Ptr(v),
            Arg::Ptr(slots.span()),
            Arg::Ptr(to),
            Arg::Ptr(status.span()),
            Arg::I32(tokens as i32),
            Arg::I32(KV_HEADS as i32),
            Arg::I64((pages * PAGE) as i64),
            Arg::I64(ts),
            Arg::I64(hs),
            Arg::I64(ts),
            Arg::I64(hs),
        ];
        kernel.launch(stream, kernels::store_grid(tokens, KV_HEADS), &args)
    }))
}

fn main() {
    let Some((device, stream)) = support::open("store") else { return };
    let input = Input::new(&device, &stream).expect("memory");
    for tokens in chosen("KVF_TOKENS", "8192,64").iter().filter_map(|t| t.parse::<usize>().ok()) {
        let bytes = 4 * tokens * KV_HEADS * D;
        let read = support::read_us(&device, &stream, bytes);
        for name in chosen("KVF_CODECS", "bf16,int2,int4,e8w2,e8w4,e8q38,d4q38,e8q38/int4,int3_tried,e8w3_tried") {
            let c = codec(&name).expect("a codec");
            match store_us(&device, &stream, c, tokens, &input) {
                Ok(us) => support::report(&serde_json::json!({
                    "bench": "store", "codec": name, "tokens": tokens, "kv_heads": KV_HEADS, "d": D, "us": us, "read_us": read, "times_read": us / read,
                    "input_bytes": bytes, "written_bytes": tokens * KV_HEADS * c.tile_bytes(D) / 32, "device": device.name(),
                })),
                Err(e) => println!("FAILED {name} {tokens}: {e}"),
            }
        }
    }
}
