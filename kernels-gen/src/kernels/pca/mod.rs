//! Kernels of the PCA codec's pages: every 512 tokens have a basis of their own, folded into their queries before attention and out of
//! their sums in it. See [`crate::pca::pages`] for the format; the newest tokens lie raw in another cache, and [`super::merge`] joins the two.

pub mod attend;
pub mod queries;
pub mod scores;
pub mod turn;
pub mod turned;
pub mod unfold;
pub mod walk;
pub mod weigh;

use super::Elem;
use super::cuts::shape;
use super::decode_attention::DecodeMeta;
use crate::pca::pages::{PcaLayout, PcaPages, WAYS, factors_at, speeds_at, units_at, zeros_at};
use kernel_dsl::dtype::bf16;
use kernel_dsl::ir::Program;
use kernel_dsl::{Report, Source};
use queries::FoldMeta;

/// Sums of marks are 128 times as large: see [`kernel_dsl::tile::MARK`].
pub const MARKED: f32 = 0.0078125;

/// Head dims that these kernels serve.
pub const HEAD_DIMS: [usize; 2] = [64, 128];

/// Bytes of the queries of a block: `[high | low, heads, rank + WAYS]`, 8 heads, or 4 where the two bytes of a weight are columns; then for
/// each of 8 columns the start of its sums, the worth of a step with residuals and with centres, the bias.
pub const fn record(rank: usize, parts: usize) -> usize {
    16 / parts * (rank + WAYS) + 4 * 4 * 8
}

/// Those where keys lie before RoPE: floats `[heads, d]`, then for each of 8 columns the worth of a step.
pub const fn turned_record(d: usize, parts: usize) -> usize {
    32 / parts * d + 4 * 8
}

/// What pages of blocks keep behind their tiles, and where.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Behind {
    /// Bytes behind the tiles of a kv head.
    pub bytes: usize,
    /// 1 where a page of shared bases comes first in a row of the table.
    pub lead: usize,
    /// Whether frames of keys and of values lie in that page, and where frames and maps of centres begin in theirs.
    pub shared: [bool; 2],
    pub frames_at: [usize; 2],
    pub ways_at: [usize; 2],
    /// First byte of what a block's values have of their own.
    pub values_at: usize,
    /// Keys lie before RoPE.
    pub before: bool,
    /// Then, bytes behind the matrix of their frame where things begin: see [`crate::pca::pages::turned_bytes`].
    pub zeros_at: usize,
    pub factors_at: usize,
    pub speeds_at: usize,
    pub units_at: usize,
    /// Outliers of a tile's keys and of its values, and where in the tile they begin.
    pub outliers: [usize; 2],
    pub outliers_at: [usize; 2],
}

impl Behind {
    pub const NONE: Behind = Behind { bytes: 0, lead: 0, shared: [false; 2], frames_at: [0; 2], ways_at: [0; 2], values_at: 0, before: false, zeros_at: 0, factors_at: 0, speeds_at: 0, units_at: 0, outliers: [0; 2], outliers_at: [0; 2] };

    fn of(c: &PcaPages, layout: &PcaLayout) -> Behind {
        Behind {
            bytes: layout.page_bytes() - layout.behind_at(),
            lead: c.lead(),
            shared: c.shared(),
            frames_at: [0, 1].map(|side| layout.frame_at(side)),
            ways_at: [layout.key_ways_at(), layout.value_ways_at()],
            values_at: layout.values_behind_at(),
            before: layout.before,
            zeros_at: zeros_at(layout.d),
            factors_at: factors_at(layout.d),
            speeds_at: speeds_at(layout.d),
            units_at: units_at(layout.d),
            outliers: layout.outliers,
            outliers_at: [0, 1].map(|side| layout.outliers_at(side)),
        }
    }
}

impl DecodeMeta {
    /// Bytes of the queries of a block.
    pub fn folded(&self) -> usize {
        if self.behind.before { turned_record(self.d, self.parts) } else { record(self.ranks[0], self.parts) }
    }

    /// Those of a tile that a warp turns back, where keys lie before RoPE.
    pub fn turned_back(&self) -> usize {
        if self.behind.before { 16 / self.parts * self.queries_line() } else { 0 }
    }

    /// Bytes from a column of these to the next, so that lanes meet no bank twice.
    pub fn queries_line(&self) -> usize {
        self.d + 32
    }

    /// Words of all pairs' speeds there.
    pub fn speeds(&self) -> usize {
        if self.behind.before { self.d } else { 0 }
    }

    /// Cosines and sines of a tile's tokens that a block keeps.
    pub fn turns(&self) -> usize {
        if self.behind.before { self.d * turned::LINE } else { 0 }
    }

    /// Bytes of a page of blocks of a kv head.
    pub fn block_bytes(&self) -> usize {
        self.page_tokens / 32 * self.tile_bytes + self.behind.bytes
    }

    /// Lines of 128 bytes of what a block's values have of their own.
    pub fn map_lines(&self) -> usize {
        (self.block_bytes() - self.behind.values_at) / 128
    }

    /// Bytes of a tile of lanes that outliers add, a warp's.
    pub fn more(&self) -> usize {
        [0, 1].map(|side| if self.behind.outliers[side] > 0 { 32 * self.ranks[side] } else { 0 }).into_iter().fold(0, usize::max)
    }

    /// Bytes of a block's matrices that a warp keeps in shared memory: those of keys before RoPE, means and zeros behind them, a multiple of 512.
    pub fn kept(&self) -> usize {
        if self.behind.before { (self.ranks[0] + 16 + WAYS) * self.d + 16 } else { 0 }
    }

    /// Those of a block in shared memory, turns included.
    pub fn blocks_shared(&self) -> usize {
        self.warps * (self.more() + self.kept() + self.turned_back()) + 4 * (self.turns() + self.speeds())
    }
}

/// How many sums a head's weights take: as [`super::parts`] has it with up to four heads, with more one.
pub fn parts(c: &PcaPages, group: usize) -> usize {
    if group > 4 { 1 } else { super::parts(&c.halves) }
}

/// Meta value of the decode kernel: [`super::decode_ir`] makes it with [`PcaPages::halves`]. `d`: 64 or 128; `group`: 1 to 8.
///
/// Sixteen warps an SM; eight in blocks of four for single heads, for 128 coordinates and for outliers of values under more than four heads,
/// which take twice the registers.
pub fn decode_meta(c: &PcaPages, d: usize, group: usize) -> DecodeMeta {
    let (layout, of) = (PcaLayout::of(c, d), shape(&c.halves, d, group, crate::pca::pages::BLOCK));
    let few = group == 1 || group > 4 && layout.outliers[1] > 0 || layout.ranks[0].max(layout.ranks[1]) > 64;
    // Keys before RoPE take twice the registers too, and what they leave their coordinates by.
    let (kept, whole) = (layout.before, layout.ranks[0].max(layout.ranks[1]) > 64);
    DecodeMeta {
        ranks: layout.ranks,
        apart: false,
        floats: false,
        behind: Behind::of(c, &layout),
        tile_bytes: layout.tile_bytes(),
        keys_at: [0; 4],
        values_at: [layout.values_at(), 0],
        sides_at: layout.pairs_at(),
        warps: if kept && !whole || !few { 8 } else { 4 },
        min_blocks: if kept { 1 } else { 2 },
        // A third stage wins nothing there, and leaves of a warp want its room.
        stages: if kept {
            2
        } else if few {
            4
        } else {
            3
        },
        ..of
    }
    .within(usize::MAX)
}

/// Meta value of the kernel that folds queries.
pub fn fold_meta(m: &DecodeMeta, elem: Elem) -> FoldMeta {
    FoldMeta {
        d: m.d,
        group: m.group,
        parts: m.parts,
        rank: m.ranks[0],
        page_tokens: m.page_tokens,
        page_bytes: m.block_bytes(),
        behind: m.behind,
        elem: if elem == Elem::Bf16 { 2 } else { 4 },
        warps: if m.behind.before {
            8 / m.parts
        } else if m.ranks[0] == 64 {
            3
        } else {
            2
        },
        min_blocks: if m.behind.before {
            8
        } else if m.ranks[0] == 64 {
            8
        } else {
            10
        },
    }
}

/// Tile IR of that kernel.
pub fn fold_ir(m: &FoldMeta) -> Result<Program, Report> {
    match (m.behind.before, m.elem) {
        (true, 2) => turn::turn_queries::build::<bf16>(m),
        (true, _) => turn::turn_queries::build::<f32>(m),
        (_, 2) => queries::fold_queries::build::<bf16>(m),
        _ => queries::fold_queries::build::<f32>(m),
    }
}

/// The kernel that folds queries into the bases of blocks. Grid: [entries of a row of the table, kv_heads, batch].
pub fn fold_queries(m: &FoldMeta) -> Result<Source, Report> {
    Source::of(&fold_ir(m)?)
}
