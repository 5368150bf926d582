//! The scalar reference over the C ABI: the same structs as the launches, all pointers to host memory.
#![allow(unsafe_code)]

use std::ffi::c_void;

use half::bf16;
use kernels_gen::reference::{self, CacheShape, Status};

use crate::argument::{Misuse, int, product, within};
use crate::calibration::{needs, reaches};
use crate::codec::Codec;
use crate::cuda::Span;
use crate::error::Result;
use crate::ffi::guard;
use crate::ffi_calibration::of_cache;
use crate::ffi_codec::CODECS;
use crate::ffi_rope::{rope_of, turn_on_host};
use crate::ffi_struct::{Cache, DecodeArgs, StoreArgs, count, elem, read};
use crate::page::{PagedCache, Shape};
use crate::plan::status::{BAD_LENGTH, BAD_PAGE, BAD_SLOT};
use crate::plan::{Rows, capacity, finite, size_of_elem};
use kernels_gen::kernels::{Elem, SEGMENT};

/// # Safety
/// The structs are null or filled, what they point to is host memory of the sizes the header asks, and
/// nothing else uses the cache meanwhile.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvf_ref_store(codec: *mut c_void, dtype: i32, cache: *const Cache, args: *const StoreArgs) -> i32 {
    guard(|| {
        let (codec, elem) = (CODECS.get(codec)?, elem(dtype)?);
        // SAFETY: the caller's promise.
        let (cache, args): (Cache, StoreArgs) = unsafe { (read(cache)?, read(args)?) };
        let calibration = of_cache(&cache)?;
        let shape = host_shape(&codec, &cache)?;
        codec.check_store(shape.d, shape.page_tokens)?;
        codec.on_device()?;
        let tokens = count("tokens", args.tokens)?;
        if tokens == 0 {
            return Ok(());
        }
        int("tokens", tokens)?;
        codec.check_tokens(tokens)?;
        let strided = |base, token_stride, head_stride| Rows { base: address(base), token_stride, head_stride };
        let k = strided(args.k, args.k_token_stride, args.k_head_stride);
        let v = strided(args.v, args.v_token_stride, args.v_head_stride);
        // SAFETY: the caller's promise, for each of these and the slices below.
        let (k, v) = unsafe { (gather("k", &k, elem, tokens, &shape)?, gather("v", &v, elem, tokens, &shape)?) };
        // SAFETY: likewise.
        let slots = unsafe { values("slots", args.slots, tokens) }?;
        // SAFETY: likewise.
        let rope = unsafe { rope_of(&args) }?;
        let (k, slots, unknown) = match &rope {
            Some(rope) => {
                codec.by_token("a store with rope")?;
                // SAFETY: the caller's promise.
                unsafe { turn_on_host(&args, rope, elem, tokens, &shape, &k, slots) }?
            }
            None => (k, slots, Status::OK),
        };
        // SAFETY: likewise; `host_shape` checked the pointer and the size.
        let bytes = unsafe { std::slice::from_raw_parts_mut(cache.base.cast::<u8>(), bytes_of(codec, &shape)?) };
        let mut status = match &calibration {
            None if codec.calibrated().is_ok() => return Err(needs(codec).into()),
            None => match codec.kivi() {
                Some(kivi) => reference::store_groups(kivi, &shape, bytes, &k, &v, &slots),
                None => reference::store(codec.info(), &shape, bytes, &k, &v, &slots),
            },
            Some(own) => {
                // SAFETY: likewise.
                let positions = unsafe { values("positions", args.positions, tokens) }?;
                let (slots, places, status) = known(&slots, &positions, own.segments());
                let stored = own.on_host(&cache, codec)?.store(&shape, bytes, &k, &v, &places, &slots);
                Status(stored.0 | status.0)
            }
        };
        status.set(unknown);
        // SAFETY: likewise.
        unsafe { raise(args.status, status) }
    })
}

/// # Safety
/// As for [`kvf_ref_store`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvf_ref_decode(codec: *mut c_void, dtype: i32, heads: i32, cache: *const Cache, args: *const DecodeArgs) -> i32 {
    guard(|| {
        let (codec, elem) = (CODECS.get(codec)?, elem(dtype)?);
        // SAFETY: the caller's promise.
        let (cache, args): (Cache, DecodeArgs) = unsafe { (read(cache)?, read(args)?) };
        let calibration = of_cache(&cache)?;
        let shape = host_shape(&codec, &cache)?;
        let (heads, batch) = (count("heads", heads)?, count("batch", args.batch)?);
        let stride = count("table_stride", args.table_stride)?;
        within("heads", heads, shape.kv_heads, 65535)?;
        if !heads.is_multiple_of(shape.kv_heads) {
            let text = format!("{heads} heads do not share {} kv_heads evenly; heads must be a multiple", shape.kv_heads);
            return Err(Misuse::Other(text).into());
        }
        codec.check_decode(shape.d, heads / shape.kv_heads, shape.page_tokens)?;
        if batch == 0 {
            return Ok(());
        }
        within("batch", batch, 1, 65535)?;
        let most = capacity(stride, shape.page_tokens)?;
        finite(args.scale)?;
        let tokens = count("queries", args.queries)?.max(1);
        int("query rows", product("query rows", &[batch, tokens, heads])? as usize)?;
        let numbers = product("q", &[batch, tokens, heads, shape.d])? as usize;
        let entries = product("table", &[batch, stride])? as usize;
        // SAFETY: the caller's promise, for each of these.
        let (q, table, lens) = unsafe { (numbers_of("q", args.q, elem, numbers)?, values("table", args.table, entries)?, values("lens", args.lens, batch)?) };
        // SAFETY: likewise; `host_shape` checked the pointer and the size.
        let bytes = unsafe { std::slice::from_raw_parts(cache.base.cast::<u8>(), bytes_of(codec, &shape)?) };
        let found = match &calibration {
            None if codec.calibrated().is_ok() => return Err(needs(codec).into()),
            None if tokens > 1 => {
                codec.by_token("decode of several query tokens")?;
                let info = codec.info();
                reference::prefill(info, &shape, bytes, &q, tokens, heads, &table, stride, &lens, args.scale)
            }
            None => match (codec.kivi(), codec.pca()) {
                (Some(kivi), _) => reference::decode_kivi(kivi, &shape, bytes, &q, heads, &table, stride, &lens, args.scale),
                (_, Some(pca)) => reference::decode_pca(pca, &shape, bytes, &q, heads, &table, stride, &lens, args.scale),
                _ => reference::decode(codec.info(), &shape, bytes, &q, heads, &table, stride, &lens, args.scale),
            },
            Some(own) => {
                let layer = own.on_host(&cache, codec)?;
                reaches(most, own.segments())?;
                if tokens > 1 { layer.prefill(&shape, bytes, &q, tokens, heads, &table, stride, &lens, args.scale) } else { layer.decode(&shape, bytes, &q, heads, &table, stride, &lens, args.scale) }
            }
        };
        // SAFETY: likewise.
        unsafe {
            write_numbers("out", args.out, elem, &found.out)?;
            if !args.lse.is_null() {
                write("lse", args.lse, &found.lse)?;
            }
            raise(args.status, found.status)
        }
    })
}

/// Slots and places of tokens; one whose place has no turn is not stored.
fn known(slots: &[i64], positions: &[i32], segments: usize) -> (Vec<i64>, Vec<usize>, Status) {
    let mut status = Status::OK;
    let one = |(slot, position): (&i64, &i32)| match usize::try_from(*position).ok().filter(|p| p / SEGMENT < segments) {
        Some(place) => (*slot, place),
        None => {
            if *slot >= 0 {
                status.set(Status::BAD_LENGTH);
            }
            (-1, 0)
        }
    };
    let (slots, places) = slots.iter().zip(positions).map(one).unzip();
    (slots, places, status)
}

/// A host address in the form that the launches' checks take.
pub(crate) fn address(base: *const c_void) -> Span<'static> {
    // SAFETY: never reaches a device; only its address and size are looked at.
    unsafe { Span::from_raw(base as u64, u64::MAX) }
}

pub(crate) fn host_shape(codec: &Codec, cache: &Cache) -> Result<CacheShape> {
    let paged = PagedCache {
        // SAFETY: as in `address`.
        base: unsafe { Span::from_raw(cache.base as u64, cache.bytes) },
        pages: count("pages", cache.pages)?,
        page_tokens: count("page_tokens", cache.page_tokens)?,
        kv_heads: count("kv_heads", cache.kv_heads)?,
        head_dim: count("head_dim", cache.head_dim)?,
    };
    paged.check(&Shape { codec: *codec, head_dim: paged.head_dim, page_tokens: paged.page_tokens })?;
    let PagedCache { pages, page_tokens, kv_heads, head_dim: d, .. } = paged;
    Ok(CacheShape { pages, page_tokens, kv_heads, d })
}

pub(crate) fn bytes_of(codec: Codec, s: &CacheShape) -> Result<usize> {
    Ok(codec.cache_bytes(s.pages, s.page_tokens, s.kv_heads, s.d)? as usize)
}

/// Gathers strided rows into `[tokens, kv_heads, d]`.
///
/// # Safety
/// Every row that the strides reach is readable host memory.
pub(crate) unsafe fn gather(what: &'static str, rows: &Rows<'_>, elem: Elem, tokens: usize, shape: &CacheShape) -> Result<Vec<f32>> {
    rows.check(what, [tokens, shape.kv_heads, shape.d], elem)?;
    let mut gathered = Vec::with_capacity(tokens * shape.kv_heads * shape.d);
    for token in 0..tokens as i64 {
        for head in 0..shape.kv_heads as i64 {
            // Below 2^63 by `check`.
            let offset = (token * rows.token_stride + head * rows.head_stride) as u64 * size_of_elem(elem) as u64;
            let row = (rows.base.address() + offset) as usize as *const c_void;
            // SAFETY: the caller's promise.
            gathered.extend(unsafe { numbers_of(what, row, elem, shape.d) }?);
        }
    }
    Ok(gathered)
}

/// # Safety
/// `from` is null or `count` numbers of that type are readable.
pub(crate) unsafe fn numbers_of(what: &'static str, from: *const c_void, elem: Elem, count: usize) -> Result<Vec<f32>> {
    match elem {
        // SAFETY: the caller's promise.
        Elem::F32 => unsafe { values(what, from.cast::<f32>(), count) },
        Elem::Bf16 => {
            // SAFETY: likewise.
            let halves = unsafe { values(what, from.cast::<bf16>(), count) }?;
            Ok(halves.into_iter().map(bf16::to_f32).collect())
        }
    }
}

/// A copy of `count` values.
///
/// # Safety
/// `from` is null or `count` values are readable.
pub(crate) unsafe fn values<T: crate::cuda::Plain>(what: &'static str, from: *const T, count: usize) -> Result<Vec<T>> {
    expect(what, from)?;
    // SAFETY: not null, aligned, readable by the caller's promise.
    Ok(unsafe { std::slice::from_raw_parts(from, count) }.to_vec())
}

/// # Safety
/// `to` is null or as many numbers of that type are writable.
pub(crate) unsafe fn write_numbers(what: &'static str, to: *mut c_void, elem: Elem, numbers: &[f32]) -> Result<()> {
    match elem {
        // SAFETY: the caller's promise.
        Elem::F32 => unsafe { write(what, to.cast::<f32>(), numbers) },
        Elem::Bf16 => {
            let rounded: Vec<bf16> = numbers.iter().map(|&x| bf16::from_f32(x)).collect();
            // SAFETY: likewise.
            unsafe { write(what, to.cast::<bf16>(), &rounded) }
        }
    }
}

/// # Safety
/// `to` is null or `values.len()` values are writable.
pub(crate) unsafe fn write<T: crate::cuda::Plain>(what: &'static str, to: *mut T, values: &[T]) -> Result<()> {
    expect(what, to)?;
    // SAFETY: not null, aligned, writable by the caller's promise; `values` is our own memory.
    unsafe { std::ptr::copy_nonoverlapping(values.as_ptr(), to, values.len()) };
    Ok(())
}

fn expect<T>(what: &'static str, pointer: *const T) -> Result<()> {
    if pointer.is_null() {
        return Err(Misuse::Null { what, want: "host memory" }.into());
    }
    if !pointer.is_aligned() {
        return Err(Misuse::Misaligned { what, address: pointer as u64, want: align_of::<T>() as u64 }.into());
    }
    Ok(())
}

/// Sets the words that a kernel would.
///
/// # Safety
/// `status` is null or four i32 are writable.
pub(crate) unsafe fn raise(status: *mut i32, found: Status) -> Result<()> {
    expect("status", status)?;
    let kinds = [(Status::BAD_SLOT, BAD_SLOT), (Status::BAD_PAGE, BAD_PAGE), (Status::BAD_LENGTH, BAD_LENGTH)];
    for (_, word) in kinds.iter().filter(|(kind, _)| found.0 & kind.0 != 0) {
        // SAFETY: not null, aligned, one of four words that are writable by the caller's promise.
        unsafe { status.add(*word).write(1) };
    }
    Ok(())
}
