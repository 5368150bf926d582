//! How long a model's kernels take to be written as CUDA and to be compiled, and to come back from the disk: store, decode
//! attention and both joins at D 128 with four query heads a kv head. Needs NVRTC, no GPU; without it it prints SKIPPED.
//!
//! `KVF_CODECS=int4,e8w4` chooses codecs, `KVF_ARCH=sm_90a` the target.

use criterion::{Criterion, SamplingMode};
use kernel_dsl::{Report, Source};
use kernels_gen::kernels::{Elem, decode_attention, join_meta, join_of, store};
use kernels_gen::registry::{CodecInfo, codec};
use runtime::Arch;
use runtime::cache::Cache;
use runtime::compile::compile_in;
use std::time::Duration;

const D: usize = 128;
const PAGE: usize = 64;

/// The kernels of a model of that codec.
fn sources(c: &CodecInfo) -> Result<Vec<(&'static str, Source)>, Report> {
    let wide = join_meta(D, PAGE);
    Ok(vec![("store", store(c, D, PAGE, Elem::Bf16)?), ("decode", decode_attention(c, D, 4, PAGE, Elem::Bf16)?), ("join", join_of(c, &wide, Elem::Bf16)?), ("narrow join", join_of(c, &wide.narrow(), Elem::Bf16)?)])
}

fn main() {
    if let Err(why) = runtime::nvrtc::version() {
        return println!("SKIPPED compile_time: {why}");
    }
    let named = std::env::var("KVF_CODECS").unwrap_or_else(|_| "bf16,int4,e8w4,e8q38".into());
    let arch = std::env::var("KVF_ARCH").unwrap_or_else(|_| "sm_90a".into());
    let arch = Arch::parse(&arch).unwrap_or_else(|| panic!("KVF_ARCH: {arch}; write it as NVRTC does, for example sm_90a"));
    let folder = std::env::temp_dir().join(format!("kvf-compile-time-{}", std::process::id()));
    let mut criterion = Criterion::default().sample_size(10).warm_up_time(Duration::from_millis(1)).measurement_time(Duration::from_millis(1)).configure_from_args();
    for name in named.split(',') {
        let c = codec(name).unwrap_or_else(|e| panic!("KVF_CODECS: {e}"));
        let mut group = criterion.benchmark_group(format!("compile_time {name}"));
        group.sampling_mode(SamplingMode::Flat);
        group.bench_function("text", |b| b.iter(|| sources(c).expect("it builds")));
        let all = sources(c).expect("it builds");
        for (kernel, source) in &all {
            group.bench_function(*kernel, |b| b.iter(|| compile_in(&Cache::in_memory(), source, arch).expect("it compiles")));
        }
        let start = || all.iter().for_each(|(_, source)| drop(compile_in(&Cache::at(&folder), source, arch).expect("it compiles")));
        start();
        group.bench_function("from the disk", |b| b.iter(start));
        group.finish();
    }
    let _ = std::fs::remove_dir_all(&folder);
}
