//! Slots over the C ABI.
#![allow(unsafe_code)]

use std::ffi::c_void;

use kernels_gen::kernels::slots::slot_bytes;

use crate::argument::agree;
use crate::cuda::Stream;
use crate::error::Result;
use crate::ffi::{guard, put};
use crate::ffi_codec::CODECS;
use crate::ffi_plan::{PLANS, rows, span, unknown};
use crate::ffi_plan_parts::Plan;
use crate::ffi_struct::{Cache, MoveArgs, Slots, StoreArgs, count, read};
use crate::plan::{MoveSlots, SlotCache, SlotsPlan, StoreSlots};

/// # Safety
/// `bytes` is null or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvf_slot_bytes(codec: *mut c_void, head_dim: i32, bytes: *mut u64) -> i32 {
    guard(|| {
        let (codec, head_dim) = (CODECS.get(codec)?, count("head_dim", head_dim)?);
        codec.check_slots(head_dim, 1, 32)?;
        // SAFETY: the caller's promise.
        unsafe { put(bytes, "bytes", slot_bytes(codec.info(), head_dim) as u64) }
    })
}

/// # Safety
/// As for [`crate::ffi_plan::kvf_store`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvf_store_slots(plan: *mut c_void, slots: *const Slots, args: *const StoreArgs, stream: *mut c_void) -> i32 {
    guard(|| {
        let plan = PLANS.get(plan)?;
        // SAFETY: the caller's promise.
        let (slots, args): (Slots, StoreArgs) = unsafe { (read(slots)?, read(args)?) };
        let call = StoreSlots {
            tokens: count("tokens", args.tokens)?,
            k: rows(args.k, args.k_token_stride, args.k_head_stride),
            v: rows(args.v, args.v_token_stride, args.v_head_stride),
            slots: unknown(args.slots),
            cache: cache_of(&plan, &slots)?,
            status: unknown(args.status),
        };
        if call.tokens > 0 {
            let spans = [call.k.base, call.v.base, call.slots, call.cache.base, call.status];
            plan.expect_device(["k", "v", "slots", "the cache of slots", "status"].into_iter().zip(spans))?;
        }
        // SAFETY: the caller's promise.
        let stream = unsafe { Stream::borrow(&plan.device, stream) };
        plan.slots()?.store(&stream, &call)
    })
}

/// # Safety
/// As for [`crate::ffi_plan::kvf_store`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvf_import_slots(plan: *mut c_void, slots: *const Slots, cache: *const Cache, args: *const MoveArgs, stream: *mut c_void) -> i32 {
    // SAFETY: the caller's promise.
    guard(|| unsafe { shift(plan, slots, cache, args, stream, SlotsPlan::import) })
}

/// # Safety
/// As for [`crate::ffi_plan::kvf_store`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvf_export_slots(plan: *mut c_void, slots: *const Slots, cache: *const Cache, args: *const MoveArgs, stream: *mut c_void) -> i32 {
    // SAFETY: the caller's promise.
    guard(|| unsafe { shift(plan, slots, cache, args, stream, SlotsPlan::export) })
}

/// # Safety
/// As for [`crate::ffi_plan::kvf_store`].
unsafe fn shift(plan: *mut c_void, slots: *const Slots, cache: *const Cache, args: *const MoveArgs, stream: *mut c_void, launch: fn(&SlotsPlan, &Stream, &MoveSlots<'_>) -> Result<()>) -> Result<()> {
    let plan = PLANS.get(plan)?;
    // SAFETY: the caller's promise.
    let (slots, cache, args): (Slots, Cache, MoveArgs) = unsafe { (read(slots)?, read(cache)?, read(args)?) };
    let call = MoveSlots { tokens: count("tokens", args.tokens)?, at: unknown(args.slots), places: unknown(args.places), slots: cache_of(&plan, &slots)?, tiles: plan.cache(&cache)?, status: unknown(args.status) };
    if call.tokens > 0 {
        let spans = [call.at, call.places, call.slots.base, call.tiles.base, call.status];
        plan.expect_device(["slots", "places", "the cache of slots", "the cache", "status"].into_iter().zip(spans))?;
    }
    // SAFETY: the caller's promise.
    let stream = unsafe { Stream::borrow(&plan.device, stream) };
    launch(plan.slots()?, &stream, &call)
}

fn cache_of(plan: &Plan, slots: &Slots) -> Result<SlotCache<'static>> {
    let found = SlotCache {
        base: span(slots.base, slots.bytes),
        pages: count("pages", slots.pages)?,
        page_tokens: count("page_tokens", slots.page_tokens)?,
        kv_heads: count("kv_heads", slots.kv_heads)?,
        page_stride: slots.page_stride,
        token_stride: slots.token_stride,
        head_stride: slots.head_stride,
    };
    agree("kv_heads", found.kv_heads, plan.kv_heads, "plan")?;
    Ok(found)
}
