//! Attention of several query tokens a sequence over the cache: speculative tokens, or a chunk of a prompt.
//!
//! Each query token has the bits that [`super::DecodePlan`] gives it alone, with the length up to itself. Blocks of query
//! tokens decode the cache once for up to 16 rows; their partial results go through a workspace of bounded size,
//! so a long chunk is enqueued as several passes of two launches; of a calibrated codec three, the first of which maps queries to every segment.

use std::sync::Arc;

use super::decode::{capacity, finite, unit_within};
use super::records::{Buffers, Records, Tokens, agrees};
use super::store::size_of_elem;
use super::{Decode, DecodeSpec, load, status};
use crate::argument::{Misuse, int, product, within};
use crate::calibration::Layer;
use crate::cuda::{Arg, Device, Kernel, Stream};
use crate::error::Result;
use crate::page::Shape;
use kernel_dsl::Source;
use kernels_gen::kernels::chunk::{self, calibrated_chunk_meta, chunk_ir, chunk_meta};
use kernels_gen::kernels::decode_attention::DecodeMeta;
use kernels_gen::kernels::join_splits::NARROW;
use kernels_gen::kernels::prefill_attention::{calibrated_prefill_meta, join_queries_ir, join_queries_meta, prefill_ir, prefill_meta};
use kernels_gen::kernels::{self, Elem, SEGMENT};

/// Bytes of partial results that a pass may take, if one block of query tokens does not need more.
const PASS_BYTES: u64 = 512 << 20;

/// The kernels for several query tokens a sequence, ready.
#[derive(Debug)]
pub struct QueriesPlan {
    shape: Shape,
    elem: Elem,
    splits: usize,
    meta: DecodeMeta,
    resident: usize,
    attend: Arc<Kernel>,
    join: Arc<Kernel>,
    /// For tables of few splits.
    narrow: Arc<Kernel>,
    /// Of a calibrated codec.
    records: Option<Records>,
}

/// How a call is cut into passes, and where a pass's partial results lie in the workspace.
struct Passes {
    /// log2 of the leaves of a warp, and blocks that the longest sequence takes.
    unit: usize,
    splits: usize,
    /// Blocks of query tokens a sequence, and those of one pass.
    blocks: usize,
    of_pass: usize,
    part: u64,
    stat: u64,
    lse: u64,
    records: u64,
}

impl Passes {
    /// f32 part `[batch, kv_heads, blocks of a pass, splits, rows, d]`, stat likewise with 2, lse
    /// `[batch, queries, heads]`, records `[batch, kv_heads, blocks of a pass, segments, record]`, each rounded up to 256 bytes.
    fn new(m: &DecodeMeta, batch: usize, kv_heads: usize, queries: usize, capacity: usize, unit: usize) -> Result<Self> {
        let splits = kernels::splits_of(m, capacity, unit);
        let left = if splits > 1 { splits } else { 0 };
        let blocks = queries.div_ceil(m.queries);
        let of_block = of_blocks(m, batch, kv_heads, left, 1, capacity)?.max(1);
        let most = (PASS_BYTES / of_block).clamp(1, blocks as u64) as usize;
        // Passes of equal size.
        let of_pass = blocks.div_ceil(blocks.div_ceil(most));
        let rounded = |factors: &[usize]| Ok::<_, crate::Error>(product("the workspace", factors)?.next_multiple_of(256));
        Ok(Passes {
            unit,
            splits,
            blocks,
            of_pass,
            part: rounded(&[batch, kv_heads, of_pass, left, m.rows(), m.d, 4])?,
            stat: rounded(&[batch, kv_heads, of_pass, left, m.rows(), 2, 4])?,
            lse: rounded(&[batch, queries, kv_heads, m.group, 4])?,
            records: Records::bytes(m, batch, kv_heads, of_pass, capacity)?.next_multiple_of(256),
        })
    }

    fn bytes(&self) -> Result<u64> {
        let sum = [self.stat, self.lse, self.records].into_iter().try_fold(self.part, u64::checked_add);
        Ok(sum.ok_or(Misuse::Overflow { what: "the workspace", limit: "64 bits" })?)
    }
}

impl QueriesPlan {
    /// Compiles and loads, for calls of about `queries` query tokens a sequence; any number is served. Slow the first
    /// time; not while a stream is being captured.
    pub fn prepare(device: &Device, spec: &DecodeSpec, queries: usize) -> Result<Self> {
        let DecodeSpec { codec, head_dim, group, page_tokens, elem, splits } = *spec;
        codec.check_decode(head_dim, group, page_tokens)?;
        within("splits", splits, 0, i32::MAX as usize)?;
        within("queries", queries, 1, i32::MAX as usize)?;
        codec.by_token("decode of several query tokens")?;
        let c = codec.info();
        let calibrated = codec.calibrated().is_ok();
        let meta = if chunk::chosen(c, head_dim, group, queries, device.shared_bytes()) {
            let of = if calibrated { calibrated_chunk_meta } else { chunk_meta };
            of(c, head_dim, group, page_tokens)
        } else {
            let of = if calibrated { calibrated_prefill_meta } else { prefill_meta };
            of(c, head_dim, group, queries, page_tokens).within(device.shared_bytes())
        };
        let wide = join_queries_meta(&meta);
        let program = if meta.wide > 0 { chunk_ir(c, &meta, elem) } else { prefill_ir(c, &meta, elem) };
        let attend = load(device, program.and_then(|p| Source::of(&p)))?;
        let join = load(device, join_queries_ir(c, &wide, elem).and_then(|p| Source::of(&p)))?;
        let narrow = load(device, join_queries_ir(c, &wide.narrow(), elem).and_then(|p| Source::of(&p)))?;
        let resident = device.multiprocessors() * attend.attributes().blocks_per_multiprocessor.max(1) as usize;
        let records = Records::prepare(device, codec, &meta, elem)?;
        Ok(QueriesPlan { shape: Shape { codec, head_dim, page_tokens }, elem, splits, meta, resident, attend, join, narrow, records })
    }

    /// Bytes of workspace that serve launches of this size and of every smaller one, however they are cut; the memory is the
    /// caller's.
    pub fn workspace_bytes(&self, batch: usize, heads: usize, queries: usize, table_stride: usize) -> Result<u64> {
        within("queries", queries, 1, i32::MAX as usize)?;
        let capacity = capacity(table_stride, self.shape.page_tokens)?;
        most_bytes(&self.meta, batch, self.meta.kv_heads(heads), queries, capacity)
    }

    fn passes(&self, batch: usize, kv_heads: usize, queries: usize, table_stride: usize) -> Result<Passes> {
        let capacity = capacity(table_stride, self.shape.page_tokens)?;
        let rows = product("the batch", &[batch, kv_heads, queries.div_ceil(self.meta.queries)])? as usize;
        let unit = match self.splits {
            0 => kernels::best_unit(&self.meta, rows, capacity, self.resident),
            most => unit_within(&self.meta, most, capacity),
        };
        Passes::new(&self.meta, batch, kv_heads, queries, capacity, unit)
    }

    /// Enqueues the attention of `queries` query tokens a sequence: as [`super::DecodePlan::launch`], with `q` and `out`
    /// `[batch, queries, heads, d]`, `lse` `[batch, queries, heads]`. `lens` count the query tokens, whose keys and
    /// values are stored: token i sees the first `len - queries + i + 1` tokens, or where that is below 1 none.
    pub fn launch(&self, stream: &Stream, call: &Decode<'_>, queries: usize) -> Result<()> {
        self.enqueue(stream, call, queries, None)
    }

    /// As `launch`, for a calibrated codec over a cache of that layer: a launch more in each pass.
    pub fn launch_calibrated(&self, stream: &Stream, call: &Decode<'_>, queries: usize, layer: &Layer<'_>) -> Result<()> {
        self.enqueue(stream, call, queries, Some(layer))
    }

    fn enqueue(&self, stream: &Stream, call: &Decode<'_>, queries: usize, layer: Option<&Layer<'_>>) -> Result<()> {
        call.cache.check(&self.shape)?;
        agrees(self.shape.codec, call, layer, capacity(call.table_stride, self.shape.page_tokens)?)?;
        if call.batch == 0 || queries == 0 {
            return Ok(());
        }
        let (m, kv_heads) = (&self.meta, call.cache.kv_heads * self.meta.fold);
        let heads = product("the number of heads", &[m.sharing, call.cache.kv_heads])? as usize;
        within("batch", call.batch, 1, 65535)?;
        within("the number of heads", heads, 1, 65535)?;
        let passes = self.passes(call.batch, kv_heads, queries, call.table_stride)?;
        self.check(call, queries, heads, &passes)?;
        int("query rows", product("query rows", &[call.batch, queries, heads])? as usize)?;
        for first in (0..passes.blocks).step_by(passes.of_pass) {
            let blocks = passes.of_pass.min(passes.blocks - first);
            self.pass(stream, call, layer, &passes, Tokens { queries, first, blocks })?;
        }
        Ok(())
    }

    /// Blocks `first ..` of the query tokens: their partial results, then the join.
    fn pass(&self, stream: &Stream, call: &Decode<'_>, layer: Option<&Layer<'_>>, p: &Passes, of: Tokens) -> Result<()> {
        let (m, Tokens { queries, first, blocks }) = (&self.meta, of);
        let capacity = capacity(call.table_stride, self.shape.page_tokens)?;
        let part = call.workspace.part(0, p.part)?;
        let stat = call.workspace.part(p.part, p.stat)?;
        let lse = call.lse.map_or_else(|| call.workspace.part(p.part + p.stat, p.lse), Ok)?;
        let records = call.workspace.part(p.part + p.stat + p.lse, p.records)?;
        if let (Some(kernel), Some(layer)) = (&self.records, layer) {
            kernel.launch(stream, call, Some(layer), records, capacity, of)?;
        }
        let maps = Buffers::of(layer);
        let q = [Arg::Ptr(if self.records.is_some() { records } else { call.q })];
        let (_, pages) = call.cache.ints()?;
        let heads = call.cache.kv_heads * m.fold;
        let kv_heads = int("the number of heads", heads)?;
        let (table_stride, splits) = (int("table_stride", call.table_stride)?, int("the number of splits", p.splits)?);
        let (tokens, first_block) = (int("queries", queries)?, int("queries", first)?);
        let of_launch = int("queries", blocks)?;
        // Splits as a power of two: the kernel takes a block's number apart by shifts.
        let shift = p.splits.next_power_of_two().ilog2();
        let segments = [Arg::I32(int("the number of segments", capacity.div_ceil(SEGMENT))?)];
        let memory =
            [Arg::Ptr(call.cache.base), Arg::Ptr(call.table), Arg::Ptr(call.lens), Arg::Ptr(call.out), Arg::Ptr(lse), Arg::Ptr(part), Arg::Ptr(stat), Arg::Ptr(call.status), Arg::I32(kv_heads), Arg::I32(pages), Arg::I32(table_stride)];
        let attend = [Arg::I32(splits), Arg::I32(p.unit as i32), Arg::F32(call.scale), Arg::I32(tokens), Arg::I32(first_block), Arg::I32(of_launch), Arg::I32(shift as i32)];
        let grid = [heads as u32, call.batch as u32];
        let x = product("queries", &[blocks, 1 << shift])? as usize;
        self.attend.launch_with(stream, [int("queries", x)? as u32, grid[0], grid[1]], &[&q, maps.args(), &memory, if m.wide > 0 { &[] } else { &segments }, &attend])?;
        if p.splits == 1 {
            return Ok(());
        }
        let join = [
            Arg::Ptr(part),
            Arg::Ptr(stat),
            Arg::Ptr(call.table),
            Arg::Ptr(call.lens),
            Arg::Ptr(call.out),
            Arg::Ptr(lse),
            Arg::Ptr(call.status),
            Arg::I32(kv_heads),
            Arg::I32(splits),
            Arg::I32(kernels::log_share(m, p.unit) as i32),
            Arg::I32(pages),
            Arg::I32(table_stride),
            Arg::I32(tokens),
            Arg::I32(first_block),
            Arg::I32(of_launch),
        ];
        let kernel = if p.splits <= NARROW { &self.narrow } else { &self.join };
        let of_pass = (blocks * m.queries).min(queries - first * m.queries);
        kernel.launch_with(stream, [(of_pass * m.group) as u32, grid[0], grid[1]], &[maps.args(), &join])
    }

    /// The attention and the join kernel, for their attributes.
    pub fn kernels(&self) -> [&Kernel; 2] {
        [&self.attend, &self.join]
    }

    /// Query tokens that share a decoded tile.
    pub fn block_queries(&self) -> usize {
        self.meta.queries
    }

    fn check(&self, call: &Decode<'_>, queries: usize, heads: usize, passes: &Passes) -> Result<()> {
        finite(call.scale)?;
        let rows = product("q", &[call.batch, queries, heads, self.shape.head_dim, size_of_elem(self.elem)])?;
        let table = product("table", &[call.batch, call.table_stride, 4])?;
        call.q.expect("q", "the first query row", 16, rows)?;
        call.out.expect("out", "the first output row", 16, rows)?;
        call.table.expect("table", "the first sequence's pages", 4, table)?;
        call.lens.expect("lens", "one i32 a sequence", 4, 4 * call.batch as u64)?;
        call.status.expect("status", "four i32 on the device", 4, status::BYTES)?;
        if let Some(lse) = call.lse {
            lse.expect("lse", "one f32 a query row", 4, product("lse", &[call.batch, queries, heads, 4])?)?;
        }
        Ok(call.workspace.expect("workspace", "workspace_bytes() of device memory", 16, passes.bytes()?)?)
    }
}

/// What no call of this size or a smaller one exceeds: its passes take the least share, or are as large as passes may be.
fn most_bytes(m: &DecodeMeta, batch: usize, kv_heads: usize, queries: usize, capacity: usize) -> Result<u64> {
    let splits = kernels::splits_of(m, capacity, m.least());
    let of_block = of_blocks(m, batch, kv_heads, splits, 1, capacity)?;
    let all = of_blocks(m, batch, kv_heads, splits, queries.div_ceil(m.queries), capacity)?;
    let lse = product("the workspace", &[batch, queries, kv_heads, m.group, 4])?.next_multiple_of(256);
    // 768: part, stat and records are rounded up to 256 each.
    Ok(all.min(of_block.max(PASS_BYTES)) + 768 + lse)
}

/// Partial results and records of `blocks` blocks of query tokens a sequence.
fn of_blocks(m: &DecodeMeta, batch: usize, kv_heads: usize, splits: usize, blocks: usize, capacity: usize) -> Result<u64> {
    let parts = product("the workspace", &[batch, kv_heads, blocks, splits, m.rows(), m.d + 2, 4])?;
    let sum = parts.checked_add(Records::bytes(m, batch, kv_heads, blocks, capacity)?);
    Ok(sum.ok_or(Misuse::Overflow { what: "the workspace", limit: "64 bits" })?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::Codec;

    #[test]
    fn passes_are_equal_and_bounded() {
        let m = prefill_meta(Codec::open("int4").unwrap().info(), 128, 4, 2048, 64);
        assert_eq!((m.queries, m.rows()), (2, 8));
        let p = Passes::new(&m, 1, 8, 2048, 1 << 20, 0).unwrap();
        assert_eq!((p.splits, p.blocks), ((1 << 20) / 256 / m.warps, 1024));
        assert!(p.part + p.stat <= PASS_BYTES && p.of_pass < p.blocks && p.blocks.div_ceil(p.of_pass) * p.of_pass < p.blocks + p.of_pass);
        let one = Passes::new(&m, 64, 8, 1, 1 << 20, 0).unwrap();
        assert_eq!((one.blocks, one.of_pass), (1, 1));
        // One split leaves nothing to join.
        let whole = Passes::new(&m, 1, 8, 2048, 1024, 0).unwrap();
        assert_eq!((whole.splits, whole.part, whole.of_pass), (1, 0, 1024));
        assert!(Passes::new(&m, usize::MAX, 8, 1, 1024, 0).is_err());
        // A workspace for a long chunk serves a short one, whose blocks are more.
        let most = most_bytes(&m, 2, 8, 2048, 1 << 17).unwrap();
        for (batch, queries, unit) in [(2, 2048, m.least()), (2, 2048, m.depth), (2, 64, m.least()), (1, 1, m.least()), (1, 2047, m.depth)] {
            assert!(Passes::new(&m, batch, 8, queries, 1 << 17, unit).unwrap().bytes().unwrap() <= most, "{batch} {queries} {unit}");
        }
        // Records of queries count: a block of two tokens has 2 KB of them for each of 128 segments and 8 kv heads.
        let m = calibrated_prefill_meta(Codec::open("kvfuse-4").unwrap().info(), 128, 4, 2048, 64);
        let own = Passes::new(&m, 1, 8, 2048, 1 << 17, m.depth).unwrap();
        assert!(own.part + own.stat + own.records <= PASS_BYTES + 768 && own.records >= (8 * own.of_pass * 128 * m.record) as u64 && own.of_pass < own.blocks);
        assert!(own.bytes().unwrap() <= most_bytes(&m, 1, 8, 2048, 1 << 17).unwrap());
    }
}
