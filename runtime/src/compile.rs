//! From a kernel's text to a cubin: the options that fix its bits, NVRTC, and the caches before it.

use std::ffi::CString;
use std::path::PathBuf;
use std::sync::Arc;

use kernel_dsl::Source;

use crate::arch::Arch;
use crate::cache::{self, Cache, Key};
use crate::error::{Error, Result};
use crate::nvrtc::{self, Nvrtc, Resources};

/// What every kernel is compiled with. No contraction, no flushing, IEEE division and root: the text's
/// operations are the ones that run, which is what lets the CPU reproduce every bit. `-v` puts registers
/// and spills into the log.
pub const OPTIONS: [&str; 7] = ["--std=c++17", "--fmad=false", "--ftz=false", "--prec-div=true", "--prec-sqrt=true", "--ptxas-options=-v", "--diag-suppress=177"];

/// A compiled kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compiled {
    /// The machine code; a direct cubin, so the driver's own compiler is never involved.
    pub cubin: Arc<[u8]>,
    /// NVRTC's and ptxas's log.
    pub log: String,
    /// The version of the NVRTC that made it (or would have: the version is part of a cache key).
    pub nvrtc: (i32, i32),
    /// Where it came from.
    pub origin: Origin,
}

/// Where a cubin came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// NVRTC ran.
    Compiled,
    /// This process had it.
    Memory,
    /// The disk had it.
    Disk,
}

impl Compiled {
    /// What each kernel of the text uses.
    pub fn resources(&self) -> Vec<Resources> {
        nvrtc::parse(&self.log)
    }
}

/// Compiles `source` for `arch` through the process's cache. Needs no GPU. Any thread.
pub fn compile(source: &Source, arch: Arch) -> Result<Compiled> {
    compile_in(cache::shared(), source, arch)
}

/// The same through a cache of the caller's.
pub fn compile_in(cache: &Cache, source: &Source, arch: Arch) -> Result<Compiled> {
    let nvrtc = nvrtc::loaded()?;
    let key = key(source, arch)?;
    if let Some((entry, origin)) = cache.get(&key) {
        return Ok(Compiled { cubin: entry.cubin, log: entry.log, nvrtc: nvrtc.version(), origin });
    }
    let own = compiled(nvrtc, source, arch)?;
    // A compiler may miss a bound on registers by one or two: a block fewer an SM costs less than what it spills.
    let spills = |entry: &cache::Entry| nvrtc::parse(&entry.log).iter().any(Resources::spills);
    let roomier = source.roomier().filter(|_| spills(&own)).map(|source| compiled(nvrtc, &source, arch)).transpose()?;
    let entry = roomier.filter(|entry| !spills(entry)).unwrap_or(own);
    cache.put(&key, &entry);
    Ok(Compiled { cubin: entry.cubin, log: entry.log, nvrtc: nvrtc.version(), origin: Origin::Compiled })
}

fn compiled(nvrtc: &Nvrtc, source: &Source, arch: Arch) -> Result<cache::Entry> {
    let text = c_string("the kernel's text", &source.cuda)?;
    let name = c_string("the kernel's name", &format!("{}.cu", source.name))?;
    let flags = options(arch).iter().map(|o| c_string("an option", o)).collect::<Result<Vec<_>>>()?;
    let outcome = nvrtc.compile(&text, &name, &flags);
    let dump = dump(source, arch, &outcome.log, outcome.cubin.as_deref());
    match outcome.cubin {
        Some(cubin) => Ok(cache::Entry { cubin: cubin.into(), log: outcome.log }),
        None => Err(Error::Compile { kernel: source.name.clone(), arch: arch.name(), log: outcome.log, dump }),
    }
}

/// What identifies the cubin of `source` on `arch`, given the NVRTC found here.
pub fn key(source: &Source, arch: Arch) -> Result<Key> {
    Ok(Key::new(&source.cuda, &options(arch), nvrtc::version()?))
}

/// What identifies the text of `source`, whatever it is compiled for and with.
pub(crate) fn text_key(source: &Source) -> Key {
    Key::new(&source.cuda, &[], (0, 0))
}

fn options(arch: Arch) -> Vec<String> {
    let target = format!("--gpu-architecture={arch}");
    OPTIONS.iter().map(|o| o.to_string()).chain([target]).collect()
}

fn c_string(what: &str, text: &str) -> Result<CString> {
    CString::new(text).map_err(|_| Error::Generate(format!("{what} holds a zero byte")))
}

/// Writes text, log and cubin to `KVF_DUMP_DIR`, if set; returns the text's path. Errors are soft.
fn dump(source: &Source, arch: Arch, log: &str, cubin: Option<&[u8]>) -> Option<PathBuf> {
    let folder = std::env::var_os("KVF_DUMP_DIR").filter(|d| !d.is_empty()).map(PathBuf::from)?;
    let file = |ending: &str| folder.join(format!("{}.{arch}.{ending}", source.name.replace('/', "_")));
    std::fs::create_dir_all(&folder).ok()?;
    std::fs::write(file("cu"), &source.cuda).ok()?;
    std::fs::write(file("log"), log).ok()?;
    cubin.and_then(|bytes| std::fs::write(file("cubin"), bytes).ok());
    Some(file("cu"))
}
