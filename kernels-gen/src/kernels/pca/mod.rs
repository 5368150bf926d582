//! Kernels of the PCA codec's pages: every 512 tokens have a basis of their own, folded into their queries before attention and out of
//! their sums in it. See [`crate::pca::pages`] for the format; the newest tokens lie raw in another cache, and [`super::merge`] joins the two.

pub mod attend;
pub mod queries;
pub mod unfold;

use super::Elem;
use super::cuts::shape;
use super::decode_attention::DecodeMeta;
use crate::pca::pages::{PcaLayout, PcaPages, WAYS};
use kernel_dsl::dtype::bf16;
use kernel_dsl::ir::Program;
use kernel_dsl::{Report, Source};
use queries::FoldMeta;

/// Head dims that these kernels serve.
pub const HEAD_DIMS: [usize; 2] = [64, 128];

/// Bytes of the queries of a block: `[high | low, 8 heads, rank + WAYS]`, then for each head the start of its sums, the worth of a step
/// with residuals and with centres, the bias.
pub const fn record(rank: usize) -> usize {
    16 * (rank + WAYS) + 4 * 4 * 8
}

impl DecodeMeta {
    /// Bytes of the queries of a block.
    pub fn folded(&self) -> usize {
        record(self.ranks[0])
    }

    /// Lines of 128 bytes of a block's map of values.
    pub fn map_lines(&self) -> usize {
        ((self.ranks[1] + WAYS) * (self.d + 4) + 8 * self.d) / 128
    }
}

/// Meta value of the decode kernel: [`super::decode_ir`] makes it with [`PcaPages::halves`]. `d`: 64 or 128; `group`: 1 to 8.
///
/// Sixteen warps an SM; eight in blocks of four for single heads and for 128 coordinates, which take twice the registers.
pub fn decode_meta(c: &PcaPages, d: usize, group: usize) -> DecodeMeta {
    let (layout, of) = (PcaLayout::of(c, d), shape(&c.halves, d, group, crate::pca::pages::BLOCK));
    let few = group == 1 || layout.ranks[0].max(layout.ranks[1]) > 64;
    DecodeMeta {
        ranks: layout.ranks,
        behind: layout.page_bytes() - layout.keys_map_at(),
        values_map_at: layout.values_map_at(),
        parts: 1,
        floats: false,
        tile_bytes: layout.tile_bytes(),
        keys_at: [0; 4],
        values_at: [layout.values_at(), 0],
        sides_at: layout.pairs_at(),
        warps: if few { 4 } else { 8 },
        min_blocks: 2,
        stages: if few { 4 } else { 3 },
        ..of
    }
    .within(usize::MAX)
}

/// Meta value of the kernel that folds queries.
pub fn fold_meta(m: &DecodeMeta, elem: Elem) -> FoldMeta {
    let page = m.page_tokens / 32 * m.tile_bytes;
    FoldMeta { d: m.d, group: m.group, rank: m.ranks[0], page_tokens: m.page_tokens, page_bytes: page + m.behind, map_at: page, elem: if elem == Elem::Bf16 { 2 } else { 4 }, warps: 2, min_blocks: 10 }
}

/// Tile IR of that kernel.
pub fn fold_ir(m: &FoldMeta) -> Result<Program, Report> {
    match m.elem {
        2 => queries::fold_queries::build::<bf16>(m),
        _ => queries::fold_queries::build::<f32>(m),
    }
}

/// The kernel that folds queries into the bases of blocks. Grid: [entries of a row of the table, kv_heads, batch].
pub fn fold_queries(m: &FoldMeta) -> Result<Source, Report> {
    Source::of(&fold_ir(m)?)
}
