//! Slots of vLLM's TurboQuant cache: rows into them, and tokens between them and tiles.
//!
//! An engine may keep its own cache where it does not decode: `store` codes new rows into it, `import` brings tokens into
//! tiles before they are attended to, `export` takes them back. Codes never change on the way.

use std::sync::Arc;

use super::{Rows, load, status};
use crate::argument::{Misuse, agree, int, product, within};
use crate::codec::Codec;
use crate::cuda::{Arg, Device, Kernel, Span, Stream};
use crate::error::{Error, Result};
use crate::page::{PagedCache, Shape};
use kernel_dsl::Source;
use kernels_gen::kernels::{self, Elem};

/// What kernels of slots are compiled for.
#[derive(Clone, Copy, Debug)]
pub struct SlotsSpec {
    /// A codec with slots: the `turboquant` presets and their like.
    pub codec: Codec,
    /// Dims a head: 64, 128, 256 or 512.
    pub head_dim: usize,
    /// Tokens of a page of slots, any number.
    pub slot_page_tokens: usize,
    /// Tokens of a page of tiles: a multiple of 32.
    pub page_tokens: usize,
    /// Type of the rows given to `store`.
    pub elem: Elem,
}

/// A cache of slots, `[page, token of the page, kv head]` with strides in bytes, all even.
#[derive(Clone, Copy, Debug)]
pub struct SlotCache<'a> {
    /// Its bytes, 2-byte aligned.
    pub base: Span<'a>,
    /// Pages it holds.
    pub pages: usize,
    /// Tokens a page.
    pub page_tokens: usize,
    /// Key/value heads.
    pub kv_heads: usize,
    /// Bytes from one page to the next.
    pub page_stride: i64,
    /// Bytes from one token of a page to the next.
    pub token_stride: i64,
    /// Bytes from one head to the next.
    pub head_stride: i64,
}

/// Rows on their way into slots.
#[derive(Clone, Copy, Debug)]
pub struct StoreSlots<'a> {
    /// Tokens to store.
    pub tokens: usize,
    /// Their keys.
    pub k: Rows<'a>,
    /// Their values.
    pub v: Rows<'a>,
    /// Where each goes: i64 `[tokens]`, page * page_tokens + offset of the slots' cache; below 0 is padding, skipped.
    pub slots: Span<'a>,
    /// The cache.
    pub cache: SlotCache<'a>,
    /// i32 `[4]`, see [`status`].
    pub status: Span<'a>,
}

/// Tokens on their way between slots and tiles.
#[derive(Clone, Copy, Debug)]
pub struct MoveSlots<'a> {
    /// Tokens to move.
    pub tokens: usize,
    /// i64 `[tokens]`: each one's slot in `slots`; below 0 is padding.
    pub at: Span<'a>,
    /// i64 `[tokens]`: its place in `tiles`, page * page_tokens + offset; below 0 is padding.
    pub places: Span<'a>,
    /// The cache of slots.
    pub slots: SlotCache<'a>,
    /// The cache of tiles.
    pub tiles: PagedCache<'a>,
    /// i32 `[4]`, see [`status`].
    pub status: Span<'a>,
}

/// The kernels of slots, ready.
#[derive(Debug)]
pub struct SlotsPlan {
    spec: SlotsSpec,
    store: Arc<Kernel>,
    import: Arc<Kernel>,
    export: Arc<Kernel>,
}

impl SlotsPlan {
    /// Compiles and loads. Slow the first time; not while a stream is being captured.
    pub fn prepare(device: &Device, spec: &SlotsSpec) -> Result<Self> {
        let SlotsSpec { codec, head_dim, slot_page_tokens, page_tokens, elem } = *spec;
        codec.check_slots(head_dim, slot_page_tokens, page_tokens)?;
        let info = codec.info();
        let none = || Error::unsupported(format!("{} has no slots", codec.name()));
        let m = kernels::slot_meta(info, head_dim, slot_page_tokens, page_tokens, elem).ok_or_else(none)?;
        let made = |ir: std::result::Result<_, _>| load(device, ir.and_then(|ir| Source::of(&ir)));
        Ok(SlotsPlan { spec: *spec, store: made(kernels::store_slots_ir(info, &m, elem))?, import: made(kernels::import_slots_ir(info, &m))?, export: made(kernels::export_slots_ir(info, &m))? })
    }

    /// Enqueues coding rows into slots: one launch, no allocation, no wait. Zero tokens enqueue nothing.
    pub fn store(&self, stream: &Stream, call: &StoreSlots<'_>) -> Result<()> {
        self.check_slots(&call.cache)?;
        if call.tokens == 0 {
            return Ok(());
        }
        let rows = [call.tokens, call.cache.kv_heads, self.spec.head_dim];
        call.k.check("k", rows, self.spec.elem)?;
        call.v.check("v", rows, self.spec.elem)?;
        check_places("slots", call.slots, call.tokens)?;
        call.status.expect("status", "four i32 on the device", 4, status::BYTES)?;
        let args: [&[Arg<'_>]; 4] = [&call.k.args(), &call.v.args(), &call.cache.args(call.slots)?, &[Arg::Ptr(call.status), Arg::I32(int("tokens", call.tokens)?)]];
        let args = args.concat();
        self.store.launch(stream, kernels::store_grid(call.tokens, call.cache.kv_heads), &args)
    }

    /// Enqueues bringing tokens from slots into tiles, likewise.
    pub fn import(&self, stream: &Stream, call: &MoveSlots<'_>) -> Result<()> {
        self.shift(&self.import, stream, call)
    }

    /// Enqueues taking tokens from tiles into slots. Codes are kept bit for bit; a side that norm correction changed comes
    /// back to within one step of its f16.
    pub fn export(&self, stream: &Stream, call: &MoveSlots<'_>) -> Result<()> {
        self.shift(&self.export, stream, call)
    }

    fn shift(&self, kernel: &Kernel, stream: &Stream, call: &MoveSlots<'_>) -> Result<()> {
        let SlotsSpec { codec, head_dim, page_tokens, .. } = self.spec;
        self.check_slots(&call.slots)?;
        call.tiles.check(&Shape { codec, head_dim, page_tokens })?;
        agree("kv_heads", call.tiles.kv_heads, call.slots.kv_heads, "slots")?;
        if call.tokens == 0 {
            return Ok(());
        }
        within("tokens", call.tokens, 1, i32::MAX as usize)?;
        check_places("slots", call.at, call.tokens)?;
        check_places("places", call.places, call.tokens)?;
        call.status.expect("status", "four i32 on the device", 4, status::BYTES)?;
        let tiles = [Arg::Ptr(call.tiles.base), Arg::Ptr(call.places), Arg::I64(call.tiles.slots()?), Arg::I32(call.tiles.ints()?.0)];
        let args: [&[Arg<'_>]; 3] = [&call.slots.args(call.at)?, &tiles, &[Arg::Ptr(call.status), Arg::I32(int("tokens", call.tokens)?)]];
        let args = args.concat();
        kernel.launch(stream, kernels::store_grid(call.tokens, call.tiles.kv_heads), &args)
    }

    /// Fails unless every slot that the strides reach lies inside the memory.
    fn check_slots(&self, cache: &SlotCache<'_>) -> Result<()> {
        agree("page_tokens", cache.page_tokens, self.spec.slot_page_tokens, "plan")?;
        cache.check(kernels::slots::slot_bytes(self.spec.codec.info(), self.spec.head_dim))
    }
}

impl<'a> SlotCache<'a> {
    /// As kernels take them, `kernels::slots::Slots`, with the place of each token.
    fn args(&self, at: Span<'a>) -> Result<[Arg<'a>; 6]> {
        let [page, token, head] = self.strides().map(Arg::I64);
        Ok([Arg::Ptr(self.base), Arg::Ptr(at), Arg::I64(self.slots()?), page, token, head])
    }

    fn strides(&self) -> [i64; 3] {
        [self.page_stride, self.token_stride, self.head_stride]
    }

    fn slots(&self) -> Result<i64> {
        Ok(product("the number of slots", &[self.pages, self.page_tokens])? as i64)
    }

    fn check(&self, slot: usize) -> Result<()> {
        within("kv_heads", self.kv_heads, 1, 65535)?;
        within("pages", self.pages, 1, i32::MAX as usize)?;
        if let Some(value) = self.strides().into_iter().find(|s| *s < 0 || s % 2 != 0) {
            return Err(Misuse::Range { what: "a stride of the slots", value, allowed: "an even number of bytes, not negative".into() }.into());
        }
        let last = |count: usize, stride: i64| (count as u64 - 1).checked_mul(stride as u64);
        let reach = || last(self.pages, self.page_stride)?.checked_add(last(self.page_tokens, self.token_stride)?)?.checked_add(last(self.kv_heads, self.head_stride)?)?.checked_add(slot as u64);
        let need = reach().filter(|n| *n <= i64::MAX as u64).ok_or(Misuse::Overflow { what: "the cache of slots", limit: "63 bits" })?;
        Ok(self.base.expect("the cache of slots", "the first page", 2, need)?)
    }
}

fn check_places(what: &'static str, places: Span<'_>, tokens: usize) -> Result<()> {
    Ok(places.expect(what, "one i64 a token", 8, product(what, &[8, tokens])?)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_slot_must_lie_inside() {
        let cache = |bytes, strides: [i64; 3]| SlotCache { base: Span::made_up(0x1002, bytes), pages: 3, page_tokens: 16, kv_heads: 2, page_stride: strides[0], token_stride: strides[1], head_stride: strides[2] };
        let (slot, plain) = (134, [16 * 2 * 134, 2 * 134, 134]);
        assert!(cache(3 * 16 * 2 * 134, plain).check(slot).is_ok());
        assert!(cache(3 * 16 * 2 * 134 - 1, plain).check(slot).is_err());
        // Heads first, as some engines have it.
        assert!(cache(3 * 16 * 2 * 134, [16 * 2 * 134, 134, 16 * 134]).check(slot).is_ok());
        for strides in [[-2, 268, 134], [4288, 267, 134], [i64::MAX - 1, 268, 134]] {
            assert!(cache(u64::MAX, strides).check(slot).is_err(), "{strides:?}");
        }
        assert!(SlotCache { pages: 0, ..cache(u64::MAX, plain) }.check(slot).is_err());
    }
}
