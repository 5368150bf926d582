//! The scalar reference on one core, without a GPU: rows coded a second, and decode attention of one sequence of 2048 tokens,
//! 8 query heads, 2 kv heads, D 128. It is what tests compare with, so its time is theirs.
//!
//! `KVF_CODECS=int4,e8w4` chooses codecs.

use criterion::{BenchmarkId, Criterion, Throughput};
use kernels_gen::reference::{CacheShape, decode, store};
use kernels_gen::registry::codec;
use std::time::Duration;

const D: usize = 128;
const HEADS: usize = 8;
const KV_HEADS: usize = 2;
const TOKENS: usize = 2048;
const PAGE: usize = 64;

/// Numbers between -1 and 1.
fn values(count: usize, mut seed: u64) -> Vec<f32> {
    let mut next = || {
        seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (seed >> 40) as f32 / (1_u32 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

fn main() {
    let named = std::env::var("KVF_CODECS").unwrap_or_else(|_| "bf16,int4,e8w4,e8q38,turboquant_4bit_nc".into());
    let mut criterion = Criterion::default().sample_size(10).warm_up_time(Duration::from_millis(1)).measurement_time(Duration::from_millis(1)).configure_from_args();
    let (k, v, q) = (values(TOKENS * KV_HEADS * D, 1), values(TOKENS * KV_HEADS * D, 2), values(HEADS * D, 3));
    let (slots, table): (Vec<i64>, Vec<i32>) = ((0..TOKENS as i64).collect(), (0..(TOKENS / PAGE) as i32).collect());
    let shape = CacheShape { pages: TOKENS / PAGE, page_tokens: PAGE, kv_heads: KV_HEADS, d: D };
    let mut group = criterion.benchmark_group("reference");
    group.throughput(Throughput::Elements((2 * TOKENS * KV_HEADS * D) as u64));
    for name in named.split(',') {
        let c = codec(name).unwrap_or_else(|e| panic!("KVF_CODECS: {e}"));
        let mut cache = vec![0; shape.bytes(c)];
        group.bench_function(BenchmarkId::new("store", name), |b| b.iter(|| store(c, &shape, &mut cache, &k, &v, &slots)));
        store(c, &shape, &mut cache, &k, &v, &slots);
        let run = || decode(c, &shape, &cache, &q, HEADS, &table, table.len(), &[TOKENS as i32], 0.088388346);
        group.bench_function(BenchmarkId::new("decode", name), |b| b.iter(run));
    }
    group.finish();
}
