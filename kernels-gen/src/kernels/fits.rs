//! The most warps, blocks, stages and leaves of a decode kernel that fit the shared memory of a multiprocessor.

use super::decode_attention::{DecodeMeta, SHARE};

/// Parts wait away from shared memory beside copies of more bytes only, KIVI's beside half: smaller ones do as well with fewer warps.
pub(super) const AWAY: usize = 6000;

/// Shared memory that a block may have on the devices that have most.
const MOST_SHARED: usize = 227 * 1024;

/// Below it there is little.
const SCARCE: usize = 128 * 1024;

/// Warps and blocks an SM where shared memory does not allow what a kernel was cut for: the most warps first.
const SHAPES: [(usize, usize); 6] = [(4, 3), (8, 1), (4, 2), (4, 1), (2, 1), (1, 1)];

impl DecodeMeta {
    /// This shape, or the next of fewer warps an SM, of which so many blocks lie side by side where one may have `shared` bytes: registers
    /// are dealt out by blocks that do. A third stage goes before warps do. With as many leaves a warp as fit; parts wait away from shared memory before warps or leaves are fewer.
    pub fn within(self, shared: usize) -> DecodeMeta {
        // Without bulk copies sixteen warps want more registers than there are; the devices that lack them have less shared memory too.
        // So do sums of blocks' coordinates as floats more than twelve have.
        let most = if self.blocks() && self.parts == 1 { (4, 2) } else { SHAPES[0] };
        let own = if shared < MOST_SHARED && self.warps * self.min_blocks > 12 { most } else { (self.warps, self.min_blocks) };
        let fewer = SHAPES.into_iter().filter(|&(warps, blocks)| warps <= own.0 && warps * blocks < own.0 * own.1);
        let shapes = std::iter::once(own).chain(fewer).flat_map(|at| [(at, self.stages), (at, self.stages.min(2))]);
        let shapes = shapes.map(|((warps, min_blocks), stages)| DecodeMeta { warps, min_blocks, stages, scarce: shared < SCARCE, ..self }.deep(shared));
        shapes.fold(None, |found: Option<(DecodeMeta, bool)>, m| found.filter(|f| f.1).or(Some(m))).map_or(self, |found| found.0)
    }

    /// With the most leaves a warp that fit, and whether any do.
    fn deep(mut self, shared: usize) -> (DecodeMeta, bool) {
        // A kibibyte of every block is the driver's.
        let shared = (shared.min(MOST_SHARED) + 1024) / self.min_blocks - 1024;
        self.depth = (SHARE / self.warps).ilog2() as usize;
        self.away = false;
        self.away = self.warps == 8 && !self.blocks() && self.pair * self.tile_bytes > (if self.kivi { AWAY / 2 } else { AWAY }) && self.shared() > shared && 4 * self.part() <= self.ring();
        if self.away && self.shared() > shared {
            self.away = false;
        }
        while self.depth > self.least().max(1) && self.shared() > shared {
            self.depth -= 1;
        }
        (self, self.shared() <= shared)
    }
}
