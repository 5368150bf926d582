//! Plans and launches over the C ABI.
#![allow(unsafe_code)]

use std::ffi::{CStr, OsStr, c_char, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use crate::argument::{Misuse, agree, within};
use crate::cuda::{Device, Span, Stream, is_device_address};
use crate::error::Result;
use crate::ffi::{guard, put, put_text};
use crate::ffi_calibration::of_cache;
use crate::ffi_codec::CODECS;
use crate::ffi_handle::Table;
use crate::ffi_rope::{of_desc, rope_of};
use crate::ffi_struct::{Cache, DecodeArgs, PlanDesc, RopeArgs, StoreArgs, count, elem, read};
use crate::page::PagedCache;
use crate::plan::{
    Decode, DecodePlan, DecodeSpec, Mapped, MergePlan, QueriesPlan, RopePlan, RopeSpec, Rows, SlotsPlan, SlotsSpec, Store, StorePlan, StoreSpec, check_rope,
};
use crate::tuning;

/// `KVF_PLAN_STORE`, `KVF_PLAN_DECODE`, `KVF_PLAN_CHECKED`, `KVF_PLAN_SLOTS`, `KVF_PLAN_ROPE`, `KVF_PLAN_MERGE`.
const STORE: i32 = 1;
const DECODE: i32 = 2;
const CHECKED: i32 = 4;
const SLOTS: i32 = 8;
const ROPE: i32 = 16;
const MERGE: i32 = 32;

pub(crate) static PLANS: Table<Arc<Plan>> = Table::new("plan");

/// What a `kvf_plan` names.
pub(crate) struct Plan {
    pub device: Device,
    pub kv_heads: usize,
    pub heads: usize,
    // Ask the driver about every address before a launch.
    checked: bool,
    store: Option<StorePlan>,
    pub rope: Option<RopePlan>,
    decode: Option<DecodePlan>,
    queries: Option<QueriesPlan>,
    slots: Option<SlotsPlan>,
    merge: Option<MergePlan>,
}

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
        let need =
            plan.decode()?.workspace_bytes(count("batch", batch)?, plan.heads, count("table_stride", table_stride)?)?;
        // SAFETY: the caller's promise.
        unsafe { put(bytes, "bytes", need) }
    })
}

/// # Safety
/// `bytes` is null or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvf_queries_workspace_bytes(
    plan: *mut c_void,
    batch: i32,
    queries: i32,
    table_stride: i32,
    bytes: *mut u64,
) -> i32 {
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
pub unsafe extern "C" fn kvf_store(
    plan: *mut c_void,
    cache: *const Cache,
    args: *const StoreArgs,
    stream: *mut c_void,
) -> i32 {
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
pub unsafe extern "C" fn kvf_decode(
    plan: *mut c_void,
    cache: *const Cache,
    args: *const DecodeArgs,
    stream: *mut c_void,
) -> i32 {
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
    fn new(desc: &PlanDesc) -> Result<Self> {
        let codec = CODECS.get(desc.codec)?;
        let dims = (count("head_dim", desc.head_dim)?, count("page_tokens", desc.page_tokens)?);
        let (heads, kv_heads) = (count("heads", desc.heads)?, count("kv_heads", desc.kv_heads)?);
        let (elem, splits) = (elem(desc.dtype)?, count("splits", desc.splits)?);
        within("kv_heads", kv_heads, 1, 65535)?;
        within("heads", heads, kv_heads, 65535)?;
        if !heads.is_multiple_of(kv_heads) {
            let text =
                format!("{heads} heads do not share {kv_heads} kv_heads evenly; heads must be a multiple of kv_heads");
            return Err(Misuse::Other(text).into());
        }
        if desc.flags & !(STORE | DECODE | CHECKED | SLOTS | ROPE | MERGE) != 0 || desc.flags & (STORE | DECODE | SLOTS | ROPE | MERGE) == 0 {
            let allowed =
                "KVF_PLAN_STORE (1), KVF_PLAN_DECODE (2), KVF_PLAN_SLOTS (8), KVF_PLAN_ROPE (16) and KVF_PLAN_MERGE (32), one or more, and KVF_PLAN_CHECKED (4) if wanted".into();
            return Err(Misuse::Range { what: "flags", value: i64::from(desc.flags), allowed }.into());
        }
        let ((head_dim, page_tokens), group) = (dims, heads / kv_heads);
        let (wants_store, wants_decode) = (desc.flags & STORE != 0, desc.flags & DECODE != 0);
        // Before the device is asked for: these are the caller's, whatever the machine.
        if wants_store {
            codec.check_store(head_dim, page_tokens)?;
            codec.on_device()?;
        }
        if wants_decode {
            codec.check_decode(head_dim, group, page_tokens)?;
        }
        let (slot_page_tokens, wants_slots) = (count("slot_page_tokens", desc.slot_page_tokens)?, desc.flags & SLOTS != 0);
        if wants_slots {
            codec.check_slots(head_dim, slot_page_tokens, page_tokens)?;
        } else if slot_page_tokens > 0 {
            let allowed = "0 without KVF_PLAN_SLOTS".into();
            return Err(Misuse::Range { what: "slot_page_tokens", value: i64::from(desc.slot_page_tokens), allowed }.into());
        }
        let rope = (desc.flags & ROPE != 0).then(|| of_desc(desc.rotary_dim, desc.rope, group)).transpose()?;
        match &rope {
            Some(rope) => {
                codec.by_token("a store with rope")?;
                codec.check_store(head_dim, page_tokens)?;
                check_rope(rope, head_dim)?;
            }
            None if desc.rotary_dim != 0 || desc.rope != 0 => {
                let text = "rotary_dim and rope are set without KVF_PLAN_ROPE (16); set the flag, or leave them 0";
                return Err(Misuse::Other(text.into()).into());
            }
            None => {}
        }
        let wants_merge = desc.flags & MERGE != 0;
        if wants_merge {
            MergePlan::check_dim(head_dim)?;
        }
        let queries = count("queries", desc.queries)?;
        if queries > 1 {
            codec.by_token("decode of several query tokens")?;
        }
        let device = Device::open(count("device", desc.device)?)?;
        let store = StoreSpec { codec, head_dim, page_tokens, elem };
        let decode = DecodeSpec { codec, head_dim, group, page_tokens, elem, splits };
        Ok(Plan {
            kv_heads,
            heads,
            checked: desc.flags & CHECKED != 0,
            store: wants_store.then(|| StorePlan::prepare(&device, &store)).transpose()?,
            rope: rope.map(|rope| RopePlan::prepare(&device, &RopeSpec { store, rope })).transpose()?,
            decode: wants_decode.then(|| DecodePlan::prepare(&device, &decode)).transpose()?,
            queries: (wants_decode && queries > 1)
                .then(|| QueriesPlan::prepare(&device, &decode, queries))
                .transpose()?,
            slots: wants_slots
                .then(|| SlotsPlan::prepare(&device, &SlotsSpec { codec, head_dim, slot_page_tokens, page_tokens, elem }))
                .transpose()?,
            merge: wants_merge.then(|| MergePlan::prepare(&device, head_dim, elem)).transpose()?,
            device,
        })
    }

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

    fn store(&self) -> Result<&StorePlan> {
        self.store
            .as_ref()
            .ok_or_else(|| Misuse::Other("this plan cannot store; create it with KVF_PLAN_STORE".into()).into())
    }

    fn decode(&self) -> Result<&DecodePlan> {
        let none = || Misuse::Other("this plan cannot decode; create it with KVF_PLAN_DECODE".into()).into();
        self.decode.as_ref().ok_or_else(none)
    }

    fn queries(&self) -> Result<&QueriesPlan> {
        let text = "this plan decodes one query token a sequence; create it with queries above 1 and KVF_PLAN_DECODE";
        self.queries.as_ref().ok_or_else(|| Misuse::Other(text.into()).into())
    }

    pub fn slots(&self) -> Result<&SlotsPlan> {
        let none = || Misuse::Other("this plan has no slots; create it with KVF_PLAN_SLOTS".into()).into();
        self.slots.as_ref().ok_or_else(none)
    }

    pub fn merge(&self) -> Result<&MergePlan> {
        let none = || Misuse::Other("this plan cannot merge; create it with KVF_PLAN_MERGE".into()).into();
        self.merge.as_ref().ok_or_else(none)
    }

    pub fn cache(&self, cache: &Cache) -> Result<PagedCache<'static>> {
        let found = paged(cache)?;
        agree("kv_heads", found.kv_heads, self.kv_heads, "plan")?;
        Ok(found)
    }

    pub fn expect_device(&self, spans: impl Iterator<Item = (&'static str, Span<'static>)>) -> Result<()> {
        for (what, span) in spans.filter(|_| self.checked) {
            if span.address() != 0 && !is_device_address(&self.device, span.address())? {
                let text =
                    format!("{what} is at {:#x}, which CUDA does not know; pass a device address", span.address());
                return Err(Misuse::Other(text).into());
            }
        }
        Ok(())
    }
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
