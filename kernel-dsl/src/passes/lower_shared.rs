//! What groups of blocks share becomes words of a lane, which code words then take their part of.

use super::lower::Lower;
use crate::ir::*;

impl Lower {
    /// Lane (g, t), tokens 4g..4g+3: `[group][token]` of the groups that its blocks belong to.
    pub(super) fn shared_of_keys(&mut self, buf: Buf, at: Id, k: Packing) -> Vec<Id> {
        if k.group.dims == 0 {
            return vec![];
        }
        let (lanes, count) = k.groups_of(4);
        let first = if lanes > 1 { self.shift(BinOp::Shr, self.t, lanes.ilog2() as usize) } else { self.scaled(self.t, count) };
        let row = self.scaled(self.g, k.d / k.group.dims);
        let element = self.bin(BinOp::Add, row, first);
        self.shared_run(buf, at, k, element, 4, count)
    }

    /// Lane (g, t), tokens 8t..8t+7: likewise.
    pub(super) fn shared_of_values(&mut self, buf: Buf, at: Id, k: Packing) -> Vec<Id> {
        if k.group.dims == 0 {
            return vec![];
        }
        let (lanes, count) = k.groups_of(8);
        let first = if lanes > 1 { self.shift(BinOp::Shr, self.g, lanes.ilog2() as usize) } else { self.scaled(self.g, count) };
        let mut all = vec![];
        for c in 0..count {
            let group = self.scaled(first, 4);
            let element = self.bin(BinOp::Add, group, self.t);
            let skip = self.int(4 * c as i64);
            let element = self.bin(BinOp::Add, element, skip);
            all.extend(self.shared_run(buf, at, k, element, 8, 1));
        }
        all
    }

    /// `count` runs of `tokens` values from run `first` on.
    fn shared_run(&mut self, buf: Buf, at: Id, k: Packing, first: Id, tokens: usize, count: usize) -> Vec<Id> {
        let bytes = tokens * k.group.bits / 8;
        let base = self.offset(at, k.bytes());
        let own = self.scaled(first, bytes);
        let mine = self.plus(base, own);
        let (total, step) = (bytes * count, (bytes * count).min(16));
        let mut words = vec![];
        for byte in (0..total).step_by(step) {
            let a = self.offset(mine, byte);
            words.extend(self.bits(buf, a, 8 * step));
        }
        words
    }
}
