//! Products whose right operand stays in shared memory: see [`crate::pack::core_byte`].

use super::lower::Lower;
use super::lower_mma::kind_of;
use crate::dtype::DType;
use crate::ir::*;

impl Lower {
    /// One instruction of the thread IR for all of a tile's registers: the tensor core's instructions are then under way together.
    pub fn mma_shared(&mut self, a: Id, (buf, at, stride): (Buf, Id, usize), c: Id, ty: Ty) -> Vec<Id> {
        let (Ty::Tile { dtype: left, cols: k, .. }, Buf::Shared(array)) = (self.p.ty(a), buf) else { return vec![] };
        let (kind, per, acc) = kind_of(left, self.p.shared[array].dtype);
        let (a, c) = (self.tile(a), self.tile(c));
        let outs: Vec<Id> = (0..ty.regs()).map(|_| self.p.fresh(Ty::Scalar(acc))).collect();
        let c = if c.iter().all(|id| self.known(*id) == Some(0)) { vec![] } else { c };
        self.push(Op::MmaCores { kind, a, steps: k / per, buf, at, stride, c }, outs.clone());
        outs
    }

    /// A lane has both halves of its rows.
    pub fn fold_cols(&mut self, src: Id, weight: usize) -> Vec<Id> {
        let Ty::Tile { cols, .. } = self.p.ty(src) else { return vec![] };
        let half = cols / 16 * 4;
        let regs = self.tile(src);
        regs.chunks(2 * half)
            .flat_map(|rows| rows[..half].iter().zip(&rows[half..]))
            .map(|(left, right)| {
                let left = self.scaled(*left, weight);
                self.bin(BinOp::Add, left, *right)
            })
            .collect()
    }

    /// Left operand from columns of lines. Lane l has the address of row l of 32; two matrices have two rows of the operand, which a byte
    /// permutation parts.
    pub fn load_lines(&mut self, buf: Buf, at: Id) -> Vec<Id> {
        let (seven, row) = (self.int(7), self.scaled(self.lane, 128));
        let chunk = self.bin(BinOp::And, self.lane, seven);
        let chunk = self.scaled(chunk, 16);
        let base = self.bin(BinOp::Xor, at, chunk);
        let base = self.plus(base, row);
        let mut regs = vec![];
        for step in 0..4 {
            let at = self.offset(base, step * 32 * 128);
            let outs: Vec<Id> = (0..4).map(|_| self.p.fresh(Ty::Scalar(DType::U32))).collect();
            self.push(Op::LoadMatrices { buf, at, turned: true }, outs.clone());
            regs.extend([(0, 0x6420), (0, 0x7531), (2, 0x6420), (2, 0x7531)].map(|(i, pick)| self.prmt(outs[i], outs[i + 1], pick)));
        }
        regs
    }

    /// A lane has four places of its column along k out of every 16: a word.
    pub fn store_cores(&mut self, buf: Buf, at: Id, byte: usize, value: Id) {
        let lane = self.scaled(self.lane, 4);
        let base = self.plus(at, lane);
        let pick = (byte | (4 + byte) << 4) as u32;
        for (core, w) in self.tile(value).chunks(4).enumerate() {
            let (low, high) = (self.prmt(w[0], w[1], pick), self.prmt(w[2], w[3], pick));
            let (value, at) = (self.prmt(low, high, 0x5410), self.offset(base, 128 * core));
            self.push(Op::Store { buf, at, value }, vec![]);
        }
    }
}
