//! Is there a driver, and what does it say: every other file here goes through these checks.

use std::sync::OnceLock;

use cudarc::driver::{DriverError, result, sys};

use crate::error::{Error, Result};

/// Fails where libcuda is missing, which cudarc would answer with a panic.
pub(super) fn present() -> Result<()> {
    static PRESENT: OnceLock<bool> = OnceLock::new();
    // SAFETY: only opens and closes the library; libcuda's initialisers have no precondition.
    if *PRESENT.get_or_init(|| unsafe { sys::is_culib_present() }) { Ok(()) } else { Err(Error::NoDriver) }
}

/// The driver's error in our words.
pub(super) fn failed(doing: &'static str, error: DriverError) -> Error {
    let text = match error.error_string() {
        Ok(text) => text.to_string_lossy().into_owned(),
        Err(_) => format!("{:?}", error.0),
    };
    Error::Driver { doing, code: error.0 as i32, text }
}

/// cuInit, and an error that says so when there is a driver but no GPU.
pub(super) fn initialise() -> Result<()> {
    present()?;
    result::init().map_err(|e| match e.0 {
        sys::CUresult::CUDA_ERROR_NO_DEVICE => Error::NoDevice { ordinal: 0, count: 0 },
        _ => failed("initialising", e),
    })
}

/// Whether the loaded driver has `symbol` (calling a missing one through cudarc panics).
pub(super) fn has_symbol(symbol: &str) -> bool {
    // SAFETY: `present` holds wherever this is called; the symbol is looked up and not called.
    present().is_ok() && unsafe { sys::culib().get::<unsafe extern "C" fn()>(symbol.as_bytes()).is_ok() }
}

/// How many devices the driver lists.
pub fn device_count() -> Result<usize> {
    initialise()?;
    let count = result::device::get_count().map_err(|e| failed("counting devices", e))?;
    Ok(usize::try_from(count).unwrap_or(0))
}

/// The CUDA version the driver serves, as (major, minor).
pub fn driver_version() -> Result<(i32, i32)> {
    present()?;
    let mut version = 0;
    // SAFETY: the library is present and the pointer is to a local int.
    unsafe { sys::cuDriverGetVersion(&mut version) }.result().map_err(|e| failed("asking the driver's version", e))?;
    Ok((version / 1000, version % 1000 / 10))
}

/// The files mapped into this process whose path contains `stem`: which library was really loaded.
pub fn mapped_files(stem: &str) -> Vec<String> {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let mut files: Vec<String> = maps.lines().filter_map(|l| l.split_whitespace().nth(5)).filter(|p| p.contains(stem)).map(str::to_string).collect();
    files.sort();
    files.dedup();
    files
}
