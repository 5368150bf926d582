//! GPU against the scalar reference, bit for bit. Without a GPU each test prints SKIPPED and why.

#[path = "../support/mod.rs"]
mod support;

mod calibrated;
mod decode;
mod prefill;
mod slots;
mod store;

use kernels_gen::preset::preset;
use kernels_gen::registry::{CodecInfo, FAMILIES, codec, codecs};

/// The default codecs with `n` cases each, every other family and bands with a few; or those that `KVF_CODECS` names.
fn subjects(n: usize) -> Vec<(&'static CodecInfo, usize)> {
    if let Ok(names) = std::env::var("KVF_CODECS") {
        return names.split(',').filter(|name| preset(name).is_none()).map(|name| (codec(name).unwrap_or_else(|e| panic!("KVF_CODECS: {e}")), n)).collect();
    }
    let few = |name: &&str| codec(name).ok().filter(|c| codecs().iter().all(|d| d.name != c.name)).map(|c| (c, n.min(n / 20 + 8)));
    let rest = FAMILIES.iter().chain(&["e8w5+e8w4+e8w4+e8w2/e8w5+e8w3", "int4/bf16"]).filter_map(few);
    codecs().iter().map(|c| (*c, n)).chain(rest).collect()
}
