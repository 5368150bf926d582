//! Rows of one head that is key and value at once, DeepSeek-V4's: stored as integers, attended to by all query heads.

use std::sync::Arc;

use super::{finite, load, status};
use crate::argument::{Misuse, int, product, within};
use crate::cuda::{Arg, Device, Kernel, Span, Stream};
use crate::error::{Error, Result};
use kernels_gen::kernels::latent::join::OWN;
use kernels_gen::kernels::latent::lanes::RowMeta;
use kernels_gen::kernels::latent::store::ROWS;
use kernels_gen::kernels::latent::{self, Cut};
use kernels_gen::latent::{DIM, Format, LEAF};

/// Rows on their way into a cache.
#[derive(Clone, Copy, Debug)]
pub struct StoreLatent<'a> {
    /// Rows to store.
    pub rows: usize,
    /// f32 `[rows, 512]`, normed, RoPE on the last 64 numbers; 16-byte aligned.
    pub x: Span<'a>,
    /// Where each goes: i64 `[rows]`, a row of the cache; below 0 is padding, skipped.
    pub slots: Span<'a>,
    /// The cache.
    pub cache: LatentRows<'a>,
    /// i32 `[4]`, see [`status`].
    pub status: Span<'a>,
}

/// A cache of rows, the i-th at `i * row_bytes`: pages of any size lie one after another.
#[derive(Clone, Copy, Debug)]
pub struct LatentRows<'a> {
    /// Its bytes, 16-byte aligned.
    pub base: Span<'a>,
    /// Rows that it holds.
    pub rows: usize,
}

/// A cache, and which of its rows each query token sees.
#[derive(Clone, Copy, Debug)]
pub struct LatentList<'a> {
    /// The cache.
    pub cache: LatentRows<'a>,
    /// i32 `[tokens, capacity]`: rows of the cache; one outside of it is nobody's.
    pub at: Span<'a>,
    /// Indices of a token; 0: there is no list.
    pub capacity: usize,
}

/// One decode call.
#[derive(Clone, Copy, Debug)]
pub struct DecodeLatent<'a> {
    /// Query tokens.
    pub tokens: usize,
    /// Query heads, a multiple of 64.
    pub heads: usize,
    /// bf16 `[tokens, heads, 512]`, 16-byte aligned.
    pub q: Span<'a>,
    /// Two lists under one softmax: the window's, and compressed rows.
    pub window: LatentList<'a>,
    /// The other.
    pub extra: LatentList<'a>,
    /// i32 `[tokens, 2]`: how many indices of each list count.
    pub lens: Span<'a>,
    /// f32 `[heads]`: a logit a head that only the denominator has; -inf: none.
    pub sinks: Span<'a>,
    /// bf16 `[tokens, heads, 512]`, 16-byte aligned.
    pub out: Span<'a>,
    /// f32 `[tokens, heads]`: natural log of the sum of exponentials, the sink's apart; -inf without rows.
    pub lse: Span<'a>,
    /// What scores are multiplied by.
    pub scale: f32,
    /// Rows that a block attends to, a multiple of 128. Results depend on it, and on no other choice of a launch.
    pub share: usize,
    /// Of the size that [`LatentPlan::workspace_bytes`] says, 16-byte aligned.
    pub workspace: Span<'a>,
}

/// The kernels of a format of rows, ready.
#[derive(Debug)]
pub struct LatentPlan {
    format: Format,
    /// How blocks of decode are cut here.
    cut: Cut,
    store: Arc<Kernel>,
    whole: Arc<Kernel>,
    parts: Arc<Kernel>,
    join: Arc<Kernel>,
}

impl LatentPlan {
    /// Fails unless kernels read and write rows of that format.
    pub fn check_format(format: &Format) -> Result<()> {
        RowMeta::of(format).map(drop).map_err(Error::unsupported)
    }

    /// Compiles and loads. Slow the first time; not while a stream is being captured.
    pub fn prepare(device: &Device, format: &Format) -> Result<Self> {
        Self::check_format(format)?;
        let cut = Cut::within(device.shared_bytes());
        Ok(LatentPlan {
            format: format.clone(),
            cut,
            store: load(device, latent::store(format))?,
            whole: load(device, latent::decode(format, true, cut))?,
            parts: load(device, latent::decode(format, false, cut))?,
            join: load(device, latent::join(cut))?,
        })
    }

    /// The format of its rows.
    pub fn format(&self) -> &Format {
        &self.format
    }

    /// The kernels, for their attributes: store, decode in one part, decode in parts, join.
    pub fn kernels(&self) -> [&Kernel; 4] {
        [&self.store, &self.whole, &self.parts, &self.join]
    }

    /// Bytes that a decode call needs besides: 0 where one block has all of a token's lists.
    pub fn workspace_bytes(&self, call: &DecodeLatent<'_>) -> Result<u64> {
        LatentShape::of(call).workspace_bytes()
    }

    /// Enqueues coding rows: one launch, no allocation, no wait. Zero rows enqueue nothing.
    pub fn store(&self, stream: &Stream, call: &StoreLatent<'_>) -> Result<()> {
        self.check(&call.cache)?;
        if call.rows == 0 {
            return Ok(());
        }
        call.x.expect("x", "the first row", 16, product("the rows", &[call.rows, DIM, 4])?)?;
        call.slots.expect("slots", "one i64 a row", 8, product("slots", &[8, call.rows])?)?;
        call.status.expect("status", "four i32 on the device", 4, status::BYTES)?;
        let spans = [call.x, call.slots, call.cache.base, call.status].map(Arg::Ptr);
        let counts = [Arg::I32(int("rows", call.rows)?), Arg::I32(int("the cache's rows", call.cache.rows)?)];
        self.store.launch(stream, [call.rows.div_ceil(ROWS) as u32, 1, 1], &[&spans[..], &counts].concat())
    }

    /// Enqueues attention: one launch, or two where a token's lists are several shares. No allocation, no wait. Zero tokens enqueue nothing.
    pub fn decode(&self, stream: &Stream, call: &DecodeLatent<'_>) -> Result<()> {
        let splits = LatentShape::of(call).parts()?;
        if call.tokens == 0 {
            return Ok(());
        }
        finite(call.scale)?;
        let rows = product("the query rows", &[call.tokens, call.heads, DIM, 2])?;
        call.q.expect("q", "the first row", 16, rows)?;
        call.out.expect("out", "the first row", 16, rows)?;
        call.lse.expect("lse", "one f32 a row", 4, product("lse", &[call.tokens, call.heads, 4])?)?;
        call.lens.expect("lens", "two i32 a token", 4, 8 * call.tokens as u64)?;
        call.sinks.expect("sinks", "one f32 a head", 4, 4 * call.heads as u64)?;
        for (what, list) in [("the window's indices", call.window), ("the extra indices", call.extra)] {
            if list.capacity > 0 {
                self.check(&list.cache)?;
                list.at.expect(what, "the first index", 4, product(what, &[call.tokens, list.capacity, 4])?)?;
            }
        }
        // Rows of the second cache are numbered after those of the first.
        let all = [call.window, call.extra].map(|list| if list.capacity > 0 { list.cache.rows } else { 0 });
        int("the rows of both caches", all[0].saturating_add(all[1]))?;
        let (part, stat) = if splits == 1 {
            (call.lse, call.lse)
        } else {
            let need = self.workspace_bytes(call)?;
            call.workspace.expect("workspace", "what workspace_bytes says", 16, need)?;
            let outputs = need / (DIM as u64 + 2) * DIM as u64;
            (call.workspace.part(0, outputs)?, call.workspace.part(outputs, need - outputs)?)
        };
        let mut args = vec![Arg::Ptr(call.q)];
        for (list, rows) in [call.window, call.extra].into_iter().zip(all) {
            args.extend([Arg::Ptr(list.cache.base), Arg::Ptr(list.at), Arg::I32(int("rows", rows)?), Arg::I32(int("capacity", list.capacity)?)]);
        }
        args.extend([call.lens, call.sinks, call.out, call.lse, part, stat].map(Arg::Ptr));
        args.extend([Arg::I32(int("heads", call.heads)?), Arg::I32(int("share", call.share / LEAF)?), Arg::F32(call.scale), Arg::I32(int("shares", splits)?)]);
        let kernel = if splits == 1 { &self.whole } else { &self.parts };
        kernel.launch(stream, [splits as u32, call.tokens as u32, (call.heads / self.cut.heads) as u32], &args)?;
        if splits > 1 {
            let counts = [Arg::I32(int("heads", call.heads)?), Arg::I32(int("shares", splits)?)];
            let spans = [part, stat, call.sinks, call.out, call.lse].map(Arg::Ptr);
            self.join.launch(stream, [call.tokens as u32, (call.heads / OWN) as u32, 1], &[&spans[..], &counts].concat())?;
        }
        Ok(())
    }

    fn check(&self, cache: &LatentRows<'_>) -> Result<()> {
        within("the cache's rows", cache.rows, 1, i32::MAX as usize)?;
        Ok(cache.base.expect("the cache of rows", "the first row", 16, product("the cache of rows", &[cache.rows, self.format.row_bytes()])?)?)
    }
}

/// What a decode call's sizes follow from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LatentShape {
    pub tokens: usize,
    pub heads: usize,
    pub capacities: [usize; 2],
    pub share: usize,
}

impl LatentShape {
    fn of(call: &DecodeLatent<'_>) -> Self {
        LatentShape { tokens: call.tokens, heads: call.heads, capacities: [call.window.capacity, call.extra.capacity], share: call.share }
    }

    /// Blocks of a token and its heads; fails for sizes that no launch has.
    pub fn parts(&self) -> Result<usize> {
        within("heads", self.heads, Cut::TWO.heads, 65535)?;
        if self.heads % Cut::TWO.heads != 0 {
            return Err(Misuse::Range { what: "heads", value: self.heads as i64, allowed: "a multiple of 64".into() }.into());
        }
        within("tokens", self.tokens, 0, 65535)?;
        if self.share == 0 || self.share % LEAF != 0 {
            return Err(Misuse::Range { what: "share", value: self.share as i64, allowed: "a multiple of 128, at least 128".into() }.into());
        }
        for capacity in self.capacities {
            within("the capacity of a list", capacity, 0, i32::MAX as usize)?;
        }
        let leaves: usize = self.capacities.iter().map(|c| c.div_ceil(LEAF)).sum();
        Ok(leaves.div_ceil(self.share / LEAF).max(1))
    }

    /// Bytes of a workspace.
    pub fn workspace_bytes(&self) -> Result<u64> {
        match self.parts()? {
            1 => Ok(0),
            n => Ok(product("the workspace", &[self.tokens, self.heads, n, DIM + 2, 4])?),
        }
    }
}
