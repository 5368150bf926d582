//! Stored rows given back over the C ABI, on the device and on the host.
#![allow(unsafe_code)]

use std::ffi::c_void;

use kernels_gen::reference;

use crate::argument::{int, product};
use crate::cuda::Stream;
use crate::ffi::guard;
use crate::ffi_codec::CODECS;
use crate::ffi_plan::{PLANS, unknown};
use crate::ffi_reference::{bytes_of, host_shape, raise, values, write_numbers};
use crate::ffi_struct::{Cache, LoadArgs, count, elem, read};
use crate::plan::{Load, size_of_elem};

/// # Safety
/// As for [`crate::ffi_plan::kvf_store`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvf_load(plan: *mut c_void, cache: *const Cache, args: *const LoadArgs, stream: *mut c_void) -> i32 {
    guard(|| {
        let plan = PLANS.get(plan)?;
        // SAFETY: the caller's promise.
        let (cache, args): (Cache, LoadArgs) = unsafe { (read(cache)?, read(args)?) };
        let call = Load { tokens: count("tokens", args.tokens)?, slots: unknown(args.slots), cache: plan.cache(&cache)?, k: unknown(args.k), v: unknown(args.v), status: unknown(args.status) };
        if call.tokens > 0 {
            let spans = [call.k, call.v, call.slots, call.cache.base, call.status];
            plan.expect_device(["k", "v", "slots", "the cache", "status"].into_iter().zip(spans))?;
        }
        // SAFETY: the caller's promise.
        plan.load()?.launch(&unsafe { Stream::borrow(&plan.device, stream) }, &call)
    })
}

/// # Safety
/// The structs are null or filled, what they point to is host memory of the sizes the header asks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvf_ref_load(codec: *mut c_void, dtype: i32, cache: *const Cache, args: *const LoadArgs) -> i32 {
    guard(|| {
        let (codec, elem) = (CODECS.get(codec)?, elem(dtype)?);
        // SAFETY: the caller's promise.
        let (cache, args): (Cache, LoadArgs) = unsafe { (read(cache)?, read(args)?) };
        let shape = host_shape(&codec, &cache)?;
        codec.check_load(shape.d, shape.page_tokens)?;
        let tokens = count("tokens", args.tokens)?;
        if tokens == 0 {
            return Ok(());
        }
        int("tokens", tokens)?;
        let (width, bytes) = (shape.kv_heads * shape.d, bytes_of(codec, &shape)?);
        let numbers = product("the rows", &[tokens, width])? as usize;
        // SAFETY: the caller's promise; `host_shape` checked the cache's pointer and size.
        let (slots, cache) = unsafe { (values("slots", args.slots, tokens)?, std::slice::from_raw_parts(cache.base.cast::<u8>(), bytes)) };
        // Before anything is written, and whichever tokens are stored.
        for (what, to) in [("k", args.k), ("v", args.v)] {
            // SAFETY: no number is written.
            unsafe { write_numbers(what, to, elem, &[]) }?;
        }
        let (mut k, mut v) = (vec![0.0; numbers], vec![0.0; numbers]);
        let status = reference::load(codec.info(), &shape, cache, &slots, &mut k, &mut v);
        let stored = |slot: i64| slot >= 0 && slot < (shape.pages * shape.page_tokens) as i64;
        for (what, to, rows) in [("k", args.k, &k), ("v", args.v, &v)] {
            for (token, row) in rows.chunks(width).enumerate().filter(|(token, _)| stored(slots[*token])) {
                // SAFETY: the caller's promise.
                unsafe { write_numbers(what, to.wrapping_byte_add(token * width * size_of_elem(elem)), elem, row) }?;
            }
        }
        // SAFETY: likewise.
        unsafe { raise(args.status, status) }
    })
}
