//! Merging attention states over the C ABI, on the device and on the host.
#![allow(unsafe_code)]

use std::ffi::c_void;

use kernels_gen::reference;

use crate::argument::{int, product};
use crate::cuda::Stream;
use crate::ffi::guard;
use crate::ffi_plan::{PLANS, unknown};
use crate::ffi_reference::{numbers_of, values, write, write_numbers};
use crate::ffi_struct::{MergeArgs, count, elem, read};
use crate::plan::{Merge, MergePlan, State};

/// # Safety
/// As for [`crate::ffi_plan::kvf_store`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvf_merge(plan: *mut c_void, args: *const MergeArgs, stream: *mut c_void) -> i32 {
    guard(|| {
        let plan = PLANS.get(plan)?;
        // SAFETY: the caller's promise.
        let args: MergeArgs = unsafe { read(args) }?;
        let state = |out: *const c_void, lse: *const f32| State { out: unknown(out), lse: unknown(lse) };
        let (a, b, into) = (state(args.a, args.a_lse), state(args.b, args.b_lse), state(args.out, args.lse));
        let call = Merge { rows: count("rows", args.rows)?, a, b, into };
        if call.rows > 0 {
            let spans = [("a", a.out), ("a_lse", a.lse), ("b", b.out), ("b_lse", b.lse), ("out", into.out), ("lse", into.lse)];
            plan.expect_device(spans.into_iter())?;
        }
        // SAFETY: the caller's promise.
        let stream = unsafe { Stream::borrow(&plan.device, stream) };
        plan.merge()?.launch(&stream, &call)
    })
}

/// # Safety
/// The struct is null or filled, what it points to is host memory of the sizes the header asks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvf_ref_merge(dtype: i32, head_dim: i32, args: *const MergeArgs) -> i32 {
    guard(|| {
        let (elem, d) = (elem(dtype)?, count("head_dim", head_dim)?);
        MergePlan::check_dim(d)?;
        // SAFETY: the caller's promise.
        let args: MergeArgs = unsafe { read(args) }?;
        let rows = count("rows", args.rows)?;
        if rows == 0 {
            return Ok(());
        }
        int("rows", rows)?;
        let n = product("the rows", &[rows, d])? as usize;
        // SAFETY: the caller's promise, for each of these.
        let (a, x, b, y) = unsafe { (numbers_of("a", args.a, elem, n)?, values("a_lse", args.a_lse, rows)?, numbers_of("b", args.b, elem, n)?, values("b_lse", args.b_lse, rows)?) };
        let (out, lse) = reference::merge((&a, &x), (&b, &y), d);
        // SAFETY: likewise.
        unsafe {
            write_numbers("out", args.out, elem, &out)?;
            write("lse", args.lse, &lse)
        }
    })
}
