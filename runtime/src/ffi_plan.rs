//! Plans and launches over the C ABI.
#![allow(unsafe_code)]

use std::ffi::{CStr, OsStr, c_char, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use crate::argument::{Misuse, agree};
use crate::cuda::{Device, Span, Stream, is_device_address};
use crate::error::Result;
use crate::ffi::{guard, put, put_text};
use crate::ffi_calibration::of_cache;
use crate::ffi_handle::Table;
use crate::ffi_plan_parts::Plan;
use crate::ffi_rope::rope_of;
use crate::ffi_struct::{Cache, DecodeArgs, PlanDesc, RopeArgs, StoreArgs, count, read};
use crate::page::PagedCache;
use crate::plan::{Decode, Mapped, Rows, Store};
use crate::tuning;

pub(crate) static PLANS: Table<Arc<Plan>> = Table::new("plan");

/// # Safety
/// `desc` is null or a filled `kvf_plan_desc`; `plan` is null or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvf_plan_create(desc: *const PlanDesc, plan: *mut *mut c_void) -> i32 {
    guard(|| {
        // SAFETY: as promised; null is written first so that a failed call leaves no stale handle.
        unsafe { put(plan, "plan", std::ptr::null_mut()) }?;
        // SAFETY: the caller's promise.
        let made = Plan::new(&unsafe { read(desc) }?)?;
        // SAFETY: checked by the first `put`.
        unsafe { put(plan, "plan", PLANS.insert(Arc::new(made))) }
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn kvf_plan_destroy(plan: *mut c_void) -> i32 {
    guard(|| PLANS.remove(plan))
}

/// # Safety
/// `path` is null or a terminated string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvf_tuning_load(path: *const c_char) -> i32 {
    guard(|| {
        if path.is_null() {
            tuning::forget();
            return Ok(());
        }
        // SAFETY: not null, terminated by the caller's promise.
        let path = unsafe { CStr::from_ptr(path) };
        tuning::load(Path::new(OsStr::from_bytes(path.to_bytes())))
    })
}

/// # Safety
/// As for [`crate::ffi::kvf_doctor`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvf_plan_tuning(plan: *mut c_void, buffer: *mut c_char, capacity: u64, needed: *mut u64) -> i32 {
    guard(|| {
        let plan = PLANS.get(plan)?;
        // SAFETY: the caller's promise.
        unsafe { put_text(plan.decode()?.tuning(), buffer, capacity, needed) }
    })
}

/// # Safety
/// `bytes` is null or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvf_workspace_bytes(plan: *mut c_void, batch: i32, table_stride: i32, bytes: *mut u64) -> i32 {
    guard(|| {
        let plan = PLANS.get(plan)?;
        let need = plan.decode()?.workspace_bytes(count("batch", batch)?, plan.heads, count("table_stride", table_stride)?)?;
        // SAFETY: the caller's promise.
        unsafe { put(bytes, "bytes", need) }
    })
}

/// # Safety
/// `bytes` is null or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvf_queries_workspace_bytes(plan: *mut c_void, batch: i32, queries: i32, table_stride: i32, bytes: *mut u64) -> i32 {
    guard(|| {
        let plan = PLANS.get(plan)?;
        let (batch, queries) = (count("batch", batch)?, count("queries", queries)?);
        let need = plan.queries()?.workspace_bytes(batch, plan.heads, queries, count("table_stride", table_stride)?)?;
        // SAFETY: the caller's promise.
        unsafe { put(bytes, "bytes", need) }
    })
}

/// # Safety
/// `bytes` is null or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvf_store_workspace_bytes(plan: *mut c_void, tokens: i64, bytes: *mut u64) -> i32 {
    guard(|| {
        let plan = PLANS.get(plan)?;
        if plan.rope.is_none() {
            plan.store()?;
        }
        count("tokens", tokens)?;
        // SAFETY: the caller's promise.
        unsafe { put(bytes, "bytes", 0) }
    })
}

/// # Safety
/// The structs are null or filled; what they point to is device memory as the header asks, live until
/// the work has run; `stream` is null or a live stream of the plan's device.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvf_store(plan: *mut c_void, cache: *const Cache, args: *const StoreArgs, stream: *mut c_void) -> i32 {
    guard(|| {
        let plan = PLANS.get(plan)?;
        // SAFETY: the caller's promise.
        let (cache, args): (Cache, StoreArgs) = unsafe { (read(cache)?, read(args)?) };
        // SAFETY: the caller's promise.
        let (rope, stream) = unsafe { (rope_of(&args)?, Stream::borrow(&plan.device, stream)) };
        plan.enqueue_store(&cache, &args, rope.as_ref(), &stream)
    })
}

/// # Safety
/// As for [`kvf_store`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvf_decode(plan: *mut c_void, cache: *const Cache, args: *const DecodeArgs, stream: *mut c_void) -> i32 {
    guard(|| {
        let plan = PLANS.get(plan)?;
        // SAFETY: the caller's promise.
        let (cache, args) = unsafe { (read(cache)?, read(args)?) };
        // SAFETY: the caller's promise.
        let stream = unsafe { Stream::borrow(&plan.device, stream) };
        plan.enqueue_decode(&cache, &args, &stream)
    })
}

/// Strided rows whose size C does not tell.
pub(crate) fn rows(base: *const c_void, token_stride: i64, head_stride: i64) -> Rows<'static> {
    Rows { base: unknown(base), token_stride, head_stride }
}

/// Device memory of a known size.
pub(crate) fn span(address: *const c_void, bytes: u64) -> Span<'static> {
    // SAFETY: the caller of the C function promised live memory of that size.
    unsafe { Span::from_raw(address as u64, bytes) }
}

/// Device memory whose size C does not tell.
pub(crate) fn unknown<T>(address: *const T) -> Span<'static> {
    span(address.cast(), u64::MAX)
}

impl Plan {
    /// What `kvf_store` enqueues.
    pub fn enqueue_store(&self, cache: &Cache, args: &StoreArgs, rope: Option<&RopeArgs>, stream: &Stream) -> Result<()> {
        let calibration = of_cache(cache)?;
        let call = Store {
            tokens: count("tokens", args.tokens)?,
            k: rows(args.k, args.k_token_stride, args.k_head_stride),
            v: rows(args.v, args.v_token_stride, args.v_head_stride),
            slots: unknown(args.slots),
            cache: self.cache(cache)?,
            status: unknown(args.status),
        };
        if call.tokens > 0 {
            let spans = [call.k.base, call.v.base, call.slots, call.cache.base, call.status];
            self.expect_device(["k", "v", "slots", "the cache", "status"].into_iter().zip(spans))?;
        }
        let layer = calibration.as_ref().map(|own| own.on_device(cache, self.device.ordinal())).transpose()?;
        if let Some(rope) = rope {
            return self.enqueue_rope(&call, args, rope, layer, stream);
        }
        let Some(layer) = layer else { return self.store()?.launch(stream, &call) };
        let positions = unknown(args.positions);
        if call.tokens > 0 {
            self.expect_device([("positions", positions)].into_iter())?;
        }
        self.store()?.launch_calibrated(stream, &call, &Mapped { layer, positions })
    }

    /// What `kvf_decode` enqueues.
    pub fn enqueue_decode(&self, cache: &Cache, args: &DecodeArgs, stream: &Stream) -> Result<()> {
        let calibration = of_cache(cache)?;
        let call = Decode {
            batch: count("batch", args.batch)?,
            q: unknown(args.q),
            cache: self.cache(cache)?,
            table: unknown(args.table),
            table_stride: count("table_stride", args.table_stride)?,
            lens: unknown(args.lens),
            out: unknown(args.out),
            lse: (!args.lse.is_null()).then(|| unknown(args.lse)),
            scale: args.scale,
            workspace: span(args.workspace, args.workspace_bytes),
            status: unknown(args.status),
        };
        if call.batch > 0 {
            let spans = [call.q, call.cache.base, call.table, call.lens, call.out, call.workspace, call.status];
            let names = ["q", "the cache", "table", "lens", "out", "workspace", "status"];
            self.expect_device(names.into_iter().zip(spans).chain(call.lse.map(|lse| ("lse", lse))))?;
        }
        let queries = count("queries", args.queries)?;
        match &calibration {
            None if queries > 1 => self.queries()?.launch(stream, &call, queries),
            None => self.decode()?.launch(stream, &call),
            Some(own) => {
                let layer = own.on_device(cache, self.device.ordinal())?;
                if queries > 1 { self.queries()?.launch_calibrated(stream, &call, queries, &layer) } else { self.decode()?.launch_calibrated(stream, &call, &layer) }
            }
        }
    }

    pub fn cache(&self, cache: &Cache) -> Result<PagedCache<'static>> {
        let found = paged(cache)?;
        agree("kv_heads", found.kv_heads, self.kv_heads, "plan")?;
        Ok(found)
    }

    pub fn expect_device(&self, spans: impl Iterator<Item = (&'static str, Span<'static>)>) -> Result<()> {
        if self.checked { expect_known(&self.device, spans) } else { Ok(()) }
    }
}

/// Fails where CUDA does not know an address; null is for others to refuse.
pub(crate) fn expect_known(device: &Device, mut spans: impl Iterator<Item = (&'static str, Span<'static>)>) -> Result<()> {
    spans.try_for_each(|(what, span)| {
        if span.address() == 0 || is_device_address(device, span.address())? {
            return Ok(());
        }
        let text = format!("{what} is at {:#x}, which CUDA does not know; pass a device address", span.address());
        Err(Misuse::Other(text).into())
    })
}

fn paged(cache: &Cache) -> Result<PagedCache<'static>> {
    Ok(PagedCache {
        base: span(cache.base, cache.bytes),
        pages: count("pages", cache.pages)?,
        page_tokens: count("page_tokens", cache.page_tokens)?,
        kv_heads: count("kv_heads", cache.kv_heads)?,
        head_dim: count("head_dim", cache.head_dim)?,
    })
}
