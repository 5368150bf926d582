//! GPU against the scalar reference, bit for bit. Without a GPU each test prints SKIPPED and why.

#[path = "../support/mod.rs"]
mod support;

mod calibrated;
mod decode;
mod kivi;
mod late;
mod latent;
mod load;
mod pca;
mod prefill;
mod rope;
mod slots;
mod store;

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use kernels_gen::preset::preset;
use kernels_gen::registry::{CodecInfo, FAMILIES, codec, codecs};
use runtime::{Device, Stream};

/// The default codecs with `n` cases each, every other family and bands with a few; or those that `KVF_CODECS` names.
fn subjects(n: usize) -> Vec<(&'static CodecInfo, usize)> {
    if let Ok(names) = std::env::var("KVF_CODECS") {
        return names.split(',').filter(|name| preset(name).is_none()).map(|name| (codec(name).unwrap_or_else(|e| panic!("KVF_CODECS: {e}")), n)).collect();
    }
    let few = |name: &&str| codec(name).ok().filter(|c| codecs().iter().all(|d| d.name != c.name)).map(|c| (c, n.min(n / 20 + 8)));
    let rest = FAMILIES.iter().chain(&["e8w5+e8w4+e8w4+e8w2/e8w5+e8w3", "int4/bf16"]).filter_map(few);
    codecs().iter().map(|c| (*c, n)).chain(rest).collect()
}

/// Runs `work` for every item, several at a time and each on a stream of its own, because compiling is what takes long;
/// gives the sum of what was wrong. A panic of one item is a panic of the test.
fn side_by_side<T: Sync>(device: &Device, items: &[T], work: impl Fn(&Stream, &T) -> usize + Sync) -> usize {
    let (next, wrong) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|s| {
        for _ in 0..std::thread::available_parallelism().map_or(1, |n| n.get()).min(items.len()) {
            s.spawn(|| {
                let stream = device.stream().expect("a stream");
                while let Some(item) = items.get(next.fetch_add(1, Relaxed)) {
                    wrong.fetch_add(work(&stream, item), Relaxed);
                }
            });
        }
    });
    wrong.into_inner()
}
