//! The scalar reference: what the kernels compute, bit for bit, in plain loops.
//!
//! `row` codes one vector, `store` and `attention` are the two kernels (`load` undoes the first), `strand` the numerics of a row
//! of attention, `sequence` is `attention` again for many queries over one sequence, fast enough to
//! run a model; `prefill` says what several query tokens of a sequence see.

mod attention;
mod calibrated;
mod kivi;
mod merge;
mod pca;
mod pca_turned;
mod prefill;
mod project;
mod rope;
mod row;
mod sequence;
mod slots;
mod store;
mod strand;

pub use attention::{Decoded, decode};
pub use calibrated::Calibrated;
pub use kivi::{KiviHead, decode_kivi, store_groups};
pub use merge::merge;
pub use pca::{PcaHead, decode_pca, store_bases, store_block};
pub use prefill::prefill;
pub use project::{LARGEST, Map, project};
pub use rope::RopeTable;
pub use row::{Row, rotate, to_bf16};
pub use sequence::Sequence;
pub use slots::{SlotShape, export_slots, import_slots, store_slots};
pub use store::{load, store};
pub use strand::SEGMENT;

use crate::layout::TILE;
use crate::registry::CodecInfo;

/// A paged cache: `[page, kv head]` blocks of `page_tokens / 32` packed tiles.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CacheShape {
    pub pages: usize,
    /// A multiple of 32.
    pub page_tokens: usize,
    pub kv_heads: usize,
    pub d: usize,
}

impl CacheShape {
    /// Bytes of one page of one kv head.
    pub fn block_bytes(&self, c: &CodecInfo) -> usize {
        self.page_tokens / TILE * c.tile_bytes(self.d)
    }

    pub fn bytes(&self, c: &CodecInfo) -> usize {
        self.pages * self.kv_heads * self.block_bytes(c)
    }

    /// First byte of the tile that holds `offset` of `page`.
    fn tile_byte(&self, c: &CodecInfo, page: usize, kv_head: usize, offset: usize) -> usize {
        (page * self.kv_heads + kv_head) * self.block_bytes(c) + offset / TILE * c.tile_bytes(self.d)
    }

    /// The `tile`-th 32 tokens of a sequence that lives in `pages`.
    fn tile<'a>(&self, c: &CodecInfo, cache: &'a [u8], pages: &[usize], kv_head: usize, tile: usize) -> &'a [u8] {
        let token = tile * TILE;
        let at = self.tile_byte(c, pages[token / self.page_tokens], kv_head, token % self.page_tokens);
        &cache[at..at + c.tile_bytes(self.d)]
    }

    /// The pages of the first `len` tokens; entries beyond those are not looked at.
    fn pages_of(&self, table: &[i32], len: i32) -> Result<Vec<usize>, Status> {
        let len = usize::try_from(len).map_err(|_| Status::BAD_LENGTH)?;
        if len > table.len() * self.page_tokens {
            return Err(Status::BAD_LENGTH);
        }
        let page = |&p: &i32| usize::try_from(p).ok().filter(|&p| p < self.pages).ok_or(Status::BAD_PAGE);
        table[..len.div_ceil(self.page_tokens)].iter().map(page).collect()
    }
}

/// What went wrong in a launch, as sticky bits; the rest of the launch is unaffected.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Status(pub u32);

impl Status {
    pub const OK: Status = Status(0);
    /// A slot beyond the cache: the token was not stored.
    pub const BAD_SLOT: Status = Status(1);
    /// A page index outside the cache: the sequence's output is 0.
    pub const BAD_PAGE: Status = Status(2);
    /// A length below 0 or above what the page table holds: the sequence's output is 0.
    pub const BAD_LENGTH: Status = Status(4);

    pub fn set(&mut self, other: Status) {
        self.0 |= other.0;
    }

    pub fn is_ok(self) -> bool {
        self.0 == 0
    }
}
