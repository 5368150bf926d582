//! Kernels of KIVI's cache: whole tiles of 32 tokens whose keys have a step a channel and whose values have steps by token and
//! 32 channels. See [`crate::kivi`] for the format; the newest tokens lie raw in another cache, and [`super::merge`] joins the two.

pub mod attend;
pub mod leaves;
pub mod queries;
pub mod store;
pub mod values;

use super::Elem;
use super::cuts::shape;
use super::decode_attention::DecodeMeta;
use crate::kivi::{Kivi, KiviLayout};
use kernel_dsl::dtype::bf16;
use kernel_dsl::ir::Program;
use kernel_dsl::{Report, Source};
use store::GroupsMeta;

/// Head dims that these kernels serve.
pub const HEAD_DIMS: [usize; 2] = [64, 128];

/// Query heads of a kv head that the decode kernel serves.
pub const GROUPS: usize = 8;

impl DecodeMeta {
    /// Query rows of a warp's integers, padded ones included.
    pub fn heads(&self) -> usize {
        self.cols / self.parts
    }

    /// Bytes from a row of integers to the next: so far apart that eight rows meet at no bank.
    pub fn row_bytes(&self) -> usize {
        self.d + 16
    }

    /// Bytes of a warp's integers, high ones and low ones.
    pub fn query_bytes(&self) -> usize {
        2 * self.heads() * self.row_bytes()
    }

    /// Groups of channels.
    pub fn bands(&self) -> usize {
        self.d / 32
    }

    /// Bytes of a block in shared memory besides what every decode kernel has.
    pub fn kivi_shared(&self) -> usize {
        self.warps * (self.query_bytes() + 64 * self.heads() + 8 * self.cols) + 4 * self.heads() * self.d
    }
}

/// Meta value of the decode kernel: [`super::decode_ir`] makes it with [`Kivi::halves`]. `d`: 64 or 128; `group`: 1 to 8.
///
/// Sixteen warps an SM in blocks of eight, so that the 256 sequences and heads of 32 x 8192 are a block each, all of them at once; eight where bytes of
/// weights are summed apart.
pub fn decode_meta(kivi: &Kivi, d: usize, group: usize, page_tokens: usize) -> DecodeMeta {
    let (layout, of) = (KiviLayout::of(kivi, d), shape(kivi.halves(), d, group, page_tokens));
    DecodeMeta { kivi: true, early: false, tile_bytes: layout.tile_bytes(), warps: if of.apart { 4 } else { 8 }, min_blocks: 2, stages: 2, ..of }.within(usize::MAX)
}

/// Meta value of the kernel that codes whole tiles.
pub fn store_meta(kivi: &Kivi, d: usize, page_tokens: usize, elem: Elem) -> GroupsMeta {
    let layout = KiviLayout::of(kivi, d);
    GroupsMeta {
        d,
        elem: if elem == Elem::Bf16 { 2 } else { 4 },
        page_tokens,
        tile_bytes: layout.tile_bytes(),
        values_at: layout.values_at(),
        pairs_at: layout.pairs_at(),
        kept: 4 * d * kivi.value_bits.div_ceil(4),
        tops: [((1 << kivi.key_bits) - 1) as f32, ((1 << kivi.value_bits) - 1) as f32],
    }
}

/// Tile IR of that kernel.
pub fn store_ir(kivi: &Kivi, m: &GroupsMeta, elem: Elem) -> Result<Program, Report> {
    let c = kivi.halves();
    match elem {
        Elem::Bf16 => store::store_groups::build::<bf16>(m, c.k.bands[0], c.v.bands[0]),
        Elem::F32 => store::store_groups::build::<f32>(m, c.k.bands[0], c.v.bands[0]),
    }
}

/// The kernel that codes whole tiles. Grid: [`super::store_grid`].
pub fn store(kivi: &Kivi, d: usize, page_tokens: usize, elem: Elem) -> Result<Source, Report> {
    Source::of(&store_ir(kivi, &store_meta(kivi, d, page_tokens, elem), elem)?)
}
