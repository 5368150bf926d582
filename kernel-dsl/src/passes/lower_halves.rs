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
        let Ty::Tile { dtype, layout, .. } = self.p.ty(src) else { return vec![] };
        let of = |n: usize| if dtype == DType::F32 { u64::from((n as f32).to_bits()) } else { n as u64 };
        let (one, weight) = (self.konst(dtype, of(1)), self.konst(dtype, of(weight)));
        let (own, other) = (self.pick(left, weight, one), self.pick(left, one, weight));
        // A column vector has one element a lane and column, which both halves need.
        let half = if layout == Layout::Cols { 0 } else { regs.len() / 2 };
        (0..regs.len() - half)
            .map(|i| {
                let keep = self.pick(left, regs[i], regs[half + i]);
                let send = self.pick(left, regs[half + i], regs[i]);
                let got = self.emit(Op::ShflXor(send, 2), dtype);
                let b = self.bin(BinOp::Mul, got, other);
                if dtype == DType::F32 {
                    return self.emit(Op::Fma(keep, own, b), dtype);
                }
                let a = self.bin(BinOp::Mul, keep, own);
                self.bin(BinOp::Add, a, b)
            })
            .collect()
    }

    /// Likewise from a start on: two multiply-adds an element.
    pub fn fold_onto(&mut self, src: Id, (left_weight, right_weight): (usize, usize), start: Id) -> Vec<Id> {
        let (regs, first, left) = (self.tile(src), self.tile(start), self.left());
        let [a, b] = [left_weight, right_weight].map(|n| self.konst(DType::I32, n as u64));
        let (own, other) = (self.pick(left, a, b), self.pick(left, b, a));
        let half = regs.len() / 2;
        (0..half)
            .map(|i| {
                let keep = self.pick(left, regs[i], regs[half + i]);
                let send = self.pick(left, regs[half + i], regs[i]);
                let got = self.emit(Op::ShflXor(send, 2), DType::I32);
                let kept = self.bin(BinOp::Mul, keep, own);
                let kept = self.bin(BinOp::Add, kept, first[i % 2]);
                let got = self.bin(BinOp::Mul, got, other);
                self.bin(BinOp::Add, got, kept)
            })
            .collect()
    }

    /// A lane keeps the rows of its tokens.
    pub fn own_halves(&mut self, src: Id) -> Vec<Id> {
        let (regs, left) = (self.tile(src), self.left());
        let (first, second) = regs.split_at(regs.len() / 2);
        first.iter().zip(second).map(|(a, b)| self.pick(left, *a, *b)).collect()
    }

    /// Where a lane's rows of the first of its two columns begin in memory, `rows` folded rows, and its head there.
    fn own_half(&mut self, at: Id, rows: usize) -> (Id, Id) {
        let (one, run) = (self.int(1), rows / 8 * 4);
        let right = self.shift(BinOp::Shr, self.t, 1);
        let (quad, right) = (self.scaled(self.g, 2 * run), self.scaled(right, run));
        let at = self.plus(at, quad);
        let at = self.plus(at, right);
        let head = self.bin(BinOp::And, self.t, one);
        (at, self.scaled(head, 2))
    }

    pub fn load_halves(&mut self, buf: Buf, at: Id, (stride, heads): (usize, usize), ty: Ty) -> Vec<Id> {
        let Ty::Tile { rows, .. } = ty else { return vec![] };
        let (base, head) = self.own_half(at, rows);
        let words = (rows / 8).min(4);
        let mut regs = vec![0; ty.regs()];
        for e in 0..2 {
            let mut own = self.offset(head, e);
            if heads < 4 {
                let last = self.int(heads as i64 - 1);
                own = self.bin(BinOp::Min, own, last);
            }
            let part = self.scaled(own, stride);
            let a = self.plus(base, part);
            for first in (0..rows / 8).step_by(words) {
                let a = self.offset(a, first * 4);
                let outs: Vec<Id> = (0..words).map(|_| self.p.fresh(Ty::Scalar(DType::F32))).collect();
                self.push(Op::LoadVec { buf, at: a, words }, outs.clone());
                for (i, out) in outs.into_iter().enumerate() {
                    let row = first + i;
                    regs[row / 2 * 4 + row % 2 * 2 + e] = out;
                }
            }
        }
        regs
    }

    pub fn store_halves(&mut self, op: &Op) {
        let Op::StoreHalves { buf, at, stride, heads, value } = *op else { return };
        let Ty::Tile { rows, .. } = self.p.ty(value) else { return };
        let regs = self.tile(value);
        let (base, head) = self.own_half(at, rows);
        let words = (rows / 8).min(4);
        for e in 0..2 {
            let store = self.region(|l| {
                let part = l.scaled(head, stride);
                let a = l.plus(base, part);
                for first in (0..rows / 8).step_by(words) {
                    let values = (first..first + words).map(|row| regs[row / 2 * 4 + row % 2 * 2 + e]).collect();
                    let a = l.offset(a, e * stride + first * 4);
                    l.push(Op::StoreVec { buf, at: a, values }, vec![]);
                }
            });
            let last = self.int(heads as i64 - e as i64);
            let inside = self.bin(BinOp::Lt, head, last);
            self.push(Op::If { cond: inside, then: store, other: vec![] }, vec![]);
        }
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
    /// Lane (g, t) has columns 2t and 2t + 1 of every eight, twice: of rows eight apart.
    pub fn load_alike(&mut self, buf: Buf, at: Id, ty: Ty) -> Vec<Id> {
        let Ty::Tile { dtype, rows, cols, .. } = ty else { return vec![] };
        let part = self.scaled(self.t, 16);
        let base = self.plus(at, part);
        let mut row = vec![];
        for nt in 0..cols / 8 {
            let (at, outs) = (self.offset(base, 64 * nt), [0; 4].map(|_| self.p.fresh(Ty::Scalar(dtype))));
            self.push(Op::LoadVec { buf, at, words: 4 }, outs.to_vec());
            row.extend(outs);
        }
        row.repeat(rows / 16)
    }

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
