//! What this machine has, and what will therefore run where: the first thing to ask a user for.

use std::fmt;

use crate::arch::Arch;
use crate::cache;
use crate::cuda::{Device, device_count, driver_version, mapped_files};
use crate::nvrtc;

/// One GPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gpu {
    /// Its number.
    pub ordinal: usize,
    /// Its name.
    pub name: String,
    /// What kernels are compiled for.
    pub arch: Arch,
    /// Streaming multiprocessors.
    pub multiprocessors: usize,
    /// Bytes of L2 cache.
    pub l2_bytes: usize,
    /// Bytes of shared memory a block may use.
    pub shared_bytes: usize,
    /// Bytes of device memory, (free, total).
    pub memory_bytes: (usize, usize),
}

/// The findings; `Display` prints them, one line each.
#[derive(Clone, Debug)]
pub struct Doctor {
    /// This library's version.
    pub version: &'static str,
    /// The GPUs, or why there are none.
    pub gpus: Result<Vec<Gpu>, String>,
    /// The CUDA version the driver serves.
    pub driver: Option<(i32, i32)>,
    /// The libcuda files loaded.
    pub libcuda: Vec<String>,
    /// NVRTC's version, or why there is none.
    pub nvrtc: Result<(i32, i32), String>,
    /// The libnvrtc file loaded.
    pub libnvrtc: Option<String>,
    /// The cubin cache's folder, or why the disk is not used.
    pub cache: Result<String, String>,
    /// Cubins in it, and their bytes.
    pub cached: (usize, u64),
}

/// Looks. Opens every device (retaining its primary context) and loads NVRTC; otherwise changes nothing.
pub fn doctor() -> Doctor {
    let gpus = device_count().and_then(|n| (0..n).map(gpu).collect()).map_err(|e| e.to_string());
    let cache = cache::shared();
    Doctor {
        version: env!("CARGO_PKG_VERSION"),
        gpus,
        driver: driver_version().ok(),
        libcuda: mapped_files("libcuda.so"),
        nvrtc: nvrtc::version().map_err(|e| e.to_string()),
        libnvrtc: nvrtc::file(),
        cache: cache.folder().map(|f| f.display().to_string()).map_err(str::to_string),
        cached: cache.usage(),
    }
}

fn gpu(ordinal: usize) -> crate::Result<Gpu> {
    let device = Device::open(ordinal)?;
    Ok(Gpu { ordinal, name: device.name().to_string(), arch: device.arch(), multiprocessors: device.multiprocessors(), l2_bytes: device.l2_bytes(), shared_bytes: device.shared_bytes(), memory_bytes: device.memory_bytes()? })
}

impl Doctor {
    /// What will run where, in one sentence.
    pub fn verdict(&self) -> String {
        let served = self.gpus.as_ref().is_ok_and(|gpus| gpus.iter().any(|g| g.arch.served()));
        let gpus = self.gpus.as_ref().is_ok_and(|gpus| !gpus.is_empty());
        match (served, gpus, self.nvrtc.is_ok()) {
            (true, _, true) => "store and decode run on the GPU; the scalar reference runs on the CPU",
            (true, _, false) => "only the scalar reference runs: there is a GPU, but no NVRTC to compile for it",
            (false, true, _) => "only the scalar reference runs: no GPU here is sm_80 or later",
            (false, false, true) => "only the scalar reference runs; kernels compile here, for any GPU",
            (false, false, false) => "only the scalar reference runs: no GPU, no NVRTC",
        }
        .to_string()
    }
}

impl fmt::Display for Doctor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "kvfuse   {}", self.version)?;
        match &self.gpus {
            Ok(gpus) => gpus.iter().try_for_each(|g| writeln!(f, "gpu {}    {g}", g.ordinal))?,
            Err(why) => writeln!(f, "gpu      none: {why}")?,
        }
        match self.driver {
            Some((major, minor)) => writeln!(f, "driver   CUDA {major}.{minor}, {}", self.libcuda.join(", "))?,
            None => writeln!(f, "driver   none")?,
        }
        match &self.nvrtc {
            Ok((major, minor)) => writeln!(f, "nvrtc    {major}.{minor}, {}", self.libnvrtc.as_deref().unwrap_or("file not known"))?,
            Err(why) => writeln!(f, "nvrtc    none: {why}")?,
        }
        match &self.cache {
            Ok(folder) => writeln!(f, "cache    {folder}: {} cubins, {} KiB", self.cached.0, self.cached.1 / 1024)?,
            Err(why) => writeln!(f, "cache    {why}")?,
        }
        write!(f, "verdict  {}", self.verdict())
    }
}

impl fmt::Display for Gpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |bytes: usize| bytes >> 20;
        let Gpu { name, arch, multiprocessors, memory_bytes: (free, total), .. } = self;
        write!(f, "{name}, {arch}, {multiprocessors} multiprocessors, L2 {} MiB, ", mib(self.l2_bytes))?;
        write!(f, "{} of {} MiB free", mib(*free), mib(*total))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_never_fails() {
        let found = doctor();
        let text = found.to_string();
        for head in ["kvfuse", "gpu", "driver", "nvrtc", "cache", "verdict"] {
            assert!(text.lines().any(|l| l.starts_with(head)), "{head} in {text}");
        }
    }
}
