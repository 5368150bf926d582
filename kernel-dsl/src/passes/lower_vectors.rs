//! Vectors over lanes: their numbers, and sums over k of right operands as each lane has them: lane (g, t) holds k elements of columns 8j + g, so
//! four lanes hold a column.

use super::lower::Lower;
use crate::dtype::DType;
use crate::ir::*;

impl Lower {
    pub fn vector_index(&mut self, regs: usize) -> Vec<Id> {
        let base = self.scaled(self.lane, regs);
        (0..regs).map(|i| self.offset(base, i)).collect()
    }

    /// Two instructions for eight bytes, and no product of the tensor core.
    pub fn lane_totals(&mut self, src: Id) -> Vec<Id> {
        let Ty::Tile { cols, .. } = self.p.ty(src) else { return vec![] };
        let (regs, ones) = (self.tile(src), self.konst(DType::U32, 0x0101_0101));
        let runs: Vec<Vec<Id>> = regs.chunks(regs.len() / (cols / 8)).map(<[Id]>::to_vec).collect();
        runs.into_iter()
            .map(|run| {
                let sums: Vec<Id> = run.into_iter().map(|word| self.bin(BinOp::Dot4, word, ones)).collect();
                let sum = self.fold(&sums, BinOp::Add);
                self.emit(Op::Cast(sum), DType::I32)
            })
            .collect()
    }

    /// Columns 8j + 2t and 8j + 2t + 1 go to lanes (g, t).
    pub fn fold_fours(&mut self, src: Id) -> Vec<Id> {
        let first = self.scaled(self.t, 8);
        let mut columns = vec![];
        for own in self.tile(src) {
            let mut sum = own;
            for by in [1, 2] {
                let other = self.emit(Op::ShflXor(sum, by), DType::I32);
                sum = self.bin(BinOp::Add, sum, other);
            }
            for e in 0..2 {
                let lane = self.offset(first, 4 * e);
                columns.push(self.emit(Op::OfLane(sum, lane), DType::I32));
            }
        }
        columns
    }

    /// Column 8j + g comes from a lane (.., g / 2).
    pub fn in_fours(&mut self, src: Id) -> Vec<Id> {
        let (one, zero) = (self.int(1), self.int(0));
        let (lane, odd) = (self.shift(BinOp::Shr, self.g, 1), self.bin(BinOp::And, self.g, one));
        let (odd, first) = (self.bin(BinOp::Ne, odd, zero), self.bin(BinOp::Eq, self.t, zero));
        let pairs: Vec<Vec<Id>> = self.tile(src).chunks(2).map(<[Id]>::to_vec).collect();
        pairs
            .into_iter()
            .map(|two| {
                let [even, other] = [0, 1].map(|e| self.emit(Op::OfLane(two[e], lane), DType::I32));
                let own = self.emit(Op::Select(odd, other, even), DType::I32);
                self.emit(Op::Select(first, own, zero), DType::I32)
            })
            .collect()
    }
}
