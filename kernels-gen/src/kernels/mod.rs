//! The fused kernels: written once, built for every codec.
//!
//! The functions here pick the meta values of a configuration and build; [`Build`] erases the codec's type.

pub mod decode_attention;
pub mod join_splits;
pub mod query;
pub mod softmax;
pub mod store;

pub use decode_attention::SEGMENT;

use crate::codec::{Codec, Lane};
use crate::registry::CodecInfo;
use decode_attention::DecodeMeta;
use join_splits::JoinMeta;
use kernel_dsl::dtype::bf16;
use kernel_dsl::ir::Program;
use kernel_dsl::{Report, Source, pack};
use store::StoreMeta;

/// Type of q, k, v and of the output in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Elem {
    Bf16,
    F32,
}

/// The three kernels of one codec, before their meta values are chosen.
#[derive(Clone, Copy, Debug)]
pub struct Build {
    pub store: fn(&StoreMeta, Elem) -> Result<Program, Report>,
    pub decode: fn(&DecodeMeta, Elem) -> Result<Program, Report>,
    pub join: fn(&JoinMeta, Elem) -> Result<Program, Report>,
}

impl Build {
    pub const fn of<C: Codec>() -> Build {
        Build {
            store: |m, e| match e {
                Elem::Bf16 => store::store::build::<C, bf16>(m),
                Elem::F32 => store::store::build::<C, f32>(m),
            },
            decode: |m, e| match e {
                Elem::Bf16 => decode_attention::decode_attention::build::<C, bf16>(m),
                Elem::F32 => decode_attention::decode_attention::build::<C, f32>(m),
            },
            join: |m, e| match e {
                Elem::Bf16 => join_splits::join_splits::build::<C, bf16>(m),
                Elem::F32 => join_splits::join_splits::build::<C, f32>(m),
            },
        }
    }
}

/// Rows of one block of the store kernel.
const STORE_ROWS: usize = 16;

/// Meta value of the store kernel. `d`: 64, 128, 256 or 512; `page_tokens`: a multiple of 32.
pub fn store_meta(c: &CodecInfo, d: usize, page_tokens: usize) -> StoreMeta {
    let planes = pack::planes(c.bits);
    let (mut widths, mut firsts) = ([0; 8], [0; 8]);
    for (i, (w, first)) in planes.iter().enumerate() {
        (widths[i], firsts[i]) = (*w, *first);
    }
    StoreMeta {
        d,
        page_tokens,
        tile_bytes: c.tile_bytes(d),
        values_at: 4 * (d / 8) * c.bits,
        sides_at: 8 * (d / 8) * c.bits,
        rows: STORE_ROWS,
        warps: 8,
        widths,
        firsts,
        planes: planes.len(),
        wide: planes.iter().filter(|p| p.0 >= 8).count(),
        inv_sqrt_d: 1.0 / (d as f32).sqrt(),
    }
}

/// How many columns a head's weights take: with u8 lanes and up to 4 heads their two bytes are summed apart,
/// side by side in the tensor core's 8 columns. Part of the result's definition.
pub fn parts(c: &CodecInfo, group: usize) -> usize {
    if c.lane == Lane::U8 && group <= 4 { 2 } else { 1 }
}

/// Shared memory that rings may take of an SM, what the rest of a block needs left out.
const RING_BUDGET: usize = 216 * 1024;

/// Meta value of the decode kernel. `d`: 64, 128 or 256; `group`: 1 to 8, or 16.
///
/// Two blocks an SM hide each other's latency where shared memory and registers allow it.
pub fn decode_meta(c: &CodecInfo, d: usize, group: usize, page_tokens: usize) -> DecodeMeta {
    let (tile, cols) = (c.tile_bytes(d), group.div_ceil(8) * 8);
    // Sixteen columns of 64 dims take more registers a thread: twelve warps an SM in the place of sixteen, in
    // smaller blocks, so that powers of two still divide the segments evenly.
    let many = cols > 8 && cols * d <= 1024;
    let warps = (RING_BUDGET / (2 * tile)).clamp(2, if many { 4 } else { 8 });
    let min_blocks = if many { 3 } else if cols * d <= 1024 && 2 * warps * 2 * tile <= RING_BUDGET { 2 } else { 1 };
    DecodeMeta {
        d,
        group,
        cols,
        parts: parts(c, group),
        page_tokens,
        tile_bytes: tile,
        values_at: 4 * (d / 8) * c.bits,
        sides_at: 8 * (d / 8) * c.bits,
        segment: SEGMENT,
        warps,
        // Tiles of 4 KiB and more keep the memory busy two at a time.
        stages: if tile >= 4096 { 2 } else { 3 },
        min_blocks,
        inv_sqrt_d: 1.0 / (d as f32).sqrt(),
    }
}

/// The store kernel. Grid: [`store_grid`].
pub fn store(c: &CodecInfo, d: usize, page_tokens: usize, elem: Elem) -> Result<Source, Report> {
    Source::of(&(c.build.store)(&store_meta(c, d, page_tokens), elem)?)
}

/// Blocks of the store kernel for `tokens` rows of `kv_heads` heads.
pub fn store_grid(tokens: usize, kv_heads: usize) -> [u32; 3] {
    [tokens.div_ceil(STORE_ROWS) as u32, kv_heads as u32, 2]
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
    Source::of(&(c.build.decode)(m, elem)?)
}

/// Meta value of the join kernel.
pub fn join_meta(d: usize, page_tokens: usize) -> JoinMeta {
    JoinMeta { d, segment: SEGMENT, page_tokens, warps: 8, inv_sqrt_d: 1.0 / (d as f32).sqrt() }
}

/// The join kernel. Grid: [group, kv_heads, batch].
pub fn join_splits(c: &CodecInfo, d: usize, page_tokens: usize, elem: Elem) -> Result<Source, Report> {
    join_of(c, &join_meta(d, page_tokens), elem)
}

/// The join kernel of a meta value.
pub fn join_of(c: &CodecInfo, m: &JoinMeta, elem: Elem) -> Result<Source, Report> {
    Source::of(&(c.build.join)(m, elem)?)
}
