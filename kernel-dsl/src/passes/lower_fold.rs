//! Rows two by two, spread columns, and left operands that become right ones: see [`crate::tile`].

use super::lower::Lower;
use crate::dtype::DType;
use crate::ir::*;

impl Lower {
    /// Lane (g, t) has rows 2g and 2g + 1.
    pub fn fold_rows(&mut self, src: Id, weight: usize) -> Vec<Id> {
        let (regs, float) = (self.tile(src), self.p.ty(src).dtype() == DType::F32);
        let worth = self.konst(DType::F32, u64::from((weight as f32).to_bits()));
        let at = |i: usize| (i / 2 * 4 + i % 2, i / 2 * 4 + 2 + i % 2);
        (0..regs.len() / 2)
            .map(|i| {
                let (even, odd) = (regs[at(i).0], regs[at(i).1]);
                if float {
                    return self.emit(Op::Fma(even, worth, odd), DType::F32);
                }
                if weight == 0 {
                    return odd;
                }
                let even = self.scaled(even, weight);
                self.bin(BinOp::Add, even, odd)
            })
            .collect()
    }

    /// A lane's eight neighbours of a row are two words of each byte.
    pub fn split_rows(&mut self, src: Id) -> Vec<Id> {
        let mut regs = vec![];
        for w in self.tile(src).chunks(4) {
            let (a, c) = (self.prmt(w[0], w[1], 0x5140), self.prmt(w[2], w[3], 0x5140));
            let (low, high) = (self.prmt(a, c, 0x5410), self.prmt(a, c, 0x7632));
            regs.extend([high, low]);
        }
        regs
    }

    /// Of each row a lane has two columns of every eight: four of a tile are the bytes of a word.
    pub fn bytes_beside(&mut self, a: Id, b: Id, outs: &[Id]) {
        let (tiles, mut low, mut next) = ([self.tile(a), self.tile(b)], vec![], vec![]);
        for mt in (0..tiles[0].len()).step_by(8) {
            // Two rows eight apart of the first eight columns of both, then of the next.
            for at in [0, 2, 4, 6].map(|i| mt + i) {
                let [x, y] = [0, 1].map(|tile| self.prmt(tiles[tile][at], tiles[tile][at + 1], 0x5140));
                low.push(self.prmt(x, y, 0x5410));
                next.push(self.prmt(x, y, 0x7632));
            }
        }
        self.set(outs[0], low);
        self.set(outs[1], next);
    }

    pub fn pair_sums(&mut self, src: Id, outs: &[Id]) {
        let regs = self.tile(src);
        let sums: Vec<Id> = regs.chunks(2).map(|x| self.bin(BinOp::Add, x[0], x[1])).collect();
        self.set(outs[0], vec![sums[0], sums[2]]);
        self.set(outs[1], vec![sums[1], sums[3]]);
    }

    pub fn load_columns_spread(&mut self, buf: Buf, at: Id, ty: Ty) -> Vec<Id> {
        let lane = self.scaled(self.t, 32);
        let base = self.plus(at, lane);
        let mut regs = vec![];
        for half in 0..2 {
            let at = self.offset(base, 16 * half);
            let outs: Vec<Id> = (0..4).map(|_| self.p.fresh(Ty::Scalar(ty.dtype()))).collect();
            self.push(Op::LoadVec { buf, at, words: 4 }, outs.clone());
            regs.extend(outs);
        }
        regs
    }

    /// Rows 4g + i of lane (g, t) become columns 16 (g % 2) + 8 (i / 2) + 2 (g / 2) + i % 2.
    pub fn store_spread(&mut self, buf: Buf, at: Id, value: Id) {
        let Ty::Tile { cols: k, .. } = self.p.ty(value) else { return };
        let (regs, steps) = (self.tile(value), k / 32);
        let one = self.int(1);
        let (odd, pair) = (self.bin(BinOp::And, self.g, one), self.shift(BinOp::Shr, self.g, 1));
        let parts = [self.scaled(odd, 512 * steps), self.scaled(pair, 128), self.scaled(self.t, 16)];
        let base = parts.into_iter().fold(at, |base, part| self.plus(base, part));
        for (i, c) in (0..4).flat_map(|i| (0..steps / 2).map(move |c| (i, c))) {
            let word = |n: usize| regs[(i / 2 * steps + 2 * c + n / 2) * 4 + n % 2 * 2 + i % 2];
            let at = self.offset(base, (i / 2 * (steps / 2) + c) * 512 + i % 2 * 64);
            self.push(Op::StoreVec { buf, at, values: (0..4).map(word).collect() }, vec![]);
        }
    }

    /// Rows g (n / 8) + i of lane (g, t) become columns.
    pub fn store_right(&mut self, buf: Buf, at: Id, value: Id) {
        let Ty::Tile { rows: n, .. } = self.p.ty(value) else { return };
        let (regs, eights) = (self.tile(value), n / 64);
        let lane = self.scaled(self.t, 16);
        let mut base = self.plus(at, lane);
        // Words of eight columns: two a lane, half of 16 bytes.
        let parts = if eights == 1 {
            let one = self.int(1);
            let (odd, pair) = (self.bin(BinOp::And, self.g, one), self.shift(BinOp::Shr, self.g, 1));
            vec![self.scaled(odd, 8), self.scaled(pair, 512)]
        } else {
            vec![self.scaled(self.g, 256 * eights)]
        };
        for part in parts {
            base = self.plus(base, part);
        }
        for (i, run) in (0..8).flat_map(|i| (0..eights.div_ceil(2)).map(move |run| (i, run))) {
            let rows = (2 * run..eights.min(2 * run + 2)).map(|eight| 8 * eight + i);
            let values = rows.flat_map(|row| [0, 1].map(|half| regs[row / 2 * 4 + half * 2 + row % 2])).collect();
            let at = self.offset(base, run * 512 + i * 64);
            self.push(Op::StoreVec { buf, at, values }, vec![]);
        }
    }
}
