//! Tiles of pairs (see [`crate::tile::pair`]): lanes t = 0, 1 hold the first two of a quad row's four tokens, lanes
//! t = 2, 3 the last two. Left and right columns of an accumulator lie in the same lanes, two lanes apart.

use super::lower::Lower;
use crate::dtype::DType;
use crate::ir::*;

impl Lower {
    /// Whether this lane holds left columns of an accumulator.
    fn left(&mut self) -> Id {
        let two = self.int(2);
        self.bin(BinOp::Lt, self.t, two)
    }

    fn pick(&mut self, cond: Id, yes: Id, no: Id) -> Id {
        let d = self.p.ty(yes).dtype();
        self.emit(Op::Select(cond, yes, no), d)
    }

    /// A lane keeps the rows of its tokens and sends those of its partner.
    pub fn fold_halves(&mut self, src: Id, weight: usize) -> Vec<Id> {
        let (regs, left) = (self.tile(src), self.left());
        let (one, weight) = (self.int(1), self.int(weight as i64));
        let (own, other) = (self.pick(left, weight, one), self.pick(left, one, weight));
        (0..4)
            .map(|i| {
                let keep = self.pick(left, regs[i], regs[4 + i]);
                let send = self.pick(left, regs[4 + i], regs[i]);
                let got = self.emit(Op::ShflXor(send, 2), DType::I32);
                let (a, b) = (self.bin(BinOp::Mul, keep, own), self.bin(BinOp::Mul, got, other));
                self.bin(BinOp::Add, a, b)
            })
            .collect()
    }

    /// After the transposition quad rows 0..4 hold tokens 0, 1 of each four, quad rows 4..8 tokens 2, 3: each
    /// gives the other the byte that it does not need.
    pub fn split_halves(&mut self, src: Id) -> Vec<Id> {
        let regs = self.tile(src);
        let moved: Vec<Id> = (0..2)
            .map(|i| {
                let packed = self.prmt(regs[2 * i], regs[2 * i + 1], 0x5410);
                self.emit(Op::MovMatrix(packed), DType::U32)
            })
            .collect();
        let (low, high) = (self.prmt(moved[0], moved[1], 0x6240), self.prmt(moved[0], moved[1], 0x7351));
        let four = self.int(4);
        let left = self.bin(BinOp::Lt, self.g, four);
        let (keep, send) = (self.pick(left, high, low), self.pick(left, low, high));
        let got = self.emit(Op::ShflXor(send, 16), DType::U32);
        let (first, second) = (self.pick(left, keep, got), self.pick(left, got, keep));
        vec![self.prmt(first, second, 0x5410), self.prmt(first, second, 0x7632)]
    }

    pub fn swap_halves(&mut self, src: Id) -> Vec<Id> {
        let d = self.p.ty(src).dtype();
        self.tile(src).into_iter().map(|r| self.emit(Op::ShflXor(r, 2), d)).collect()
    }

    /// First token of the lane.
    fn first_token(&mut self) -> Id {
        let (four, pair) = (self.scaled(self.g, 4), self.shift(BinOp::Shr, self.t, 1));
        let pair = self.scaled(pair, 2);
        self.bin(BinOp::Add, four, pair)
    }

    pub fn pair_index(&mut self) -> Vec<Id> {
        let first = self.first_token();
        let second = self.offset(first, 1);
        vec![first, first, second, second]
    }

    /// Two tokens' values, side by side in memory: one 8-byte load.
    pub fn load_pairs(&mut self, buf: Buf, at: Id, stride: usize, elem: DType) -> Vec<Id> {
        let first = self.first_token();
        let part = self.scaled(first, stride);
        let a = self.plus(at, part);
        let [x, y] = if stride == 4 && elem == DType::U32 {
            let outs = [0; 2].map(|_| self.p.fresh(Ty::Scalar(DType::U32)));
            self.push(Op::LoadVec { buf, at: a, words: 2 }, outs.to_vec());
            outs
        } else {
            [0, 1].map(|i| {
                let a = self.offset(a, i * stride);
                self.emit(Op::Load { buf, at: a }, elem)
            })
        };
        vec![x, x, y, y]
    }
}
