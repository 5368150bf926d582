//! Blocks of the PCA codec over the C ABI: the host codes them.
#![allow(unsafe_code)]

use std::ffi::c_void;

use crate::argument::{Misuse, product};
use crate::error::Result;
use crate::ffi::guard;
use crate::ffi_codec::CODECS;
use crate::ffi_reference::{values, write};
use crate::ffi_struct::count;

/// # Safety
/// `k` and `v` are null or `tokens` rows of `head_dim` numbers, `page` is null or as many bytes as `kvf_block_bytes` says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvf_encode_block(codec: *mut c_void, head_dim: i32, k: *const f32, v: *const f32, page: *mut u8) -> i32 {
    // SAFETY: the caller's promise.
    guard(|| unsafe { encode(codec, head_dim, None, k, v, page) })
}

/// # Safety
/// As for [`kvf_encode_block`]; `bases` is null or a page likewise.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvf_encode_block_under(codec: *mut c_void, head_dim: i32, bases: *const u8, k: *const f32, v: *const f32, page: *mut u8) -> i32 {
    // SAFETY: the caller's promise.
    guard(|| unsafe { encode(codec, head_dim, Some(bases), k, v, page) })
}

/// # Safety
/// As for [`kvf_encode_block_under`].
unsafe fn encode(codec: *mut c_void, head_dim: i32, bases: Option<*const u8>, k: *const f32, v: *const f32, page: *mut u8) -> Result<()> {
    let (codec, d) = (CODECS.get(codec)?, count("head_dim", head_dim)?);
    // Fails for a codec without blocks before anything is read.
    let tokens = codec.block_tokens()?;
    let bytes = codec.block_bytes(d, tokens)?;
    let n = product("the rows", &[tokens, d])? as usize;
    // SAFETY: the caller's promise.
    let bases = bases.map(|bases| unsafe { values("bases", bases, bytes) }).transpose()?;
    // SAFETY: likewise.
    let rows = |what, x| -> Result<Vec<f32>> { unsafe { values(what, x, n) } };
    let bytes = codec.encode_block_under(d, bases.as_deref(), &rows("k", k)?, &rows("v", v)?)?;
    // SAFETY: likewise.
    unsafe { write("page", page, &bytes) }
}

/// # Safety
/// `k` and `v` are null or `tokens` rows of `head_dim` numbers, `page` is null or as many bytes as `kvf_block_bytes` says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvf_fit_bases(codec: *mut c_void, head_dim: i32, tokens: i64, k: *const f32, v: *const f32, page: *mut u8) -> i32 {
    guard(|| {
        let (codec, d) = (CODECS.get(codec)?, count("head_dim", head_dim)?);
        codec.check_store(d, codec.block_tokens()?)?;
        let tokens = usize::try_from(tokens).map_err(|_| Misuse::Other(format!("{tokens} tokens; give at least two")))?;
        let n = product("the rows", &[tokens, d])? as usize;
        // SAFETY: the caller's promise.
        let rows = |what, x| -> Result<Vec<f32>> { unsafe { values(what, x, n) } };
        let bytes = codec.fit_bases(d, &rows("k", k)?, &rows("v", v)?)?;
        // SAFETY: likewise.
        unsafe { write("page", page, &bytes) }
    })
}
