//! Attention of several query tokens a sequence over the coded cache, their own keys and values included:
//! speculative tokens, or a chunk of a prompt over its prefix. Nothing decoded goes to memory.
//!
//! Query token i of `queries` sees the first `len - queries + i + 1` tokens, and has the bits that decode attention gives
//! it alone. A block holds `m.queries` tokens, up to 8 rows with the heads of a kv head; a warp decodes a tile once
//! for all of them and walks leaves as in decode, so the join is the same too.
//!
//! Cost: reads tile_bytes for 32 tokens and decodes them once a block; writes (d + 2) * 4 bytes a row and block.

use super::arguments::{Cache, Outputs, Queries, Share};
use super::attend::attend;
use super::cuts::{cut, fold, rows_of, two_bytes};
use super::decode_attention::DecodeMeta;
use super::faults::find_fault;
use super::join_splits::{JoinMeta, join};
use super::many::sees;
use super::{Elem, join_after, maps, parts};
use crate::codec::Codec;
use crate::registry::CodecInfo;
use kernel_dsl::Report;
use kernel_dsl::dtype::bf16;
use kernel_dsl::ir::Program;
use kernel_dsl::prelude::*;

/// Query tokens a sequence that are meant to be speculative: few, the cache read from memory once for all.
const FEW: usize = 4;

/// Query tokens of a block, when `queries` are wanted: as many as columns, and the registers of their sums, allow. More tokens have more blocks, which
/// are neighbours and read the same pages.
pub fn block_queries(c: &CodecInfo, d: usize, group: usize, queries: usize) -> usize {
    let rows = if two_bytes(c) { 8 } else { (if parts(c) == 2 { 1024 } else { 2048 }) / d.max(128) };
    queries.min(rows / group).max(1)
}

/// Meta value for calls of about `queries` tokens a sequence. `d`, `group`, `page_tokens`: as for decode.
pub fn prefill_meta(c: &CodecInfo, d: usize, group: usize, queries: usize, page_tokens: usize) -> DecodeMeta {
    let (few, fold, sharing) = (queries <= FEW, fold(c, d, group), group);
    let group = sharing.div_ceil(fold);
    let queries = block_queries(c, d, group, queries);
    let like = cut(c, rows_of(c, d, queries * group, page_tokens));
    // In a long chunk outputs of 8 rows and their bytes, 168 registers a thread, have twelve warps an SM in small blocks.
    let (warps, min_blocks, pair) = if like.apart && !few && like.cols * d <= 1024 { (like.warps.min(4), 3, 1) } else { (like.warps, like.min_blocks, like.pair) };
    DecodeMeta { group, fold, sharing, queries, many: true, warps, min_blocks, pair, ..like }.within(usize::MAX)
}

/// Of a calibrated codec: the kernel takes the records of [`super::map_queries`] and maps outputs back.
pub fn calibrated_prefill_meta(c: &CodecInfo, d: usize, group: usize, queries: usize, page_tokens: usize) -> DecodeMeta {
    let m = prefill_meta(c, d, group, queries, page_tokens);
    DecodeMeta { record: maps::record(d, m.cols, m.parts), ..m }.within(usize::MAX)
}

/// Tile IR of the kernel.
pub fn prefill_ir(c: &CodecInfo, m: &DecodeMeta, elem: Elem) -> Result<Program, Report> {
    match elem {
        Elem::Bf16 => prefill_attention::build::<bf16>(m, c.k.bands, c.v.bands),
        Elem::F32 => prefill_attention::build::<f32>(m, c.k.bands, c.v.bands),
    }
}

/// Meta value of its join.
pub fn join_queries_meta(m: &DecodeMeta) -> JoinMeta {
    JoinMeta { group: m.group, queries: m.queries, ..join_after(m) }
}

/// Tile IR of its join.
pub fn join_queries_ir(c: &CodecInfo, m: &JoinMeta, elem: Elem) -> Result<Program, Report> {
    match elem {
        Elem::Bf16 => join_queries::build::<bf16>(m, c.v.bands[0]),
        Elem::F32 => join_queries::build::<f32>(m, c.v.bands[0]),
    }
}

/// Grid: [blocks << log_splits | split, kv_heads, batch], for the blocks of query tokens from `first` on.
#[kernel]
pub fn prefill_attention<T: Float>(
    m: DecodeMeta,
    k: &[&dyn Codec], // one a band
    v: &[&dyn Codec],
    q: &Global<T>,                              // [batch, queries, heads, d], or records [batch, kv_heads, blocks, segments, m.record]
    #[when(m.record > 0)] maps: &Global<i8>,    // a layer's, as `preset::LayerMaps::packed` has them
    #[when(m.record > 0)] scales: &Global<f32>, // likewise
    cache: &Global<u8>,                         // [pages, kv_heads, block]
    table: &Global<i32>,                        // [batch, table_stride]
    lens: &Global<i32>,                         // [batch], the queries' own tokens included
    out: &mut Global<T>,                        // [batch, queries, heads, d]
    lse: &mut Global<f32>,                      // [batch, queries, heads], natural logarithm
    part: &mut Global<f32>,                     // [batch, kv_heads, blocks, splits, rows, d]
    stat: &mut Global<f32>,                     // [batch, kv_heads, blocks, splits, rows, 2]: maximum, sum
    status: &mut Global<i32>,                   // bad slot, bad page, bad length, where
    kv_heads: i32,
    pages: i32,
    table_stride: i32,
    segments: i32, // of the records
    splits: i32,   // blocks that the longest sequence takes
    unit: i32,     // log2 of the leaves of a warp
    scale: f32,
    queries: i32, // query tokens a sequence
    first: i32,
    blocks: i32,
    log_splits: i32,
) {
    if m.record > 0 {
        after_previous();
    }
    release_next();
    let (split, slot) = (block_id(0) & ((1_i32 << (log_splits & 31_i32)) - 1_i32), block_id(0) >> (log_splits & 31_i32));
    let short = shared::<i32>(1);
    let of = Share { head: block_id(1), seq: block_id(2), split, other: -1_i32, other_head: 0_i32, other_split: 0_i32, unit, log_crew: m.log_warps() as i32, short: &short };
    let q = Queries { rows: q, scale, segments, tokens: queries, first: (first + slot) * m.queries as i32, slot, blocks };
    let cache = Cache { bytes: cache, table, lens, kv_heads, pages, table_stride };
    attend::<T>(&m, k, v, &q, &cache, &mut Outputs { out, lse, part, stat, status, maps, scales, splits }, &of)
}

/// Grid: [group * query tokens, kv_heads, batch], for the tokens from block `first` on.
#[kernel]
pub fn join_queries<T: Float>(
    m: JoinMeta,
    v: &dyn Codec,
    #[when(m.mapped)] maps: &Global<i8>,    // a layer's, as `preset::LayerMaps::packed` has them
    #[when(m.mapped)] scales: &Global<f32>, // likewise
    part: &Global<f32>,                     // [batch, kv_heads, blocks, splits, rows, d]
    stat: &Global<f32>,                     // [batch, kv_heads, blocks, splits, rows, 2]: maximum, sum
    table: &Global<i32>,                    // [batch, table_stride]
    lens: &Global<i32>,                     // [batch]
    out: &mut Global<T>,                    // [batch, queries, heads, d]
    lse: &mut Global<f32>,                  // [batch, queries, heads], natural logarithm
    status: &mut Global<i32>,               // bad slot, bad page, bad length, where
    kv_heads: i32,
    splits: i32,
    log_share: i32, // log2 of the leaves of a part
    pages: i32,
    table_stride: i32,
    queries: i32, // query tokens a sequence
    first: i32,
    blocks: i32,
) {
    let (head, seq) = (block_id(1), block_id(2));
    let rows = (m.group * m.queries) as i32;
    let (slot, column) = (block_id(0) / rows, block_id(0) % rows);
    let token = first * m.queries as i32 + block_id(0) / m.group as i32;
    let base = ((seq * kv_heads + head) * blocks + slot) as i64 * splits as i64;
    let len = lens.at(seq);
    let n = if (len >= 0_i32) & (len <= table_stride * m.page_tokens as i32) { len } else { 0_i32 };
    let own = if n > 0_i32 { sees(n, queries, token) } else { 0_i32 };
    let of_block = if n > 0_i32 { sees(n, queries, (first + slot) * m.queries as i32 + (m.queries as i32 - 1_i32)) } else { 0_i32 };
    let mut fault = shared::<i32>(1);
    find_fault(&m, table, status, &mut fault, pages, table_stride, own, seq);
    after_previous();
    join::<T>(&m, v, maps, scales, part, stat, out, lse, &fault, kv_heads, m.group as i32, log_share, base, rows, column, own, of_block, column % m.group as i32, head, seq * queries + token);
}
