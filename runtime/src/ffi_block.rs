//! Blocks of the PCA codec over the C ABI: the host codes them.
#![allow(unsafe_code)]

use std::ffi::c_void;

use crate::argument::product;
use crate::error::Result;
use crate::ffi::guard;
use crate::ffi_codec::CODECS;
use crate::ffi_reference::{values, write};
use crate::ffi_struct::count;

/// # Safety
/// `k` and `v` are null or `tokens` rows of `head_dim` numbers, `page` is null or as many bytes as `kvf_block_bytes` says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvf_encode_block(codec: *mut c_void, head_dim: i32, k: *const f32, v: *const f32, page: *mut u8) -> i32 {
    guard(|| {
        let (codec, d) = (CODECS.get(codec)?, count("head_dim", head_dim)?);
        // Fails for a codec without blocks before anything is read.
        let tokens = codec.block_tokens()?;
        codec.check_store(d, tokens)?;
        let n = product("the rows", &[tokens, d])? as usize;
        // SAFETY: the caller's promise.
        let rows = |what, x| -> Result<Vec<f32>> { unsafe { values(what, x, n) } };
        let bytes = codec.encode_block(d, &rows("k", k)?, &rows("v", v)?)?;
        // SAFETY: likewise.
        unsafe { write("page", page, &bytes) }
    })
}
