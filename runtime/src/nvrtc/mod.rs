//! The CUDA compiler as a library: finding it, and reading what it says.
//!
//! It needs neither a GPU nor a driver, so every kernel can be compiled and gated on a plain machine.

mod find;
mod log;

pub(crate) use find::{CUBLASLT, candidates_of};
pub use find::{Candidate, candidates};
pub use log::{Resources, parse};

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use crate::cuda::mapped_files;
pub(crate) use crate::cuda::nvrtc::Nvrtc;
use crate::error::{Error, Places, Result};

static LOADED: Mutex<Option<&'static Nvrtc>> = Mutex::new(None);

/// The process's NVRTC; found and opened by the first call that succeeds.
pub(crate) fn loaded() -> Result<&'static Nvrtc> {
    let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(nvrtc) = *loaded {
        return Ok(nvrtc);
    }
    let nvrtc: &'static Nvrtc = Box::leak(Box::new(open_first(&candidates(&|name| std::env::var_os(name)))?));
    *loaded = Some(nvrtc);
    Ok(nvrtc)
}

/// NVRTC's version as (major, minor).
pub fn version() -> Result<(i32, i32)> {
    Ok(loaded()?.version())
}

/// The file behind it, as the loader mapped it.
pub fn file() -> Option<String> {
    mapped_files("libnvrtc").into_iter().find(|f| !f.contains("builtins"))
}

fn open_first(candidates: &[Candidate]) -> Result<Nvrtc> {
    for candidate in candidates {
        match Nvrtc::open(&candidate.file) {
            Ok(nvrtc) => return Ok(nvrtc),
            // A file that the user named must load; the loader's own search may come up empty.
            Err(why) if candidate.named => return Err(Error::NvrtcLoad { path: candidate.file.clone(), why }),
            Err(_) => {}
        }
    }
    let is_path = |p: &Path| p.components().count() > 1;
    Err(Error::NoNvrtc(Places(candidates.iter().map(|c| c.file.clone()).filter(|p| is_path(p)).collect())))
}
