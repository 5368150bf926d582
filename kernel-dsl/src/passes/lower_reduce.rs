//! Sums and maxima over a lane's registers and across lanes, in their stated order.

use super::lower::Lower;
use crate::dtype::DType;
use crate::ir::*;

impl Lower {
    /// A ballot a column, or for it and the one four away, which are in the same lanes: a quarter of the warp.
    pub fn any_rows(&mut self, src: Id, pairs: bool) -> Vec<Id> {
        let Ty::Tile { rows, cols, .. } = self.p.ty(src) else { return vec![] };
        let (regs, zero) = (self.tile(src), self.konst(DType::U32, 0));
        let (own, by) = (self.konst(DType::U32, 0x1111_1111), self.emit(Op::Cast(self.t), DType::U32));
        let own = self.bin(BinOp::Shl, own, by);
        let per = if rows == 8 { 2 } else { 4 };
        let eight = |r: usize| r % (cols / 8 * per) / per;
        let mut any = vec![];
        for c in 0..cols / 4 {
            if pairs && c % 2 == 1 {
                any.push(any[c - 1]);
                continue;
            }
            let mine: Vec<Id> = (0..regs.len()).filter(|&r| eight(r) == c / 2 && (pairs || r % 2 == c % 2)).map(|r| regs[r]).collect();
            let own_any = self.fold(&mine, BinOp::Or);
            let lanes = self.emit(Op::Ballot(own_any), DType::U32);
            let lanes = self.bin(BinOp::And, lanes, own);
            any.push(self.bin(BinOp::Ne, lanes, zero));
        }
        any
    }

    pub fn fold(&mut self, regs: &[Id], op: BinOp) -> Id {
        let mut acc = regs[0];
        for r in &regs[1..] {
            acc = self.bin(op, acc, *r);
        }
        acc
    }

    fn butterfly(&mut self, v: Id, op: BinOp, steps: &[usize]) -> Id {
        let mut acc = v;
        for &x in steps {
            let d = self.p.ty(acc).dtype();
            let other = self.emit(Op::ShflXor(acc, x), d);
            acc = self.bin(op, acc, other);
        }
        acc
    }

    pub fn reduce(&mut self, op: ReduceOp, axis: Axis, src: Id, out: Id) {
        let op = op.joined_by();
        let regs = self.tile(src);
        let Ty::Tile { rows, cols, .. } = self.p.ty(src) else { return };
        let at = |mt: usize, nt: usize, i: usize| regs[(mt * (cols / 8) + nt) * 4 + i];
        match axis {
            Axis::All => {
                let own = self.fold(&regs, op);
                let d = self.p.ty(own).dtype();
                let mut acc = own;
                for x in [16, 8, 4, 2] {
                    acc = self.butterfly(acc, op, &[x]);
                }
                let other = self.emit(Op::ShflXor(acc, 1), d);
                self.push(Op::Bin(op, acc, other), vec![out]);
            }
            Axis::Rows | Axis::Lane => {
                let mut result = vec![];
                for nt in 0..cols / 8 {
                    for e in 0..2 {
                        let own: Vec<Id> = if rows == 8 { vec![regs[nt * 2 + e]] } else { (0..rows / 16).flat_map(|mt| [at(mt, nt, e), at(mt, nt, 2 + e)]).collect() };
                        let own = self.fold(&own, op);
                        result.push(if axis == Axis::Lane { own } else { self.butterfly(own, op, &[4, 8, 16]) });
                    }
                }
                self.set(out, result);
            }
            Axis::Half => {
                let mut result = vec![];
                for nt in 0..cols / 8 {
                    for half in 0..2 {
                        for e in 0..2 {
                            let own: Vec<Id> = (0..rows / 32).flat_map(|i| [at(half * rows / 32 + i, nt, e), at(half * rows / 32 + i, nt, 2 + e)]).collect();
                            let own = self.fold(&own, op);
                            result.push(own);
                        }
                    }
                }
                self.set(out, result);
            }
            Axis::Cols if rows == 8 => {
                let own = self.fold(&regs, op);
                let all = self.butterfly(own, op, &[1, 2]);
                self.set(out, vec![all]);
            }
            Axis::Cols => {
                let mut result = vec![];
                for mt in 0..rows / 16 {
                    for h in 0..2 {
                        let own: Vec<Id> = (0..cols / 8).flat_map(|nt| [at(mt, nt, 2 * h), at(mt, nt, 2 * h + 1)]).collect();
                        let own = self.fold(&own, op);
                        result.push(self.butterfly(own, op, &[1, 2]));
                    }
                }
                self.set(out, result);
            }
        }
    }

    pub fn hadamard(&mut self, src: Id) -> Vec<Id> {
        let mut v = self.tile(src);
        let own = v.len();
        let mut h = 1;
        while h < own {
            let prev = v.clone();
            for (i, x) in v.iter_mut().enumerate() {
                *x = if i & h == 0 { self.bin(BinOp::Add, prev[i], prev[i | h]) } else { self.bin(BinOp::Sub, prev[i ^ h], prev[i]) };
            }
            h *= 2;
        }
        for x in [1, 2, 4, 8, 16] {
            let bit = self.int(x as i64);
            let (masked, zero) = (self.bin(BinOp::And, self.lane, bit), self.int(0));
            let upper = self.bin(BinOp::Ne, masked, zero);
            for r in v.iter_mut() {
                let other = self.emit(Op::ShflXor(*r, x), DType::F32);
                // Lower lane: mine + other; upper lane: other - mine.
                let signed = self.emit(Op::Un(UnOp::Neg, *r), DType::F32);
                let mine = self.emit(Op::Select(upper, signed, *r), DType::F32);
                *r = self.bin(BinOp::Add, other, mine);
            }
        }
        v
    }
}
