//! Attention of one query token a sequence over the cache.
//!
//! Two launches: splits of each sequence's segments leave partial results in the workspace, then a
//! second kernel joins the segments in index order. The segments are fixed (512 tokens), the splits
//! only say which block works on which, so the result has the same bits for every number of splits.

use std::sync::Arc;

use super::store::size_of_elem;
use super::{load, status};
use crate::argument::{Misuse, int, product, within};
use crate::calibration::{Layer, needs};
use crate::codec::Codec;
use crate::cuda::{Arg, Device, Kernel, Span, Stream};
use crate::error::Result;
use crate::page::{PagedCache, Shape};
use kernels_gen::kernels::decode_attention::DecodeMeta;
use kernels_gen::kernels::join_splits::NARROW;
use kernels_gen::kernels::maps::MapMeta;
use kernels_gen::kernels::{self, Elem, Mapping, SEGMENT};

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
    /// Blocks that share one sequence's kv head; 0 fills the device.
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
    meta: DecodeMeta,
    resident: usize,
    decode: Arc<Kernel>,
    join: Arc<Kernel>,
    /// For tables of few segments.
    narrow: Arc<Kernel>,
    /// Of a calibrated codec: queries before, outputs after.
    around: Option<[(MapMeta, Arc<Kernel>); 2]>,
}

/// Where the partial results lie in the workspace, in bytes.
struct Workspace {
    segments: usize,
    part: u64,
    stat: u64,
    lse: u64,
    /// Of a calibrated codec: queries, then joined outputs.
    records: u64,
    joined: u64,
}

impl Workspace {
    /// f32 part `[batch, heads, segments, d]`, stat `[batch, heads, segments, 2]`, lse `[batch, heads]`, each rounded
    /// up to 256 bytes; of a calibrated codec also records `[batch, kv_heads, segments, record]` and f32 outputs.
    fn new(batch: usize, heads: usize, m: &DecodeMeta, capacity: usize) -> Result<Self> {
        let (segments, d) = (capacity.div_ceil(SEGMENT), m.d);
        let joined = if m.record > 0 { d } else { 0 };
        let rounded =
            |factors: &[usize]| Ok::<_, crate::Error>(product("the workspace", factors)?.next_multiple_of(256));
        Ok(Workspace {
            segments,
            part: rounded(&[batch, heads, segments, d, 4])?,
            stat: rounded(&[batch, heads, segments, 2, 4])?,
            lse: rounded(&[batch, heads, 4])?,
            records: rounded(&[batch, heads / m.group, segments, m.record])?,
            joined: rounded(&[batch, heads, joined, 4])?,
        })
    }

    fn bytes(&self) -> Result<u64> {
        let sum = [self.stat, self.lse, self.records, self.joined].into_iter().try_fold(self.part, u64::checked_add);
        Ok(sum.ok_or(Misuse::Overflow { what: "the workspace", limit: "64 bits" })?)
    }
}

impl DecodePlan {
    /// Compiles and loads. Slow the first time; not while a stream is being captured.
    pub fn prepare(device: &Device, spec: &DecodeSpec) -> Result<Self> {
        let DecodeSpec { codec, head_dim, group, page_tokens, elem, splits } = *spec;
        codec.check_decode(head_dim, group, page_tokens)?;
        within("splits", splits, 0, i32::MAX as usize)?;
        let calibrated = codec.calibrated().is_ok();
        let meta_of = if calibrated { kernels::calibrated_meta } else { kernels::decode_meta };
        let meta = meta_of(codec.info(), head_dim, group, page_tokens).within(device.shared_bytes());
        let inner = if calibrated { Elem::F32 } else { elem };
        let decode = load(device, kernels::decode_of(codec.info(), &meta, inner))?;
        let wide = kernels::join_meta(head_dim, page_tokens);
        let join = load(device, kernels::join_of(codec.info(), &wide, inner))?;
        let narrow = load(device, kernels::join_of(codec.info(), &wide.narrow(), inner))?;
        let map = |mapping| -> Result<(MapMeta, Arc<Kernel>)> {
            let m = kernels::map_meta(codec.info(), head_dim, group, page_tokens, mapping);
            Ok((m, load(device, kernels::map_of(codec.info(), &m, mapping, elem))?))
        };
        let around = if calibrated { Some([map(Mapping::Queries)?, map(Mapping::Outputs)?]) } else { None };
        let resident = device.multiprocessors() * decode.attributes().blocks_per_multiprocessor.max(1) as usize;
        Ok(DecodePlan { shape: Shape { codec, head_dim, page_tokens }, group, elem, splits, meta, resident, decode, join, narrow, around })
    }

    /// Bytes of workspace that a launch of this size needs; the memory is the caller's.
    pub fn workspace_bytes(&self, batch: usize, heads: usize, table_stride: usize) -> Result<u64> {
        let capacity = capacity(table_stride, self.shape.page_tokens)?;
        Workspace::new(batch, heads, &self.meta, capacity)?.bytes()
    }

    /// Enqueues the attention: two launches, no allocation, no wait, nothing read back. The shapes are
    /// the host's, the lengths and tables the device's: a captured graph serves new ones.
    pub fn launch(&self, stream: &Stream, call: &Decode<'_>) -> Result<()> {
        self.enqueue(stream, call, None)
    }

    /// As `launch`, for a calibrated codec over a cache of that layer: two launches more.
    pub fn launch_calibrated(&self, stream: &Stream, call: &Decode<'_>, layer: &Layer<'_>) -> Result<()> {
        self.enqueue(stream, call, Some(layer))
    }

    fn enqueue(&self, stream: &Stream, call: &Decode<'_>, layer: Option<&Layer<'_>>) -> Result<()> {
        call.cache.check(&self.shape)?;
        if layer.is_some() != self.around.is_some() {
            return Err(needs(self.shape.codec).into());
        }
        layer.map_or(Ok(()), |layer| layer.check(self.shape.codec, &call.cache))?;
        if call.batch == 0 {
            return Ok(());
        }
        let heads = product("the number of heads", &[self.group, call.cache.kv_heads])? as usize;
        within("batch", call.batch, 1, 65535)?;
        within("the number of heads", heads, 1, 65535)?;
        let capacity = capacity(call.table_stride, self.shape.page_tokens)?;
        layer.map_or(Ok(()), |layer| layer.reaches(capacity))?;
        let space = Workspace::new(call.batch, heads, &self.meta, capacity)?;
        self.check(call, heads, &space)?;
        let part = call.workspace.part(0, space.part)?;
        let stat = call.workspace.part(space.part, space.stat)?;
        let own_lse = call.workspace.part(space.part + space.stat, space.lse)?;
        let records = call.workspace.part(space.part + space.stat + space.lse, space.records)?;
        let joined = call.workspace.part(space.part + space.stat + space.lse + space.records, space.joined)?;
        let lse = call.lse.unwrap_or(own_lse);
        let splits = self.splits_for(call.batch, call.cache.kv_heads, space.segments);
        let (kv_heads, pages) = call.cache.ints()?;
        let segments = int("the number of segments", space.segments)?;
        let stride = int("table_stride", call.table_stride)?;
        if let (Some([(m, queries), _]), Some(layer)) = (&self.around, layer) {
            let args = [
                Arg::Ptr(call.q),
                Arg::Ptr(layer.turns()),
                Arg::Ptr(layer.maps()),
                Arg::Ptr(layer.scales()),
                Arg::Ptr(call.lens),
                Arg::Ptr(records),
                Arg::I32(kv_heads),
                Arg::I32(stride),
                Arg::I32(segments),
                Arg::F32(call.scale),
            ];
            queries.launch(stream, kernels::queries_grid(m, space.segments, call.cache.kv_heads, call.batch), &args)?;
        }
        let decode = [
            Arg::Ptr(if layer.is_some() { records } else { call.q }),
            Arg::Ptr(call.cache.base),
            Arg::Ptr(call.table),
            Arg::Ptr(call.lens),
            Arg::Ptr(part),
            Arg::Ptr(stat),
            Arg::Ptr(call.status),
            Arg::I32(kv_heads),
            Arg::I32(pages),
            Arg::I32(stride),
            Arg::I32(segments),
            Arg::I32(int("the segments of a warp", kernels::run_of(&self.meta, space.segments, splits))?),
            Arg::F32(call.scale),
        ];
        let grid = [splits as u32, call.cache.kv_heads as u32, call.batch as u32];
        self.decode.launch(stream, grid, &decode)?;
        let join = [
            Arg::Ptr(part),
            Arg::Ptr(stat),
            Arg::Ptr(call.table),
            Arg::Ptr(call.lens),
            Arg::Ptr(if layer.is_some() { joined } else { call.out }),
            Arg::Ptr(lse),
            Arg::Ptr(call.status),
            Arg::I32(kv_heads),
            Arg::I32(int("the group", self.group)?),
            Arg::I32(segments),
            Arg::I32(pages),
            Arg::I32(stride),
        ];
        let kernel = if space.segments <= NARROW { &self.narrow } else { &self.join };
        kernel.launch(stream, [self.group as u32, call.cache.kv_heads as u32, call.batch as u32], &join)?;
        let (Some([_, (m, outputs)]), Some(layer)) = (&self.around, layer) else { return Ok(()) };
        let args = [
            Arg::Ptr(joined),
            Arg::Ptr(lse),
            Arg::Ptr(layer.maps()),
            Arg::Ptr(layer.scales()),
            Arg::Ptr(call.out),
            Arg::I32(int("batch", call.batch)?),
            Arg::I32(kv_heads),
        ];
        outputs.launch(stream, kernels::outputs_grid(m, call.cache.kv_heads, call.batch), &args)
    }

    /// The decode and the join kernel, for their attributes.
    pub fn kernels(&self) -> [&Kernel; 2] {
        [&self.decode, &self.join]
    }

    /// How many blocks share a sequence's kv head when the plan leaves it open.
    pub fn splits_for(&self, batch: usize, kv_heads: usize, segments: usize) -> usize {
        match self.splits {
            0 => ragged_splits(self.resident, batch, kv_heads, segments.div_ceil(self.meta.warps)),
            fixed => fixed.clamp(1, segments.max(1)),
        }
    }

    fn check(&self, call: &Decode<'_>, heads: usize, space: &Workspace) -> Result<()> {
        finite(call.scale)?;
        let elem_bytes = size_of_elem(self.elem);
        let rows = product("q", &[call.batch, heads, self.shape.head_dim, elem_bytes])?;
        call.q.expect("q", "the first query row", 16, rows)?;
        call.out.expect("out", "the first output row", 16, rows)?;
        call.table.expect(
            "table",
            "the first sequence's pages",
            4,
            product("table", &[call.batch, call.table_stride, 4])?,
        )?;
        call.lens.expect("lens", "one i32 a sequence", 4, 4 * call.batch as u64)?;
        call.status.expect("status", "four i32 on the device", 4, status::BYTES)?;
        if let Some(lse) = call.lse {
            lse.expect("lse", "one f32 a query row", 4, product("lse", &[call.batch, heads, 4])?)?;
        }
        Ok(call.workspace.expect("workspace", "workspace_bytes() of device memory", 16, space.bytes()?)?)
    }
}

/// The number of splits that ends first when every sequence is as long as the table allows: blocks run in
/// waves of `resident`, a block takes a time per segment plus a quarter of that for its own start. Fewer
/// splits on a tie.
pub(super) fn best_splits(resident: usize, rows: usize, segments: usize) -> usize {
    let (resident, rows, segments) = (resident.max(1), rows.max(1), segments.max(1));
    let time = |splits: usize| (rows * splits).div_ceil(resident) * (4 * segments.div_ceil(splits) + 1);
    // Beyond a few waves more splits never win.
    let most = segments.min(4 * resident.div_ceil(rows));
    (1..=most).min_by_key(|&splits| time(splits)).unwrap_or(1)
}

/// As `best_splits`, but where sequences may differ in length no block takes more than two turns of the longest one, as far as
/// eight waves of blocks allow: a long sequence among short ones is spread over the device.
fn ragged_splits(resident: usize, batch: usize, kv_heads: usize, segments: usize) -> usize {
    let rows = (batch * kv_heads).max(1);
    let best = best_splits(resident, rows, segments);
    let even = segments.div_ceil(2).min(8 * resident.div_ceil(rows));
    if batch > 1 { best.max(even) } else { best }
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
    fn the_workspace_holds_every_part() {
        let codec = Codec::open("kvfuse-4").unwrap();
        let m = kernels::decode_meta(codec.info(), 128, 4, 64);
        let space = Workspace::new(3, 8, &m, 1025).unwrap();
        assert_eq!((space.segments, space.part, space.stat, space.lse), (3, 3 * 8 * 3 * 128 * 4, 768, 256));
        assert_eq!(space.bytes().unwrap(), space.part + 768 + 256);
        assert!(Workspace::new(usize::MAX, 8, &m, 1024).is_err());
        // Queries of three segments and two kv heads, 8 columns of 128 bytes and 12 more each; joined rows.
        let m = kernels::calibrated_meta(codec.info(), 128, 4, 64);
        let more = Workspace::new(3, 8, &m, 1025).unwrap();
        assert_eq!((more.records, more.joined), ((3 * 2 * 3 * 8 * 140_u64).next_multiple_of(256), 3 * 8 * 128 * 4));
        assert_eq!(more.bytes().unwrap(), space.bytes().unwrap() + more.records + more.joined);
        assert!(capacity(0, 32).is_err() && capacity(1 << 26, 64).is_err());
        assert_eq!(capacity((1 << 26) - 1, 32).unwrap(), ((1 << 26) - 1) * 32);
    }

    #[test]
    fn splits_fill_the_device() {
        // 264 blocks fit. One long sequence of 8 kv heads: all of them work.
        assert_eq!(best_splits(264, 8, 32), 32);
        assert_eq!(best_splits(264, 8, 128), 32);
        assert_eq!(best_splits(264, 8, 1), 1);
        // 64 rows: 5 splits would leave a second wave nearly empty.
        assert_eq!(best_splits(264, 64, 32), 4);
        assert_eq!(best_splits(264, 256, 8), 1);
        assert_eq!(best_splits(264, 2048, 4), 1);
        assert_eq!(best_splits(0, 0, 0), 1);
    }

    #[test]
    fn long_sequences_among_short_ones_are_spread() {
        // Tables for 64 Ki tokens are 16 turns of 8 warps; uniform batches keep their splits.
        assert_eq!(ragged_splits(264, 32, 8, 16), 8);
        assert_eq!((ragged_splits(264, 1, 8, 128), ragged_splits(264, 8, 8, 8), ragged_splits(264, 32, 8, 2)), (32, 4, 1));
        assert_eq!(ragged_splits(264, 256, 8, 256), 8);
    }
}
