//! Attention of one query token a sequence over the cache.
//!
//! Two launches: splits of each sequence's segments leave partial results in the workspace, then a
//! second kernel joins the segments in index order. The segments are fixed (512 tokens), the splits
//! only say which block works on which, so the result has the same bits for every number of splits.

use std::sync::Arc;

use super::store::size_of_elem;
use super::{load, status};
use crate::argument::{Misuse, int, product, within};
use crate::codec::Codec;
use crate::cuda::{Arg, Device, Kernel, Span, Stream};
use crate::error::Result;
use crate::page::{PagedCache, Shape};
use kernels_gen::kernels::decode_attention::DecodeMeta;
use kernels_gen::kernels::join_splits::NARROW;
use kernels_gen::kernels::{self, Elem, SEGMENT};

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
}

/// Where the partial results lie in the workspace, in bytes.
struct Workspace {
    segments: usize,
    part: u64,
    stat: u64,
    lse: u64,
}

impl Workspace {
    /// f32 part `[batch, heads, segments, d]`, stat `[batch, heads, segments, 2]`, lse `[batch, heads]`,
    /// each rounded up to 256 bytes.
    fn new(batch: usize, heads: usize, d: usize, capacity: usize) -> Result<Self> {
        let segments = capacity.div_ceil(SEGMENT);
        let rounded =
            |factors: &[usize]| Ok::<_, crate::Error>(product("the workspace", factors)?.next_multiple_of(256));
        Ok(Workspace {
            segments,
            part: rounded(&[batch, heads, segments, d, 4])?,
            stat: rounded(&[batch, heads, segments, 2, 4])?,
            lse: rounded(&[batch, heads, 4])?,
        })
    }

    fn bytes(&self) -> Result<u64> {
        let sum = self.part.checked_add(self.stat).and_then(|s| s.checked_add(self.lse));
        Ok(sum.ok_or(Misuse::Overflow { what: "the workspace", limit: "64 bits" })?)
    }
}

impl DecodePlan {
    /// Compiles and loads. Slow the first time; not while a stream is being captured.
    pub fn prepare(device: &Device, spec: &DecodeSpec) -> Result<Self> {
        let DecodeSpec { codec, head_dim, group, page_tokens, elem, splits } = *spec;
        codec.check_decode(head_dim, group, page_tokens)?;
        within("splits", splits, 0, i32::MAX as usize)?;
        let meta = kernels::decode_meta(codec.info(), head_dim, group, page_tokens).within(device.shared_bytes());
        let decode = load(device, kernels::decode_of(codec.info(), &meta, elem))?;
        let wide = kernels::join_meta(head_dim, page_tokens);
        let join = load(device, kernels::join_of(codec.info(), &wide, elem))?;
        let narrow = load(device, kernels::join_of(codec.info(), &wide.narrow(), elem))?;
        let resident = device.multiprocessors() * decode.attributes().blocks_per_multiprocessor.max(1) as usize;
        Ok(DecodePlan { shape: Shape { codec, head_dim, page_tokens }, group, elem, splits, meta, resident, decode, join, narrow })
    }

    /// Bytes of workspace that a launch of this size needs; the memory is the caller's.
    pub fn workspace_bytes(&self, batch: usize, heads: usize, table_stride: usize) -> Result<u64> {
        let capacity = capacity(table_stride, self.shape.page_tokens)?;
        Workspace::new(batch, heads, self.shape.head_dim, capacity)?.bytes()
    }

    /// Enqueues the attention: two launches, no allocation, no wait, nothing read back. The shapes are
    /// the host's, the lengths and tables the device's: a captured graph serves new ones.
    pub fn launch(&self, stream: &Stream, call: &Decode<'_>) -> Result<()> {
        call.cache.check(&self.shape)?;
        if call.batch == 0 {
            return Ok(());
        }
        let heads = product("the number of heads", &[self.group, call.cache.kv_heads])? as usize;
        within("batch", call.batch, 1, 65535)?;
        within("the number of heads", heads, 1, 65535)?;
        let capacity = capacity(call.table_stride, self.shape.page_tokens)?;
        let space = Workspace::new(call.batch, heads, self.shape.head_dim, capacity)?;
        self.check(call, heads, &space)?;
        let part = call.workspace.part(0, space.part)?;
        let stat = call.workspace.part(space.part, space.stat)?;
        let lse = call.lse.map_or_else(|| call.workspace.part(space.part + space.stat, space.lse), Ok)?;
        let splits = self.splits_for(call.batch, call.cache.kv_heads, space.segments);
        let (kv_heads, pages) = call.cache.ints()?;
        let segments = int("the number of segments", space.segments)?;
        let decode = [
            Arg::Ptr(call.q),
            Arg::Ptr(call.cache.base),
            Arg::Ptr(call.table),
            Arg::Ptr(call.lens),
            Arg::Ptr(part),
            Arg::Ptr(stat),
            Arg::Ptr(call.status),
            Arg::I32(kv_heads),
            Arg::I32(pages),
            Arg::I32(int("table_stride", call.table_stride)?),
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
            Arg::Ptr(call.out),
            Arg::Ptr(lse),
            Arg::Ptr(call.status),
            Arg::I32(kv_heads),
            Arg::I32(int("the group", self.group)?),
            Arg::I32(segments),
            Arg::I32(pages),
            Arg::I32(int("table_stride", call.table_stride)?),
        ];
        let kernel = if space.segments <= NARROW { &self.narrow } else { &self.join };
        kernel.launch(stream, [self.group as u32, call.cache.kv_heads as u32, call.batch as u32], &join)
    }

    /// The decode and the join kernel, for their attributes.
    pub fn kernels(&self) -> [&Kernel; 2] {
        [&self.decode, &self.join]
    }

    /// How many blocks share a sequence's kv head when the plan leaves it open.
    pub fn splits_for(&self, batch: usize, kv_heads: usize, segments: usize) -> usize {
        match self.splits {
            0 => best_splits(self.resident, batch * kv_heads, segments.div_ceil(self.meta.warps)),
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
fn best_splits(resident: usize, rows: usize, segments: usize) -> usize {
    let (resident, rows, segments) = (resident.max(1), rows.max(1), segments.max(1));
    let time = |splits: usize| (rows * splits).div_ceil(resident) * (4 * segments.div_ceil(splits) + 1);
    // Beyond a few waves more splits never win.
    let most = segments.min(4 * resident.div_ceil(rows));
    (1..=most).min_by_key(|&splits| time(splits)).unwrap_or(1)
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
        let space = Workspace::new(3, 8, 128, 1025).unwrap();
        assert_eq!((space.segments, space.part, space.stat, space.lse), (3, 3 * 8 * 3 * 128 * 4, 768, 256));
        assert_eq!(space.bytes().unwrap(), space.part + 768 + 256);
        assert!(Workspace::new(usize::MAX, 8, 128, 1024).is_err());
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
}
