//! A layer's step over the C ABI: store and decode recorded once, then replayed by one call.
//!
//! The driver takes as long for a graph as for one launch or less, whatever the graph holds.
#![allow(unsafe_code)]

use std::ffi::c_void;
use std::sync::Arc;

use crate::argument::Misuse;
use crate::cuda::{Replay, Stream};
use crate::ffi::{guard, put};
use crate::ffi_handle::Table;
use crate::ffi_plan::PLANS;
use crate::ffi_plan_parts::Plan;
use crate::ffi_rope::rope_of;
use crate::ffi_struct::{Cache, DecodeArgs, StoreArgs, read};

static STEPS: Table<Arc<Step>> = Table::new("step");

/// What a `kvf_step` names.
struct Step {
    replay: Replay,
    // Its kernels stay loaded while they may be replayed.
    plan: Arc<Plan>,
}

/// # Safety
/// As for [`crate::ffi_plan::kvf_store`] and [`crate::ffi_plan::kvf_decode`], until the step's last launch has run; `step` is null or
/// writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvf_step_create(plan: *mut c_void, cache: *const Cache, store: *const StoreArgs, decode: *const DecodeArgs, step: *mut *mut c_void) -> i32 {
    guard(|| {
        // SAFETY: as promised; null is written first so that a failed call leaves no stale handle.
        unsafe { put(step, "step", std::ptr::null_mut()) }?;
        let plan = PLANS.get(plan)?;
        // SAFETY: the caller's promise.
        let cache: Cache = unsafe { read(cache) }?;
        if store.is_null() && decode.is_null() {
            return Err(Misuse::Other("store and decode are both null; a step needs one of them".into()).into());
        }
        // SAFETY: the caller's promise.
        let store: Option<StoreArgs> = (!store.is_null()).then(|| unsafe { read(store) }).transpose()?;
        // SAFETY: the caller's promise.
        let rope = store.as_ref().map(|store| unsafe { rope_of(store) }).transpose()?.flatten();
        // SAFETY: the caller's promise.
        let decode: Option<DecodeArgs> = (!decode.is_null()).then(|| unsafe { read(decode) }).transpose()?;
        if store.as_ref().is_none_or(|s| s.tokens == 0) && decode.as_ref().is_none_or(|d| d.batch == 0) {
            return Err(Misuse::Other("store has 0 tokens and decode a batch of 0; a step needs work to record".into()).into());
        }
        let replay = Replay::record(&plan.device.stream()?, |stream| {
            store.map_or(Ok(()), |store| plan.enqueue_store(&cache, &store, rope.as_ref(), stream))?;
            decode.map_or(Ok(()), |decode| plan.enqueue_decode(&cache, &decode, stream))
        })?;
        // SAFETY: checked by the first `put`.
        unsafe { put(step, "step", STEPS.insert(Arc::new(Step { replay, plan }))) }
    })
}

/// # Safety
/// What the step's arguments point to is live until the work has run; `stream` is null or a live stream of the plan's device.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvf_step_launch(step: *mut c_void, stream: *mut c_void) -> i32 {
    guard(|| {
        let step = STEPS.get(step)?;
        // SAFETY: the caller's promise.
        let stream = unsafe { Stream::borrow(&step.plan.device, stream) };
        step.replay.launch(&stream)
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn kvf_step_destroy(step: *mut c_void) -> i32 {
    guard(|| STEPS.remove(step))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_step_without_a_plan() {
        let mut step = std::ptr::dangling_mut();
        let null = std::ptr::null_mut();
        // SAFETY: null or live pointers.
        assert_eq!(unsafe { kvf_step_create(null, std::ptr::null(), std::ptr::null(), std::ptr::null(), &mut step) }, 1);
        assert!(step.is_null());
        // SAFETY: no step has such a handle.
        assert_eq!(unsafe { kvf_step_launch(null, null) }, 1);
        assert_eq!(kvf_step_destroy(null), 0);
    }
}
