//! Codecs over the C ABI.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_char, c_void};
use std::sync::LazyLock;

use kernels_gen::registry::codecs;

use crate::argument::{Misuse, within};
use crate::codec::Codec;
use crate::error::Result;
use crate::ffi::{guard, put};
use crate::ffi_handle::Table;
use crate::ffi_reference;
use crate::ffi_struct::count;

pub(crate) static CODECS: Table<Codec> = Table::new("codec");

static NAMES: LazyLock<Vec<CString>> = LazyLock::new(|| codecs().iter().map(|c| CString::new(c.name).unwrap_or_default()).collect());

/// # Safety
/// `name` is null or a terminated string; `codec` is null or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvf_codec_open(name: *const c_char, codec: *mut *mut c_void) -> i32 {
    guard(|| {
        // SAFETY: as promised; null is written first so that a failed call leaves no stale handle.
        unsafe { put(codec, "codec", std::ptr::null_mut()) }?;
        if name.is_null() {
            return Err(Misuse::Null { what: "name", want: "a codec's name" }.into());
        }
        // SAFETY: not null, terminated by the caller's promise.
        let name = unsafe { CStr::from_ptr(name) }.to_string_lossy();
        let opened = Codec::open(&name)?;
        // SAFETY: checked by the first `put`.
        unsafe { put(codec, "codec", CODECS.insert(opened)) }
    })
}

/// # Safety
/// As for [`kvf_codec_open`]; `keys` and `values` are null or as many levels as their counts say.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvf_codec_open_fitted(name: *const c_char, keys: *const f32, n_keys: i32, values: *const f32, n_values: i32, codec: *mut *mut c_void) -> i32 {
    guard(|| {
        // SAFETY: as promised.
        unsafe { put(codec, "codec", std::ptr::null_mut()) }?;
        if name.is_null() {
            return Err(Misuse::Null { what: "name", want: "a codec's name" }.into());
        }
        // SAFETY: not null, terminated by the caller's promise.
        let name = unsafe { CStr::from_ptr(name) }.to_string_lossy();
        // A table has 16 levels at most.
        let levels = |what, x: *const f32, n| -> Result<Option<Vec<f32>>> {
            within(what, count(what, n)?, 0, 16)?;
            // SAFETY: the caller's promise.
            if x.is_null() { Ok(None) } else { unsafe { ffi_reference::values(what, x, n as usize) }.map(Some) }
        };
        let (keys, values) = (levels("levels of keys", keys, n_keys)?, levels("levels of values", values, n_values)?);
        let opened = Codec::open_fitted(&name, keys.as_deref(), values.as_deref())?;
        // SAFETY: checked by the first `put`.
        unsafe { put(codec, "codec", CODECS.insert(opened)) }
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn kvf_codec_close(codec: *mut c_void) -> i32 {
    guard(|| CODECS.remove(codec))
}

#[unsafe(no_mangle)]
pub extern "C" fn kvf_codec_count() -> i32 {
    codecs().len() as i32
}

/// Null past the last.
#[unsafe(no_mangle)]
pub extern "C" fn kvf_codec_name(index: i32) -> *const c_char {
    let name = usize::try_from(index).ok().and_then(|i| NAMES.get(i));
    name.map_or(std::ptr::null(), |n| n.as_ptr())
}

/// # Safety
/// `bytes` is null or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvf_block_bytes(codec: *mut c_void, head_dim: i32, page_tokens: i32, bytes: *mut u64) -> i32 {
    guard(|| {
        let codec = CODECS.get(codec)?;
        let block = codec.block_bytes(dim(head_dim)?, count("page_tokens", page_tokens)?)?;
        // SAFETY: the caller's promise.
        unsafe { put(bytes, "bytes", block as u64) }
    })
}

/// # Safety
/// `bits` is null or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvf_stored_bits_per_element(codec: *mut c_void, head_dim: i32, bits: *mut f64) -> i32 {
    guard(|| {
        let stored = CODECS.get(codec)?.stored_bits_per_element(dim(head_dim)?)?;
        // SAFETY: the caller's promise.
        unsafe { put(bits, "bits", stored) }
    })
}

/// # Safety
/// `exact` is null or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvf_codec_exact(codec: *mut c_void, exact: *mut i32) -> i32 {
    guard(|| {
        let promise = CODECS.get(codec)?.info().exact();
        // SAFETY: the caller's promise.
        unsafe { put(exact, "exact", i32::from(promise)) }
    })
}

fn dim(head_dim: i32) -> Result<usize> {
    let dim = count("head_dim", head_dim)?;
    within("head_dim", dim, 1, 1 << 16)?;
    Ok(dim)
}
