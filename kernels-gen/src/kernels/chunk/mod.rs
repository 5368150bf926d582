//! Attention of a long chunk of query tokens over the coded cache.
//!
//! A block has the rows of many query tokens of one kv head, eight a warp. A leaf's codes become bytes in shared memory once, in the order of
//! the tensor core's operands, while the leaf before is attended to; then every warp walks all of its tiles for its own rows. What a row is made
//! of, leaves and tree included, is that of decode attention, so its bits are too.

pub mod attention;
pub mod fold;
pub mod rows;
pub mod tiles;
pub mod walk;

use super::cuts::shape;
use super::decode_attention::DecodeMeta;
use super::leaves::{LEAF, TREE};
use super::{Elem, maps, parts, splits_of};
use crate::codec::Lane;
use crate::registry::{CodecInfo, Half};
use kernel_dsl::Report;
use kernel_dsl::dtype::bf16;
use kernel_dsl::ir::Program;

/// Rows that a warp has together: with both bytes those of the tensor core.
pub const ROWS: usize = 8;

/// log2 of the most leaves of a block: a whole tree.
pub const DEPTH: usize = TREE.ilog2() as usize;

/// Query rows of a kv head from which on it is worth its blocks.
const MANY: usize = 256;

/// Codecs of byte lanes, whose weights are summed byte by byte under units that stay; of up to eight heads.
pub fn serves(c: &CodecInfo, d: usize, group: usize) -> bool {
    let plain = |half: &Half| half.bands.len() == 1 && half.lane == Lane::U8 && half.bands[0].spec().sides > 0 && half.bands[0].spec().group == 0;
    [64, 128].contains(&d) && group <= 8 && parts(c) == 2 && plain(&c.k) && plain(&c.v)
}

/// Whether calls of about `queries` query tokens a sequence take it where a block may have `shared` bytes. Of 64 dims, sums of offsets
/// would spill.
pub fn chosen(c: &CodecInfo, d: usize, group: usize, queries: usize, shared: usize) -> bool {
    let offsets = c.k.affine || c.v.affine;
    serves(c, d, group) && (d == 128 || !offsets) && queries * group >= MANY && calibrated_chunk_meta(c, d, group, 32).wide_shared() <= shared
}

/// Meta value: `queries` and `warps` are those of a block.
pub fn chunk_meta(c: &CodecInfo, d: usize, group: usize, page_tokens: usize) -> DecodeMeta {
    let (warps, wide, like) = (16, 1, shape(c, d, group, page_tokens));
    DecodeMeta { cols: ROWS, parts: 1, many: true, apart: true, wide, queries: ROWS * wide * warps / group, warps, depth: DEPTH, min_blocks: 1, ..like }
}

/// Of a calibrated codec: the kernel takes the records of [`super::map_queries`] and maps outputs back.
pub fn calibrated_chunk_meta(c: &CodecInfo, d: usize, group: usize, page_tokens: usize) -> DecodeMeta {
    let m = chunk_meta(c, d, group, page_tokens);
    DecodeMeta { record: maps::record(d, m.lines(), m.parts), ..m }
}

impl DecodeMeta {
    /// Bytes of a leaf's keys in shared memory; those of its values lie behind them.
    fn half_bytes(&self) -> usize {
        LEAF * self.d
    }

    /// Rows that a block has room for.
    pub fn lines(&self) -> usize {
        ROWS * self.wide * self.warps
    }

    /// Those of them that are mapped back.
    fn mapped_lines(&self) -> usize {
        if self.record > 0 { self.lines() } else { 0 }
    }

    /// Words of an output row where it waits to be written.
    fn line(&self) -> usize {
        self.d + 8
    }

    /// Parts that a warp may put by.
    fn waits(&self) -> usize {
        self.depth + 1
    }

    /// Bytes of a block in shared memory, at most.
    fn wide_shared(&self) -> usize {
        let rows = self.lines();
        4 * self.half_bytes() + 2 * rows * self.d + 8 * tiles::SIDES * LEAF + 4 * self.waiting() + 16 * rows + 4 * self.d + self.mapped_lines() * (self.int_line() + 8) + 2048
    }

    /// Maxima and sums of those of a block.
    fn waiting(&self) -> usize {
        self.lines() / ROWS * self.waits() * fold::STAT
    }
}

/// Tile IR of the kernel.
pub fn chunk_ir(c: &CodecInfo, m: &DecodeMeta, elem: Elem) -> Result<Program, Report> {
    match elem {
        Elem::Bf16 => attention::chunk_attention::build::<bf16>(m, c.k.bands, c.v.bands),
        Elem::F32 => attention::chunk_attention::build::<f32>(m, c.k.bands, c.v.bands),
    }
}

/// log2 of a block's leaves that ends first for `rows` blocks as long as their tables: turns of blocks, a leaf's time each, and what a block
/// costs besides. The larger one of two, since parts cost memory.
pub fn best_unit(m: &DecodeMeta, rows: usize, capacity: usize, resident: usize) -> usize {
    let time = |unit: usize| {
        let turns = (rows.max(1) * splits_of(m, capacity, unit)).div_ceil(resident.max(1));
        turns * ((1 << unit).min(capacity.div_ceil(LEAF)) + 2)
    };
    (0..=m.depth).rev().min_by_key(|&unit| time(unit)).unwrap_or(m.depth)
}
