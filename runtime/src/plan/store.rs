//! Writing new tokens' keys and values into the cache.

use std::sync::Arc;

use super::{counter_of, load, status};
use crate::arch::Arch;
use crate::argument::{Misuse, int, within};
use crate::calibration::{Layer, needs};
use crate::codec::Codec;
use crate::cuda::{Arg, Device, Kernel, Span, Stream};
use crate::error::Result;
use crate::page::{PagedCache, Shape};
use kernel_dsl::Source;
use kernels_gen::kernels::store::StoreMeta;
use kernels_gen::kernels::{self, Elem};

/// What a store kernel is compiled for.
#[derive(Clone, Copy, Debug)]
pub struct StoreSpec {
    /// The codec.
    pub codec: Codec,
    /// Dims a head: 64, 128, 256 or 512.
    pub head_dim: usize,
    /// Tokens a page: a multiple of 32.
    pub page_tokens: usize,
    /// Type of the rows given.
    pub elem: Elem,
}

/// Rows `[token, kv head, d]` in device memory; the d numbers of a row are contiguous.
#[derive(Clone, Copy, Debug)]
pub struct Rows<'a> {
    /// The first row; 16-byte aligned.
    pub base: Span<'a>,
    /// Elements from one token to the next; a multiple of 8.
    pub token_stride: i64,
    /// Elements from one head to the next; a multiple of 8.
    pub head_stride: i64,
}

/// One store call.
#[derive(Clone, Copy, Debug)]
pub struct Store<'a> {
    /// Tokens to store.
    pub tokens: usize,
    /// Their keys.
    pub k: Rows<'a>,
    /// Their values.
    pub v: Rows<'a>,
    /// Where each goes: i64 `[tokens]`, page * page_tokens + offset; below 0 is padding, skipped.
    pub slots: Span<'a>,
    /// The cache.
    pub cache: PagedCache<'a>,
    /// i32 `[4]`, see [`status`].
    pub status: Span<'a>,
}

/// What a store through a calibrated codec takes besides.
#[derive(Clone, Copy, Debug)]
pub struct Mapped<'a> {
    /// The layer whose cache it is.
    pub layer: Layer<'a>,
    /// i32 `[tokens]`: each token's place in its sequence, from 0. A token of a place that the calibration was not loaded
    /// for is not stored, and sets the status word of a bad length.
    pub positions: Span<'a>,
}

/// A store kernel, ready.
#[derive(Debug)]
pub struct StorePlan {
    shape: Shape,
    elem: Elem,
    kernel: Arc<Kernel>,
    /// Of a calibrated codec.
    mapped: Option<StoreMeta>,
    counts: bool,
}

impl StorePlan {
    /// Compiles and loads. Slow the first time; not while a stream is being captured.
    pub fn prepare(device: &Device, spec: &StoreSpec) -> Result<Self> {
        let StoreSpec { codec, head_dim, page_tokens, elem } = *spec;
        codec.check_store(head_dim, page_tokens)?;
        codec.on_device()?;
        let mapped = mapped_of(device, spec);
        let kernel = load(
            device,
            match (codec.kivi(), &mapped) {
                (Some(kivi), _) => kernels::kivi::store(kivi, head_dim, page_tokens, elem),
                (None, Some(m)) => kernels::mapped_store_ir(codec.info(), m, elem).and_then(|tile| Source::of(&tile)),
                (None, None) => kernels::store(codec.info(), head_dim, page_tokens, elem),
            },
        )?;
        Ok(StorePlan { shape: Shape { codec, head_dim, page_tokens }, elem, kernel, mapped, counts: false })
    }

    /// As `prepare`, of the kernel's twin that counts: the same bytes stored, by [`launch_counted`](Self::launch_counted).
    pub fn counted(device: &Device, spec: &StoreSpec) -> Result<Self> {
        let StoreSpec { codec, head_dim, page_tokens, elem } = *spec;
        codec.check_store(head_dim, page_tokens)?;
        codec.on_device()?;
        let mapped = mapped_of(device, spec);
        let tile = match (codec.kivi(), &mapped) {
            (Some(kivi), _) => kernels::kivi::store_ir(kivi, &kernels::kivi::store_meta(kivi, head_dim, page_tokens, elem), elem),
            (None, Some(m)) => kernels::mapped_store_ir(codec.info(), m, elem),
            (None, None) => kernels::store_ir(codec.info(), &kernels::store_meta(codec.info(), head_dim, page_tokens, elem), elem),
        };
        let kernel = load(device, tile.and_then(|tile| kernels::counted(&tile)))?;
        Ok(StorePlan { shape: Shape { codec, head_dim, page_tokens }, elem, kernel, mapped, counts: true })
    }

    /// Enqueues the store: one launch, no allocation, no wait. Zero tokens enqueue nothing.
    pub fn launch(&self, stream: &Stream, call: &Store<'_>) -> Result<()> {
        self.plain(stream, call, None)
    }

    /// As `launch`, for a calibrated codec.
    pub fn launch_calibrated(&self, stream: &Stream, call: &Store<'_>, mapped: &Mapped<'_>) -> Result<()> {
        self.through_maps(stream, call, mapped, None)
    }

    /// As `launch` or `launch_calibrated`, of a plan that was made to count: adds the bytes of the cache that the kernel read and
    /// wrote to the two i64 of `counter`.
    pub fn launch_counted(&self, stream: &Stream, call: &Store<'_>, mapped: Option<&Mapped<'_>>, counter: Span<'_>) -> Result<()> {
        match mapped {
            Some(mapped) => self.through_maps(stream, call, mapped, Some(counter)),
            None => self.plain(stream, call, Some(counter)),
        }
    }

    fn plain(&self, stream: &Stream, call: &Store<'_>, counter: Option<Span<'_>>) -> Result<()> {
        call.check(&self.shape, self.elem)?;
        if self.shape.codec.calibrated().is_ok() {
            return Err(needs(self.shape.codec).into());
        }
        if call.tokens == 0 {
            return Ok(());
        }
        let args = [Arg::Ptr(call.slots), Arg::Ptr(call.cache.base), Arg::Ptr(call.status), Arg::I32(int("tokens", call.tokens)?), Arg::I32(call.cache.ints()?.0)];
        self.enqueue(stream, call, kernels::store_grid(call.tokens, call.cache.kv_heads), &args, counter)
    }

    fn through_maps(&self, stream: &Stream, call: &Store<'_>, mapped: &Mapped<'_>, counter: Option<Span<'_>>) -> Result<()> {
        call.check(&self.shape, self.elem)?;
        mapped.layer.check(self.shape.codec, &call.cache)?;
        if call.tokens == 0 {
            return Ok(());
        }
        mapped.positions.expect("positions", "one i32 a token", 4, 4 * call.tokens as u64)?;
        let m = self.mapped.ok_or_else(|| Misuse::Other("rows of a plain codec have no maps; store them by launch".into()))?;
        let grid = kernels::mapped_grid(&m, call.tokens, call.cache.kv_heads);
        let args = [
            Arg::Ptr(mapped.positions),
            Arg::Ptr(call.slots),
            Arg::Ptr(mapped.layer.turns()),
            Arg::Ptr(mapped.layer.maps()),
            Arg::Ptr(mapped.layer.scales()),
            Arg::Ptr(call.cache.base),
            Arg::Ptr(call.status),
            Arg::I32(int("tokens", call.tokens)?),
            Arg::I32(call.cache.ints()?.0),
            Arg::I32(int("the segments of the calibration", mapped.layer.segments())?),
            Arg::I32(grid[0] as i32),
        ];
        self.enqueue(stream, call, grid, if m.walks { &args } else { &args[..args.len() - 1] }, counter)
    }

    /// With what stands between the rows and the strides.
    fn enqueue(&self, stream: &Stream, call: &Store<'_>, grid: [u32; 3], own: &[Arg<'_>], counter: Option<Span<'_>>) -> Result<()> {
        let counter = counter_of(self.counts, counter)?;
        let rows = [Arg::Ptr(call.k.base), Arg::Ptr(call.v.base)];
        let strides = [Arg::I64(call.cache.slots()?), Arg::I64(call.k.token_stride), Arg::I64(call.k.head_stride), Arg::I64(call.v.token_stride), Arg::I64(call.v.head_stride)];
        self.kernel.launch(stream, grid, &[&rows, own, &strides, counter.as_slice()].concat())
    }

    /// The kernel, for its attributes.
    pub fn kernel(&self) -> &Kernel {
        &self.kernel
    }
}

/// The shape of a calibrated codec's kernel on this device.
fn mapped_of(device: &Device, spec: &StoreSpec) -> Option<StoreMeta> {
    let StoreSpec { codec, head_dim, page_tokens, elem } = *spec;
    codec.calibrated().ok()?;
    let walked = kernels::walked_store_meta(codec.info(), head_dim, page_tokens, elem).filter(|_| device.arch() == Arch::SM_90A);
    Some(walked.unwrap_or_else(|| kernels::mapped_store_meta(codec.info(), head_dim, page_tokens, elem)))
}

impl Store<'_> {
    /// Fails unless everything lies where a kernel of that shape will look for it.
    pub(super) fn check(&self, shape: &Shape, elem: Elem) -> Result<()> {
        self.cache.check(shape)?;
        if self.tokens == 0 {
            return Ok(());
        }
        within("tokens", self.tokens, 1, i32::MAX as usize)?;
        shape.codec.check_tokens(self.tokens)?;
        let rows = [self.tokens, self.cache.kv_heads, self.cache.head_dim];
        self.k.check("k", rows, elem)?;
        self.v.check("v", rows, elem)?;
        self.slots.expect("slots", "one i64 a token", 8, 8 * self.tokens as u64)?;
        Ok(self.status.expect("status", "four i32 on the device", 4, status::BYTES)?)
    }
}

impl<'a> Rows<'a> {
    /// As kernels take them: `kernels::arguments::Rows`.
    pub(super) fn args(self) -> [Arg<'a>; 3] {
        [Arg::Ptr(self.base), Arg::I64(self.token_stride), Arg::I64(self.head_stride)]
    }
}

impl<'a> Store<'a> {
    /// As kernels take them: `kernels::arguments::Stored`.
    pub(super) fn stored(&self) -> Result<[Arg<'a>; 6]> {
        let (kv_heads, slots) = (self.cache.ints()?.0, self.cache.slots()?);
        Ok([Arg::Ptr(self.slots), Arg::Ptr(self.cache.base), Arg::Ptr(self.status), Arg::I64(slots), Arg::I32(int("tokens", self.tokens)?), Arg::I32(kv_heads)])
    }
}

impl Rows<'_> {
    /// Fails unless the base is aligned and holds every row of `[tokens, heads, d]` that the strides reach.
    pub(crate) fn check(&self, what: &'static str, [tokens, heads, d]: [usize; 3], elem: Elem) -> Result<()> {
        let sound = |stride: i64| stride >= 0 && stride % 8 == 0;
        if let Some(value) = [self.token_stride, self.head_stride].into_iter().find(|&s| !sound(s)) {
            let what = match what {
                "k" => "a stride of k",
                "q" => "a stride of q",
                _ => "a stride of v",
            };
            return Err(Misuse::Range { what, value, allowed: "a multiple of 8 elements, not negative".into() }.into());
        }
        let need = self.bytes(tokens, heads, d, elem).filter(|&b| b <= i64::MAX as u64).ok_or(Misuse::Overflow { what, limit: "63 bits" })?;
        Ok(self.base.expect(what, "the first row", 16, need)?)
    }

    /// Bytes from the first row to the end of the last.
    pub(super) fn bytes(&self, tokens: usize, heads: usize, d: usize, elem: Elem) -> Option<u64> {
        self.reach(tokens, heads, d)?.checked_mul(size_of_elem(elem) as u64)
    }

    /// Elements from the first row to the end of the last.
    fn reach(&self, tokens: usize, heads: usize, d: usize) -> Option<u64> {
        let last = |count: usize, stride: i64| (count.saturating_sub(1) as u64).checked_mul(u64::try_from(stride).ok()?);
        last(tokens, self.token_stride)?.checked_add(last(heads, self.head_stride)?)?.checked_add(d as u64)
    }
}

pub(crate) fn size_of_elem(elem: Elem) -> usize {
    match elem {
        Elem::Bf16 => 2,
        Elem::F32 => 4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(bytes: u64, token_stride: i64, head_stride: i64) -> Rows<'static> {
        Rows { base: Span::made_up(0x1000, bytes), token_stride, head_stride }
    }

    #[test]
    fn strided_rows_must_lie_inside_their_memory() {
        let shape = [3, 2, 64];
        assert!(rows(3 * 2 * 64 * 2, 128, 64).check("k", shape, Elem::Bf16).is_ok());
        assert!(rows(3 * 2 * 64 * 2 - 1, 128, 64).check("k", shape, Elem::Bf16).is_err());
        assert!(rows(3 * 2 * 64 * 4, 128, 64).check("k", shape, Elem::F32).is_ok());
        // Heads first: the transposed view that attention modules pass.
        assert!(rows(3 * 2 * 64 * 2, 64, 192).check("k", shape, Elem::Bf16).is_ok());
        assert!(rows(u64::MAX, 0, 0).check("k", shape, Elem::Bf16).is_ok());
        for (token, head) in [(-8, 64), (128, 63), (i64::MAX - 7, 64), (i64::MIN, 64)] {
            assert!(rows(u64::MAX, token, head).check("k", shape, Elem::Bf16).is_err(), "{token} {head}");
        }
    }
}
