//! Rows of one head that is key and value at once, over the C ABI: plans, store, decode, and the same by the scalar reference.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_char, c_void};
use std::sync::Arc;

use kernels_gen::latent::{DIM, Format, Integers, LEAF, List, Problem, format};

use crate::argument::{Misuse, int, product, within};
use crate::cuda::{Device, Span, Stream};
use crate::error::{Error, Result};
use crate::ffi::{guard, put};
use crate::ffi_handle::Table;
use crate::ffi_plan::{expect_known, span, unknown};
use crate::ffi_reference::{numbers_of, raise, values, write, write_numbers};
use crate::ffi_struct::{LatentCache, LatentDecodeArgs, LatentDesc, LatentStoreArgs, count, read};
use crate::plan::{DecodeLatent, LatentList, LatentPlan, LatentRows, LatentShape, StoreLatent, finite};
use kernels_gen::kernels::Elem;
use kernels_gen::reference::Status;

/// `KVF_PLAN_CHECKED`, the one flag that such a plan has.
const CHECKED: i32 = 4;

static LATENTS: Table<Arc<Latent>> = Table::new("latent plan");

/// What a `kvf_latent` names.
struct Latent {
    device: Device,
    checked: bool,
    plan: LatentPlan,
}

/// # Safety
/// `name` is null or a terminated string; `bytes` is null or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvf_latent_row_bytes(name: *const c_char, bytes: *mut u64) -> i32 {
    guard(|| {
        // SAFETY: the caller's promise.
        let format = unsafe { named(name) }?;
        // SAFETY: the caller's promise.
        unsafe { put(bytes, "bytes", format.row_bytes() as u64) }
    })
}

/// # Safety
/// `desc` is null or a filled `kvf_latent_desc`; `latent` is null or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvf_latent_create(desc: *const LatentDesc, latent: *mut *mut c_void) -> i32 {
    guard(|| {
        // SAFETY: as promised; null is written first so that a failed call leaves no stale handle.
        unsafe { put(latent, "latent", std::ptr::null_mut()) }?;
        // SAFETY: the caller's promise.
        let desc: LatentDesc = unsafe { read(desc) }?;
        // SAFETY: the caller's promise.
        let format = unsafe { named(desc.format) }?;
        if desc.flags & !CHECKED != 0 {
            let allowed = "0 or KVF_PLAN_CHECKED (4)".into();
            return Err(Misuse::Range { what: "flags", value: i64::from(desc.flags), allowed }.into());
        }
        // Before the device is asked for: the format is the caller's, whatever the machine.
        LatentPlan::check_format(&format)?;
        let device = Device::open(count("device", desc.device)?)?;
        let made = Latent { plan: LatentPlan::prepare(&device, &format)?, checked: desc.flags & CHECKED != 0, device };
        // SAFETY: checked by the first `put`.
        unsafe { put(latent, "latent", LATENTS.insert(Arc::new(made))) }
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn kvf_latent_destroy(latent: *mut c_void) -> i32 {
    guard(|| LATENTS.remove(latent))
}

/// # Safety
/// `args` is null or filled; `bytes` is null or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvf_latent_workspace_bytes(latent: *mut c_void, args: *const LatentDecodeArgs, bytes: *mut u64) -> i32 {
    guard(|| {
        LATENTS.get(latent)?;
        // SAFETY: the caller's promise.
        let need = shape(&unsafe { read(args) }?)?.workspace_bytes()?;
        // SAFETY: the caller's promise.
        unsafe { put(bytes, "bytes", need) }
    })
}

/// # Safety
/// The structs are null or filled; what they point to is device memory as the header asks, live until
/// the work has run; `stream` is null or a live stream of the plan's device.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvf_latent_store(latent: *mut c_void, cache: *const LatentCache, args: *const LatentStoreArgs, stream: *mut c_void) -> i32 {
    guard(|| {
        let own = LATENTS.get(latent)?;
        // SAFETY: the caller's promise.
        let (cache, args): (LatentCache, LatentStoreArgs) = unsafe { (read(cache)?, read(args)?) };
        let call = StoreLatent { rows: count("rows", args.rows)?, x: unknown(args.x), slots: unknown(args.slots), cache: rows_of(&cache)?, status: unknown(args.status) };
        if call.rows > 0 {
            own.expect_device([("x", call.x), ("slots", call.slots), ("the cache of rows", call.cache.base), ("status", call.status)])?;
        }
        // SAFETY: the caller's promise.
        own.plan.store(&unsafe { Stream::borrow(&own.device, stream) }, &call)
    })
}

/// # Safety
/// As for [`kvf_latent_store`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvf_latent_decode(latent: *mut c_void, window: *const LatentCache, extra: *const LatentCache, args: *const LatentDecodeArgs, stream: *mut c_void) -> i32 {
    guard(|| {
        let own = LATENTS.get(latent)?;
        // SAFETY: the caller's promise.
        let args: LatentDecodeArgs = unsafe { read(args) }?;
        let LatentShape { tokens, heads, capacities: [first, second], share } = shape(&args)?;
        // SAFETY: the caller's promise.
        let (window, extra) = unsafe { (list(window, args.window_at, first)?, list(extra, args.extra_at, second)?) };
        let call = DecodeLatent {
            tokens,
            heads,
            q: unknown(args.q),
            window,
            extra,
            lens: unknown(args.lens),
            sinks: unknown(args.sinks),
            out: unknown(args.out),
            lse: unknown(args.lse),
            scale: args.scale,
            share,
            workspace: span(args.workspace, args.workspace_bytes),
        };
        if tokens > 0 {
            own.expect_device([("q", call.q), ("lens", call.lens), ("sinks", call.sinks), ("out", call.out), ("lse", call.lse), ("workspace", call.workspace)])?;
            for list in [window, extra].iter().filter(|list| list.capacity > 0) {
                own.expect_device([("the cache of rows", list.cache.base), ("indices", list.at)])?;
            }
        }
        // SAFETY: the caller's promise.
        own.plan.decode(&unsafe { Stream::borrow(&own.device, stream) }, &call)
    })
}

/// # Safety
/// `name` is null or a terminated string; the structs are null or filled, what they point to is host memory of the sizes the header
/// asks, and nothing else uses the cache meanwhile.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvf_ref_latent_store(name: *const c_char, cache: *const LatentCache, args: *const LatentStoreArgs) -> i32 {
    guard(|| {
        // SAFETY: the caller's promise.
        let (format, cache, args): (Format, LatentCache, LatentStoreArgs) = unsafe { (named(name)?, read(cache)?, read(args)?) };
        whole(&format)?;
        let (rows, own) = (count("rows", args.rows)?, host_rows(&format, &cache)?);
        if rows == 0 {
            return Ok(());
        }
        int("rows", rows)?;
        let numbers = product("the rows", &[rows, DIM])? as usize;
        // SAFETY: the caller's promise, for each of these; `host_rows` checked the cache's pointer and size.
        let (x, slots, bytes) = unsafe { (values("x", args.x, numbers)?, values("slots", args.slots, rows)?, std::slice::from_raw_parts_mut(cache.base.cast::<u8>(), own * format.row_bytes())) };
        let mut status = Status::OK;
        for (x, slot) in x.as_chunks::<DIM>().0.iter().zip(slots) {
            match usize::try_from(slot) {
                Ok(slot) if slot < own => format.store(bytes, own, slot, x),
                Ok(_) => status.set(Status::BAD_SLOT),
                Err(_) => {}
            }
        }
        // SAFETY: the caller's promise.
        unsafe { raise(args.status, status) }
    })
}

/// # Safety
/// As for [`kvf_ref_latent_store`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvf_ref_latent_decode(name: *const c_char, window: *const LatentCache, extra: *const LatentCache, args: *const LatentDecodeArgs) -> i32 {
    guard(|| {
        // SAFETY: the caller's promise.
        let (format, args): (Format, LatentDecodeArgs) = unsafe { (named(name)?, read(args)?) };
        let integers = whole(&format)?;
        let shape = shape(&args)?;
        shape.parts()?;
        if shape.tokens == 0 {
            return Ok(());
        }
        finite(args.scale)?;
        let numbers = product("the query rows", &[shape.tokens, shape.heads, DIM])? as usize;
        // SAFETY: the caller's promise, for each of these.
        let (q, lens, sinks) = unsafe { (numbers_of("q", args.q, Elem::Bf16, numbers)?, values("lens", args.lens, 2 * shape.tokens)?, values("sinks", args.sinks, shape.heads)?) };
        let [first, second] = [0, 1].map(|i| lens.iter().skip(i).step_by(2).copied().collect::<Vec<i32>>());
        // SAFETY: likewise.
        let (near, far) = unsafe { (host_list(&format, window, args.window_at, shape.tokens, shape.capacities[0])?, host_list(&format, extra, args.extra_at, shape.tokens, shape.capacities[1])?) };
        let problem = Problem {
            q: &q,
            heads: shape.heads,
            window: List { rows: near.0, at: &near.1, capacity: shape.capacities[0], lens: &first },
            extra: List { rows: far.0, at: &far.1, capacity: shape.capacities[1], lens: &second },
            sinks: &sinks,
            scale: args.scale,
            share: shape.share / LEAF,
        };
        let (out, lse) = problem.solve(integers);
        // SAFETY: likewise.
        unsafe {
            write_numbers("out", args.out, Elem::Bf16, &out)?;
            write("lse", args.lse, &lse)
        }
    })
}

/// # Safety
/// `name` is null or a terminated string.
unsafe fn named(name: *const c_char) -> Result<Format> {
    if name.is_null() {
        return Err(Misuse::Null { what: "format", want: "a format's name, as \"v4_e8w4_int8\"" }.into());
    }
    // SAFETY: not null, terminated by the caller's promise.
    Ok(format(&unsafe { CStr::from_ptr(name) }.to_string_lossy())?)
}

/// The rows' integers; fails for formats whose rows are not all integers.
fn whole(format: &Format) -> Result<&Integers> {
    let none = || Error::unsupported(format!("attention to rows of {} (served: rows of integers, v4_NOPE_int8)", format.name()));
    format.integers().filter(|i| i.whole).ok_or_else(none)
}

fn shape(args: &LatentDecodeArgs) -> Result<LatentShape> {
    Ok(LatentShape {
        tokens: count("tokens", args.tokens)?,
        heads: count("heads", args.heads)?,
        capacities: [count("window_capacity", args.window_capacity)?, count("extra_capacity", args.extra_capacity)?],
        share: count("share", args.share)?,
    })
}

fn rows_of(cache: &LatentCache) -> Result<LatentRows<'static>> {
    Ok(LatentRows { base: span(cache.base, cache.bytes), rows: count("the cache's rows", cache.rows)? })
}

/// A list, or none where its capacity is 0.
///
/// # Safety
/// `cache` is null or filled.
unsafe fn list(cache: *const LatentCache, at: *const i32, capacity: usize) -> Result<LatentList<'static>> {
    if capacity == 0 {
        return Ok(LatentList { cache: LatentRows { base: Span::null(), rows: 0 }, at: Span::null(), capacity });
    }
    // SAFETY: the caller's promise.
    Ok(LatentList { cache: rows_of(&unsafe { read(cache) }?)?, at: unknown(at), capacity })
}

/// Rows of a cache in host memory, once its pointer and size are checked.
fn host_rows(format: &Format, cache: &LatentCache) -> Result<usize> {
    let rows = count("the cache's rows", cache.rows)?;
    within("the cache's rows", rows, 1, i32::MAX as usize)?;
    // SAFETY: only its address and size are looked at.
    let base = unsafe { Span::from_raw(cache.base as u64, cache.bytes) };
    base.expect("the cache of rows", "the first row", 16, product("the cache of rows", &[rows, format.row_bytes()])?)?;
    Ok(rows)
}

/// Rows and indices of a list in host memory.
///
/// # Safety
/// As for [`kvf_ref_latent_decode`].
unsafe fn host_list(format: &Format, cache: *const LatentCache, at: *const i32, tokens: usize, capacity: usize) -> Result<(&'static [u8], Vec<i32>)> {
    if capacity == 0 {
        return Ok((&[], vec![]));
    }
    // SAFETY: the caller's promise.
    let cache: LatentCache = unsafe { read(cache) }?;
    let bytes = host_rows(format, &cache)? * format.row_bytes();
    // SAFETY: likewise; `host_rows` checked the cache's pointer and size.
    unsafe { Ok((std::slice::from_raw_parts(cache.base.cast::<u8>(), bytes), values("indices", at, product("indices", &[tokens, capacity])? as usize)?)) }
}

impl Latent {
    fn expect_device<const N: usize>(&self, spans: [(&'static str, Span<'static>); N]) -> Result<()> {
        if self.checked { expect_known(&self.device, spans.into_iter()) } else { Ok(()) }
    }
}
