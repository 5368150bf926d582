//! Attention of one query token a sequence over the cache.
//!
//! A block that has all of a sequence writes its output. Where tables are longer than a block's share, blocks leave
//! partial results in the workspace and a second kernel joins them. Leaves of 256 tokens and the tree along which they
//! are folded are fixed, the share only says who folds which, so the result has the same bits for every share.

use std::sync::Arc;

use super::records::{Buffers, Records, Tokens, agrees};
use super::store::size_of_elem;
use super::variants::{Build, Variant, Variants};
use super::workspace::Workspace;
use super::{counter_of, load, status};
use crate::argument::{Misuse, int, product, within};
use crate::calibration::Layer;
use crate::codec::Codec;
use crate::cuda::{Arg, Device, Kernel, Span, Stream};
use crate::error::Result;
use crate::page::{PagedCache, Shape};
use crate::tuning::Point;
use kernels_gen::kernels::decode_attention::DecodeMeta;
use kernels_gen::kernels::few::FEW;
use kernels_gen::kernels::join_splits::NARROW;
use kernels_gen::kernels::{self, Elem, LEAF};

/// What a decode plan is compiled for.
#[derive(Clone, Copy, Debug)]
pub struct DecodeSpec {
    /// The codec.
    pub codec: Codec,
    /// Dims a head: 64, 128 or 256.
    pub head_dim: usize,
    /// Query heads that share a kv head: 1 to 8, or 16.
    pub group: usize,
    /// Tokens a page: a multiple of 32.
    pub page_tokens: usize,
    /// Type of q and of the output.
    pub elem: Elem,
    /// Most blocks that share one sequence's kv head, as far as blocks take that much of it; 0 fills the device.
    pub splits: usize,
}

/// One decode call.
#[derive(Clone, Copy, Debug)]
pub struct Decode<'a> {
    /// Sequences.
    pub batch: usize,
    /// `[batch, heads, d]`, 16-byte aligned; heads = group * the cache's kv_heads.
    pub q: Span<'a>,
    /// The cache.
    pub cache: PagedCache<'a>,
    /// i32 `[batch, table_stride]`: the pages of each sequence in order.
    pub table: Span<'a>,
    /// Entries a row of the table.
    pub table_stride: usize,
    /// i32 `[batch]`: tokens of each sequence.
    pub lens: Span<'a>,
    /// `[batch, heads, d]`, 16-byte aligned.
    pub out: Span<'a>,
    /// f32 `[batch, heads]`: natural log of the sum of exponentials, if wanted.
    pub lse: Option<Span<'a>>,
    /// Factor on q . k, usually 1 / sqrt(d).
    pub scale: f32,
    /// At least [`DecodePlan::workspace_bytes`], 16-byte aligned; in use until the work has run.
    pub workspace: Span<'a>,
    /// i32 `[4]`, see [`status`].
    pub status: Span<'a>,
}

/// The decode and join kernels, ready.
#[derive(Debug)]
pub struct DecodePlan {
    shape: Shape,
    group: usize,
    elem: Elem,
    splits: usize,
    decode: Variants,
    join: Arc<Kernel>,
    /// For tables of few splits.
    narrow: Arc<Kernel>,
    /// Of a calibrated codec, or one whose blocks have bases.
    records: Option<Records>,
    counts: bool,
}

impl DecodePlan {
    /// Compiles and loads. Slow the first time; not while a stream is being captured.
    pub fn prepare(device: &Device, spec: &DecodeSpec) -> Result<Self> {
        spec.codec.check_decode(spec.head_dim, spec.group, spec.page_tokens)?;
        Self::assemble(device, spec, false, |build| Variants::prepare(device, &kernel_name(spec), own_meta(spec).within(device.shared_bytes()), build))
    }

    /// As `prepare`, of the decode kernel's twin that counts: the same outputs, by [`launch_counted`](Self::launch_counted).
    pub fn counted(device: &Device, spec: &DecodeSpec) -> Result<Self> {
        spec.codec.check_decode(spec.head_dim, spec.group, spec.page_tokens)?;
        Self::assemble(device, spec, true, |build| Variants::forced(device, own_meta(spec).within(device.shared_bytes()), build))
    }

    /// As `prepare`, with warps, stages and blocks an SM of another meta value, whatever a tuning says.
    pub fn with_meta(device: &Device, spec: &DecodeSpec, meta: DecodeMeta) -> Result<Self> {
        Self::assemble(device, spec, false, |build| Variants::forced(device, meta.within(device.shared_bytes()), build))
    }

    /// A warp takes so many tokens where no tuning says it, 0: as the plan's rule has it. What a tuner tries.
    pub(crate) fn take(&mut self, tokens: usize) {
        self.decode.take(tokens);
    }

    fn assemble(device: &Device, spec: &DecodeSpec, counts: bool, variants: impl FnOnce(Build<'_>) -> Result<Variants>) -> Result<Self> {
        let DecodeSpec { codec, head_dim, group, page_tokens, elem, splits } = *spec;
        codec.check_decode(head_dim, group, page_tokens)?;
        within("splits", splits, 0, i32::MAX as usize)?;
        let decode = variants(&|m| match counts {
            true => kernels::counted(&kernels::decode_ir(codec.info(), m, elem)?),
            false => kernels::decode_of(codec.info(), m, elem),
        })?;
        let own = decode.own().meta;
        let wide = kernels::join_after(&own);
        let join = load(device, kernels::join_of(codec.info(), &wide, elem))?;
        let narrow = load(device, kernels::join_of(codec.info(), &wide.narrow(), elem))?;
        let records = Records::prepare(device, codec, &own, elem)?;
        Ok(DecodePlan { shape: Shape { codec, head_dim, page_tokens }, group, elem, splits, decode, join, narrow, records, counts })
    }

    /// Bytes of workspace that serve launches of this size and of every smaller one, however they are cut; the memory is the
    /// caller's.
    pub fn workspace_bytes(&self, batch: usize, heads: usize, table_stride: usize) -> Result<u64> {
        let capacity = capacity(table_stride, self.shape.page_tokens)?;
        // The least share of a block is the same for every shape of the kernel.
        let m = &self.decode.own().meta;
        Workspace::new(batch, heads, m, capacity, Some(m.least()))?.bytes()
    }

    /// The kernel for a call of that size, and how it is cut.
    fn space(&self, batch: usize, heads: usize, capacity: usize) -> Result<(&Variant, Workspace)> {
        let rows = product("the batch", &[batch, self.decode.own().meta.kv_heads(heads)])? as usize;
        let (variant, tokens) = self.decode.of(Point { rows, tokens: capacity });
        let m = &variant.meta;
        let unit = match (self.splits, tokens) {
            (0, 0) => kernels::whole_unit(m, rows, capacity, variant.resident),
            (0, tokens) => Some(((tokens / LEAF).max(1).ilog2() as usize).clamp(m.least(), m.depth)),
            (most, _) => Some(unit_within(m, most, capacity)),
        };
        Ok((variant, Workspace::new(batch, heads, m, capacity, unit)?))
    }

    /// Enqueues the attention: one or two launches, no allocation, no wait, nothing read back. The shapes are
    /// the host's, the lengths and tables the device's: a captured graph serves new ones.
    pub fn launch(&self, stream: &Stream, call: &Decode<'_>) -> Result<()> {
        self.enqueue(stream, call, None, None)
    }

    /// As `launch`, for a calibrated codec over a cache of that layer: one launch more.
    pub fn launch_calibrated(&self, stream: &Stream, call: &Decode<'_>, layer: &Layer<'_>) -> Result<()> {
        self.enqueue(stream, call, Some(layer), None)
    }

    /// As `launch` or `launch_calibrated`, of a plan that was made to count: adds the bytes of the cache that the kernel read and
    /// wrote to the two i64 of `counter`.
    pub fn launch_counted(&self, stream: &Stream, call: &Decode<'_>, layer: Option<&Layer<'_>>, counter: Span<'_>) -> Result<()> {
        self.enqueue(stream, call, layer, Some(counter))
    }

    /// Enqueues only what makes records of queries before attention, of a codec whose blocks have bases; for others nothing. What a bench
    /// times apart.
    pub fn launch_records(&self, stream: &Stream, call: &Decode<'_>) -> Result<()> {
        let capacity = capacity(call.table_stride, self.shape.page_tokens)?;
        call.cache.check(&self.shape)?;
        agrees(self.shape.codec, call, None, capacity)?;
        let heads = product("the number of heads", &[self.group, call.cache.kv_heads])? as usize;
        let (_, space) = self.space(call.batch, heads, capacity)?;
        self.check(call, heads, &space)?;
        let [.., records] = space.cut(call)?;
        self.records.iter().try_for_each(|of| of.launch(stream, call, None, records, capacity, Tokens { queries: 1, first: 0, blocks: 1 }))
    }

    fn enqueue(&self, stream: &Stream, call: &Decode<'_>, layer: Option<&Layer<'_>>, counter: Option<Span<'_>>) -> Result<()> {
        let counter = counter_of(self.counts, counter)?;
        call.cache.check(&self.shape)?;
        let capacity = capacity(call.table_stride, self.shape.page_tokens)?;
        agrees(self.shape.codec, call, layer, capacity)?;
        if call.batch == 0 {
            return Ok(());
        }
        let heads = product("the number of heads", &[self.group, call.cache.kv_heads])? as usize;
        within("batch", call.batch, 1, 65535)?;
        within("the number of heads", heads, 1, 65535)?;
        let (variant, space) = self.space(call.batch, heads, capacity)?;
        self.check(call, heads, &space)?;
        let [part, stat, chosen, own_lse, records] = space.cut(call)?;
        let lse = call.lse.unwrap_or(own_lse);
        let splits = int("the number of splits", space.splits)?;
        let (_, pages) = call.cache.ints()?;
        // As many as the kernels take them for.
        let (group, of_batch) = (variant.meta.group, variant.meta.kv_heads(heads));
        let kv_heads = int("the number of heads", of_batch)?;
        let segments = int("the number of segments", space.segments)?;
        let stride = int("table_stride", call.table_stride)?;
        if let Some(of) = &self.records {
            of.launch(stream, call, layer, records, capacity, Tokens { queries: 1, first: 0, blocks: 1 })?;
        }
        // As many blocks as run at once, and no more than there can be parts. If all are whole sequences, or every part that there can be
        // has a block of its own, nothing needs counting; for few sequences each block does it by itself.
        let most = call.batch * space.splits * of_batch;
        let own = if space.splits == 1 { variant.in_order(most, capacity) } else { most <= variant.resident };
        let blocks = int("the number of blocks", if own { most } else { variant.resident.clamp(1, most) })?;
        let unit = space.unit.or(own.then(|| variant.meta.least()));
        let maps = Buffers::of(layer);
        let q = [Arg::Ptr(if self.records.is_some() { records } else { call.q })];
        let decode = [
            Arg::Ptr(call.cache.base),
            Arg::Ptr(call.table),
            Arg::Ptr(call.lens),
            Arg::Ptr(call.out),
            Arg::Ptr(lse),
            Arg::Ptr(part),
            Arg::Ptr(stat),
            Arg::Ptr(chosen),
            Arg::Ptr(call.status),
            Arg::I32(int("batch", call.batch)?),
            Arg::I32(kv_heads),
            Arg::I32(pages),
            Arg::I32(stride),
            Arg::I32(segments),
            Arg::I32(splits),
            Arg::I32(blocks),
            Arg::I32(unit.map_or(-1, |unit| unit as i32)),
            Arg::I32(if own {
                1
            } else if call.batch <= FEW {
                2
            } else {
                0
            }),
            Arg::F32(call.scale),
        ];
        variant.kernel.launch_with(stream, [blocks as u32, 1, 1], &[&q, maps.args(), &decode, counter.as_slice()])?;
        if space.splits > 1 {
            let join = [
                Arg::Ptr(part),
                Arg::Ptr(stat),
                Arg::Ptr(chosen),
                Arg::Ptr(call.table),
                Arg::Ptr(call.lens),
                Arg::Ptr(call.out),
                Arg::Ptr(lse),
                Arg::Ptr(call.status),
                Arg::I32(kv_heads),
                Arg::I32(int("the group", group)?),
                Arg::I32(splits),
                Arg::I32(pages),
                Arg::I32(stride),
                Arg::I32(unit.filter(|_| own).map_or(-1, |unit| kernels::log_share(&variant.meta, unit) as i32)),
                Arg::I32(i32::from(variant.hurries(blocks as usize))),
            ];
            let kernel = if space.splits <= NARROW { &self.narrow } else { &self.join };
            kernel.launch_with(stream, [group as u32, of_batch as u32, call.batch as u32], &[maps.args(), &join])?;
        }
        Ok(())
    }

    /// The decode and the join kernel, for their attributes.
    pub fn kernels(&self) -> [&Kernel; 2] {
        [&self.decode.own().kernel, &self.join]
    }

    /// Which tuning the plan goes by, or why it goes by its own rules.
    pub fn tuning(&self) -> &str {
        self.decode.note()
    }

    /// Parts that a sequence as long as its table comes to in a call of this size.
    pub fn splits_for(&self, batch: usize, kv_heads: usize, capacity: usize) -> Result<usize> {
        let (Variant { meta, resident, .. }, space) = self.space(batch, kv_heads * self.group, capacity)?;
        let chosen = || kernels::best_unit(meta, batch * kv_heads * meta.fold, capacity, *resident);
        Ok(kernels::splits_of(meta, capacity, space.unit.unwrap_or_else(chosen)))
    }

    fn check(&self, call: &Decode<'_>, heads: usize, space: &Workspace) -> Result<()> {
        finite(call.scale)?;
        let elem_bytes = size_of_elem(self.elem);
        let rows = product("q", &[call.batch, heads, self.shape.head_dim, elem_bytes])?;
        call.q.expect("q", "the first query row", 16, rows)?;
        call.out.expect("out", "the first output row", 16, rows)?;
        call.table.expect("table", "the first sequence's pages", 4, product("table", &[call.batch, call.table_stride, 4])?)?;
        call.lens.expect("lens", "one i32 a sequence", 4, 4 * call.batch as u64)?;
        call.status.expect("status", "four i32 on the device", 4, status::BYTES)?;
        if let Some(lse) = call.lse {
            lse.expect("lse", "one f32 a query row", 4, product("lse", &[call.batch, heads, 4])?)?;
        }
        Ok(call.workspace.expect("workspace", "workspace_bytes() of device memory", 16, space.bytes()?)?)
    }
}

/// What a tuning calls the plan's decode kernel.
pub(crate) fn kernel_name(spec: &DecodeSpec) -> String {
    let DecodeSpec { codec, head_dim, group, page_tokens, elem, .. } = spec;
    format!("decode {} d{head_dim} group{group} page{page_tokens} {}", if codec.kivi().is_some() || codec.pca().is_some() { codec.name() } else { codec.info().name }, if *elem == Elem::Bf16 { "bf16" } else { "f32" })
}

/// The meta value that the plan's own rules give.
pub(crate) fn own_meta(spec: &DecodeSpec) -> DecodeMeta {
    if let Some(kivi) = spec.codec.kivi() {
        return kernels::kivi::decode_meta(kivi, spec.head_dim, spec.group, spec.page_tokens);
    }
    if let Some(pca) = spec.codec.pca() {
        return kernels::pca::decode_meta(pca, spec.head_dim, spec.group);
    }
    let of = if spec.codec.calibrated().is_ok() { kernels::calibrated_meta } else { kernels::decode_meta };
    of(spec.codec.info(), spec.head_dim, spec.group, spec.page_tokens)
}

/// log2 of the leaves of a warp that makes no more than `most` parts of a sequence, if anything does.
pub(super) fn unit_within(m: &DecodeMeta, most: usize, capacity: usize) -> usize {
    (m.least()..m.depth).find(|&unit| kernels::splits_of(m, capacity, unit) <= most).unwrap_or(m.depth)
}

/// Fails for a scale that would make every score NaN.
pub(crate) fn finite(scale: f32) -> Result<()> {
    if scale.is_finite() {
        return Ok(());
    }
    Err(Misuse::Other(format!("scale is {scale}; pass a finite number, usually 1/sqrt(head_dim)")).into())
}

/// Tokens that one row of the page table can name.
pub(crate) fn capacity(table_stride: usize, page_tokens: usize) -> Result<usize> {
    within("table_stride", table_stride, 1, i32::MAX as usize / page_tokens)?;
    Ok(table_stride * page_tokens)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_name_a_bounded_number_of_tokens() {
        assert!(capacity(0, 32).is_err() && capacity(1 << 26, 64).is_err());
        assert_eq!(capacity((1 << 26) - 1, 32).unwrap(), ((1 << 26) - 1) * 32);
    }

    #[test]
    fn blocks_fill_the_device() {
        let m = kernels::decode_meta(Codec::open("int4").unwrap().info(), 128, 4, 64);
        assert_eq!((m.warps, m.depth), (8, 2));
        // 264 blocks fit. Eight rows: all of them work.
        let splits = |rows, capacity| kernels::splits_of(&m, capacity, kernels::best_unit(&m, rows, capacity, 264));
        assert_eq!((splits(8, 131072), splits(8, 32768), splits(8, 256)), (32, 16, 1));
        assert_eq!((splits(256, 8192), splits(64, 32768), splits(512, 4096), splits(0, 0)), (1, 4, 1, 1));
        // A block has whole sequences where they are short enough and many enough.
        let whole = |rows, capacity| kernels::whole_unit(&m, rows, capacity, 264);
        assert_eq!((whole(256, 8192), whole(512, 4096), whole(376, 4096), whole(8, 1000)), (Some(2), Some(1), Some(1), Some(0)));
        assert_eq!((whole(8, 8192), whole(256, 8193), whole(8, 131072)), (None, None, None));
        // A chosen number is a bound, as far as a block takes that much.
        let fixed = |most| kernels::splits_of(&m, 32768, unit_within(&m, most, 32768));
        assert_eq!((fixed(1), fixed(4), fixed(7), fixed(8), fixed(100)), (4, 4, 4, 8, 16));
    }
}
