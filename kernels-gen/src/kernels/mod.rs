//! The fused kernels: written once, built for every codec.
//!
//! The functions here pick the meta values of a configuration and build; the `_ir` functions stop before the passes.

pub mod codes;
pub mod decode_attention;
pub mod join_splits;
pub mod query;
pub mod rows;
pub mod softmax;
pub mod store;

pub use decode_attention::SEGMENT;

use crate::registry::CodecInfo;
use decode_attention::DecodeMeta;
use join_splits::JoinMeta;
use kernel_dsl::dtype::bf16;
use kernel_dsl::ir::Program;
use kernel_dsl::{Report, Source};
use store::StoreMeta;

/// Type of q, k, v and of the output in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Elem {
    Bf16,
    F32,
}

/// Meta value of the store kernel. `d`: 64, 128, 256 or 512; `page_tokens`: a multiple of 32.
pub fn store_meta(c: &CodecInfo, d: usize, page_tokens: usize, elem: Elem) -> StoreMeta {
    let layout = c.layout(d);
    StoreMeta {
        d,
        elem: if elem == Elem::Bf16 { 2 } else { 4 },
        page_tokens,
        tile_bytes: layout.tile_bytes(),
        values_at: layout.values_at(),
        sides_at: layout.sides_at(),
        side_stride: layout.side_stride(),
        quads: layout.quads(),
        warps: 4,
        // A thread holds a quarter of a row.
        min_blocks: if d <= 128 { 8 } else { 1024 / d + 1 },
        inv_sqrt_d: 1.0 / (d as f32).sqrt(),
    }
}

/// Shared memory that rings may take of an SM, what the rest of a block needs left out.
const RING_BUDGET: usize = 216 * 1024;

/// Meta value of the decode kernel. `d`: 64, 128 or 256; `group`: 1 to 8, or 16.
///
/// Two blocks an SM hide each other's latency where shared memory and registers allow it.
pub fn decode_meta(c: &CodecInfo, d: usize, group: usize, page_tokens: usize) -> DecodeMeta {
    let (tile, cols) = (c.tile_bytes(d), group.div_ceil(8) * 8);
    let warps = (RING_BUDGET / (2 * tile)).clamp(2, 8);
    let min_blocks = if cols * d <= 1024 && 2 * warps * 2 * tile <= RING_BUDGET { 2 } else { 1 };
    DecodeMeta {
        d,
        group,
        cols,
        page_tokens,
        tile_bytes: tile,
        values_at: c.layout(d).values_at(),
        sides_at: c.layout(d).sides_at(),
        quads: c.layout(d).quads(),
        segment: SEGMENT,
        warps,
        // Tiles of 4 KiB and more keep the memory busy two at a time.
        stages: if tile >= 4096 { 2 } else { 3 },
        min_blocks,
        inv_sqrt_d: 1.0 / (d as f32).sqrt(),
    }
}

/// Tile IR of the store kernel.
pub fn store_ir(c: &CodecInfo, m: &StoreMeta, elem: Elem) -> Result<Program, Report> {
    match elem {
        Elem::Bf16 => store::store::build::<bf16>(m, c.k.codec, c.v.codec),
        Elem::F32 => store::store::build::<f32>(m, c.k.codec, c.v.codec),
    }
}

/// Tile IR of the decode kernel.
pub fn decode_ir(c: &CodecInfo, m: &DecodeMeta, elem: Elem) -> Result<Program, Report> {
    match elem {
        Elem::Bf16 => decode_attention::decode_attention::build::<bf16>(m, c.k.codec, c.v.codec),
        Elem::F32 => decode_attention::decode_attention::build::<f32>(m, c.k.codec, c.v.codec),
    }
}

/// Tile IR of the join kernel.
pub fn join_ir(c: &CodecInfo, m: &JoinMeta, elem: Elem) -> Result<Program, Report> {
    match elem {
        Elem::Bf16 => join_splits::join_splits::build::<bf16>(m, c.v.codec),
        Elem::F32 => join_splits::join_splits::build::<f32>(m, c.v.codec),
    }
}

/// The store kernel. Grid: [`store_grid`].
pub fn store(c: &CodecInfo, d: usize, page_tokens: usize, elem: Elem) -> Result<Source, Report> {
    Source::of(&store_ir(c, &store_meta(c, d, page_tokens, elem), elem)?)
}

/// Blocks of the store kernel for `tokens` rows of `kv_heads` heads.
pub fn store_grid(tokens: usize, kv_heads: usize) -> [u32; 3] {
    [tokens.div_ceil(32) as u32, kv_heads as u32, 2]
}

/// Segments that each warp walks, for a launch of `splits` blocks a (sequence, kv head).
pub fn run_of(m: &DecodeMeta, segments: usize, splits: usize) -> usize {
    segments.div_ceil(splits * m.warps).max(1)
}

/// The decode kernel. Grid: [splits, kv_heads, batch]; its `run` argument from [`run_of`].
pub fn decode_attention(c: &CodecInfo, d: usize, group: usize, page_tokens: usize, elem: Elem) -> Result<Source, Report> {
    decode_of(c, &decode_meta(c, d, group, page_tokens), elem)
}

/// The decode kernel of a meta value, as [`DecodeMeta::within`] may have changed it.
pub fn decode_of(c: &CodecInfo, m: &DecodeMeta, elem: Elem) -> Result<Source, Report> {
    Source::of(&decode_ir(c, m, elem)?)
}

/// Meta value of the join kernel.
pub fn join_meta(d: usize, page_tokens: usize) -> JoinMeta {
    JoinMeta { d, segment: SEGMENT, page_tokens, warps: 8, inv_sqrt_d: 1.0 / (d as f32).sqrt() }
}

/// The join kernel. Grid: [group, kv_heads, batch].
pub fn join_splits(c: &CodecInfo, d: usize, page_tokens: usize, elem: Elem) -> Result<Source, Report> {
    Source::of(&join_ir(c, &join_meta(d, page_tokens), elem)?)
}
