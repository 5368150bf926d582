//! Calibrations over the C ABI: a file's maps on the host, and on a device unless only the reference is to use them.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_char, c_void};
use std::sync::Arc;

use kernels_gen::preset::{Shape, Turns};
use kernels_gen::reference;

use crate::argument::{Misuse, agree, within};
use crate::calibration::{Calibration, Layer, Layers, fold, same};
use crate::codec::Codec;
use crate::cuda::Device;
use crate::error::Result;
use crate::ffi::{guard, put};
use crate::ffi_codec::CODECS;
use crate::ffi_handle::Table;
use crate::ffi_struct::{Cache, CalibrationDesc, count, read};

static CALIBRATIONS: Table<Arc<Fitted>> = Table::new("calibration");

/// What a `kvf_calibration` names.
pub(crate) struct Fitted {
    codec: Codec,
    layers: Layers,
    turns: Turns,
    /// With its ordinal.
    device: Option<(usize, Calibration)>,
}

/// # Safety
/// `desc` is null or a filled `kvf_calibration_desc`, its strings null or terminated; `calibration` is null or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvf_calibration_load(desc: *const CalibrationDesc, calibration: *mut *mut c_void) -> i32 {
    guard(|| {
        // SAFETY: as promised; null is written first so that a failed call leaves no stale handle.
        unsafe { put(calibration, "calibration", std::ptr::null_mut()) }?;
        // SAFETY: the caller's promise, for the struct and its strings.
        let desc = unsafe { read(desc) }?;
        // SAFETY: likewise.
        let (path, model) = unsafe { (text(desc.path), text(desc.model)) };
        let loaded = Fitted::new(&desc, path, model)?;
        // SAFETY: checked by the first `put`.
        unsafe { put(calibration, "calibration", CALIBRATIONS.insert(Arc::new(loaded))) }
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn kvf_calibration_close(calibration: *mut c_void) -> i32 {
    guard(|| CALIBRATIONS.remove(calibration))
}

/// # Safety
/// `codec` is null or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvf_calibration_codec(calibration: *mut c_void, layer: i32, codec: *mut *mut c_void) -> i32 {
    guard(|| {
        // SAFETY: as promised; null is written first so that a failed call leaves no stale handle.
        unsafe { put(codec, "codec", std::ptr::null_mut()) }?;
        let own = CALIBRATIONS.get(calibration)?.codec_of(count("layer", layer)?)?;
        // SAFETY: checked by the first `put`.
        unsafe { put(codec, "codec", CODECS.insert(own)) }
    })
}

/// # Safety
/// `from` is null or a terminated string.
unsafe fn text(from: *const c_char) -> Option<String> {
    // SAFETY: not null, terminated by the caller's promise.
    (!from.is_null()).then(|| unsafe { CStr::from_ptr(from) }.to_string_lossy().into_owned())
}

/// The calibration that a cache names, if any.
pub(crate) fn of_cache(cache: &Cache) -> Result<Option<Arc<Fitted>>> {
    if cache.calibration.is_null() { Ok(None) } else { CALIBRATIONS.get(cache.calibration).map(Some) }
}

impl Fitted {
    fn new(desc: &CalibrationDesc, path: Option<String>, model: Option<String>) -> Result<Fitted> {
        let codec = CODECS.get(desc.codec)?;
        codec.calibrated()?;
        let path = path.ok_or(Misuse::Null { what: "path", want: "the name of a calibration's file" })?;
        let (most, kv_heads) = (count("layers", desc.layers)?, count("kv_heads", desc.kv_heads)?);
        let shape = Shape { layers: most, kv_heads, d: count("head_dim", desc.head_dim)? };
        within("layers", most, 1, i32::MAX as usize)?;
        let missing = |why| Misuse::Other(format!("the calibration {path} cannot be read: {why}; run `harness calibrate` for the model"));
        let file = std::fs::read(&path).map_err(missing)?;
        let (layers, turns) = fold(codec, &file, shape, model.as_deref(), count("positions", desc.positions)?)?;
        let device = match usize::try_from(desc.device) {
            Err(_) if desc.device == -1 => None,
            Err(_) => return Err(Misuse::Range { what: "device", value: i64::from(desc.device), allowed: "an ordinal, or -1 for none".into() }.into()),
            Ok(ordinal) => Some((ordinal, Calibration::upload(&Device::open(ordinal)?, codec, &layers, &turns)?)),
        };
        Ok(Fitted { codec, layers, turns, device })
    }

    /// A layer on the device of a plan.
    pub fn on_device(&self, cache: &Cache, ordinal: usize) -> Result<Layer<'_>> {
        let none = || Misuse::Other("the calibration was loaded for no device; give kvf_calibration_load the plan's".into());
        let (own, calibration) = self.device.as_ref().ok_or_else(none)?;
        agree("the device of the calibration", *own, ordinal, "plan")?;
        calibration.layer(count("layer", cache.layer)?)
    }

    /// A layer for the reference over a cache of that codec and shape.
    pub fn on_host(&self, cache: &Cache, codec: Codec) -> Result<reference::Calibrated<'_>> {
        let index = count("layer", cache.layer)?;
        same(self.codec_of(index)?, codec, index)?;
        let maps = &self.layers[index].1;
        agree("kv_heads", count("kv_heads", cache.kv_heads)?, maps.kv_heads, "calibration")?;
        agree("head_dim", count("head_dim", cache.head_dim)?, maps.d, "calibration")?;
        Ok(reference::Calibrated { codec: codec.info(), maps, turns: &self.turns })
    }

    fn codec_of(&self, index: usize) -> Result<Codec> {
        within("layer", index, 0, self.layers.len() - 1)?;
        Ok(Codec::fitted(self.codec.calibrated()?, self.layers[index].0))
    }

    /// Segments that it has turns for.
    pub fn segments(&self) -> usize {
        self.turns.pairs.len() / (self.layers[0].1.d / 2)
    }
}
