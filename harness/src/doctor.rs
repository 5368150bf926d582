//! What this machine has, as the runtime sees it, and whether the harness finds its model.

use serde_json::json;

use crate::assets;

#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// print one json object instead of lines
    #[arg(long)]
    pub json: bool,
}

/// Never fails: what is missing is part of the answer.
pub fn run(options: &Options) -> String {
    let found = runtime::doctor();
    let assets = assets::folder();
    if !options.json {
        return match assets {
            Ok(folder) => format!("{found}\nassets   {}", folder.display()),
            Err(why) => format!("{found}\nassets   none: {why}"),
        };
    }
    let gpus: Vec<_> = found
        .gpus
        .iter()
        .flatten()
        .map(|gpu| {
            json!({
                "ordinal": gpu.ordinal, "name": gpu.name, "arch": gpu.arch.name(), "multiprocessors": gpu.multiprocessors,
                "l2_bytes": gpu.l2_bytes, "shared_bytes": gpu.shared_bytes, "free_bytes": gpu.memory_bytes.0, "total_bytes": gpu.memory_bytes.1,
            })
        })
        .collect();
    let codecs: Vec<_> = kernels_gen::registry::codecs().iter().map(|c| json!({ "name": c.name, "exact": c.exact(), "stored_bits_per_element_d128": c.stored_bits_per_element(128) })).collect();
    let version = |(major, minor): (i32, i32)| format!("{major}.{minor}");
    let text = json!({
        "version": found.version,
        "gpus": gpus,
        "no_gpu": found.gpus.as_ref().err(),
        "driver": found.driver.map(version),
        "libcuda": found.libcuda,
        "nvrtc": found.nvrtc.as_ref().ok().copied().map(version),
        "no_nvrtc": found.nvrtc.as_ref().err(),
        "libnvrtc": found.libnvrtc,
        "cache": found.cache.as_ref().ok(),
        "no_cache": found.cache.as_ref().err(),
        "cached_cubins": found.cached.0,
        "cached_bytes": found.cached.1,
        "assets": assets.as_ref().ok().map(|p| p.display().to_string()),
        "no_assets": assets.as_ref().err().map(|e| e.to_string()),
        "codecs": codecs,
        "verdict": found.verdict(),
    });
    format!("{text:#}")
}
