//! Tiles of pairs (see [`crate::tile::pair`]): in programs that have them, columns c and c + 4 of eight lie in one lane. So both bytes of
//! a head's sums meet where they are, and nothing moves between lanes before the transposition of weights.
//!
//! Lane (g, t) has columns t and t + 4 of every tile of eight; of other tiles, and in other programs, columns 2t and 2t + 1. Right operands
//! have column g / 2 + 4 (g % 2) in lanes (g, ..): the tensor core knows of places only.

use super::lower::Lower;
use crate::dtype::DType;
use crate::ir::*;

/// Whether a program has tiles of pairs.
pub fn has_pairs(stmts: &[Stmt]) -> bool {
    stmts.iter().any(|s| match &s.op {
        Op::If { then, other, .. } => has_pairs(then) || has_pairs(other),
        Op::For { body, .. } | Op::ParFor { body, .. } => has_pairs(body),
        Op::FoldHalves { .. } | Op::FoldOnto { .. } | Op::LoadHalves { .. } | Op::StoreHalves { .. } | Op::OwnHalves(_) | Op::SplitHalves(_) | Op::SwapHalves(_) => true,
        Op::LeftHalves(_) | Op::PairIndex | Op::LoadPairs { .. } | Op::AnyRows { pairs: true, .. } => true,
        _ => false,
    })
}

/// Of the four tokens of a quad row, those of a lane's registers.
const TOKENS: [usize; 4] = [0, 2, 1, 3];

/// Register of row `row` of a lane's, in its column `e` of two.
fn reg(row: usize, e: usize) -> usize {
    row / 2 * 4 + row % 2 * 2 + e
}

impl Lower {
    /// Whether a value is a row in one register: see [`super::alike`].
    pub fn alike(&self, id: Id) -> bool {
        self.alike.get(id as usize).is_some_and(|alike| *alike) && matches!(self.p.ty(id), Ty::Tile { .. })
    }

    /// The first of a lane's two columns of eight, of a tile of so many.
    pub fn own_column(&mut self, cols: usize) -> Id {
        if self.beside && cols == 8 { self.t } else { self.scaled(self.t, 2) }
    }

    /// How much further its column `e` of two lies.
    pub fn further(&self, e: usize, cols: usize) -> usize {
        if self.beside && cols == 8 { 4 * e } else { e }
    }

    /// The column of a right operand's eight that lanes (g, ..) have.
    pub fn right_column(&mut self, cols: usize) -> Id {
        if !self.beside || cols != 8 {
            return self.g;
        }
        let one = self.int(1);
        let (head, low) = (self.shift(BinOp::Shr, self.g, 1), self.bin(BinOp::And, self.g, one));
        let low = self.scaled(low, 4);
        self.bin(BinOp::Add, head, low)
    }

    /// The lane that has a lane's part of a right operand where columns are in their order.
    pub fn right_lane(&mut self, cols: usize) -> Id {
        if !self.beside || cols != 8 {
            return self.lane;
        }
        let column = self.right_column(cols);
        let first = self.scaled(column, 4);
        self.bin(BinOp::Add, first, self.t)
    }

    /// Left and right element of register `r` of what is folded.
    fn halves_of(regs: &[Id], r: usize) -> (Id, Id) {
        let row = r % 2 * (regs.len() / 4) + r / 4 * 2 + r % 4 / 2;
        (regs[reg(row, 0)], regs[reg(row, 1)])
    }

    pub fn fold_halves(&mut self, src: Id, weight: usize) -> Vec<Id> {
        let regs = self.tile(src);
        let Ty::Tile { dtype, layout, .. } = self.p.ty(src) else { return vec![] };
        let worth = self.konst(dtype, if dtype == DType::F32 { u64::from((weight as f32).to_bits()) } else { weight as u64 });
        let both = |l: &mut Lower, (left, right): (Id, Id)| {
            if dtype == DType::F32 {
                return l.emit(Op::Fma(left, worth, right), dtype);
            }
            let left = l.bin(BinOp::Mul, left, worth);
            l.bin(BinOp::Add, left, right)
        };
        if layout == Layout::Cols {
            // Of a row both halves get it.
            return vec![both(self, (regs[0], regs[1])); 2];
        }
        (0..regs.len() / 2).map(|r| both(self, Self::halves_of(&regs, r))).collect()
    }

    /// Likewise from a start on.
    pub fn fold_onto(&mut self, src: Id, (left_weight, right_weight): (usize, usize), start: Id) -> Vec<Id> {
        let (regs, first) = (self.tile(src), self.tile(start));
        (0..regs.len() / 2)
            .map(|r| {
                let (left, right) = Self::halves_of(&regs, r);
                let (left, right) = (self.scaled(left, left_weight), self.scaled(right, right_weight));
                let right = self.bin(BinOp::Add, right, first[r % 2]);
                self.bin(BinOp::Add, left, right)
            })
            .collect()
    }

    /// A lane keeps of each column the rows of its half.
    pub fn own_halves(&mut self, src: Id) -> Vec<Id> {
        let regs = self.tile(src);
        (0..regs.len() / 2)
            .map(|r| {
                let (left, right) = Self::halves_of(&regs, r);
                if r % 2 == 0 { left } else { right }
            })
            .collect()
    }

    /// Where a lane's rows of its head begin in memory, of `rows` folded rows.
    fn own_half(&mut self, at: Id, rows: usize) -> Id {
        let quad = self.scaled(self.g, rows);
        self.plus(at, quad)
    }

    pub fn load_halves(&mut self, buf: Buf, at: Id, (stride, heads): (usize, usize), ty: Ty) -> Vec<Id> {
        let Ty::Tile { rows, .. } = ty else { return vec![] };
        let (base, words) = (self.own_half(at, rows), (rows / 8).min(4));
        let mut head = self.t;
        if heads < 4 {
            let last = self.int(heads as i64 - 1);
            head = self.bin(BinOp::Min, head, last);
        }
        let part = self.scaled(head, stride);
        let base = self.plus(base, part);
        let mut regs = vec![0; ty.regs()];
        for e in 0..2 {
            for first in (0..rows / 8).step_by(words) {
                let a = self.offset(base, e * rows / 2 + first * 4);
                let outs: Vec<Id> = (0..words).map(|_| self.p.fresh(Ty::Scalar(DType::F32))).collect();
                self.push(Op::LoadVec { buf, at: a, words }, outs.clone());
                for (i, out) in outs.into_iter().enumerate() {
                    regs[reg(first + i, e)] = out;
                }
            }
        }
        regs
    }

    pub fn store_halves(&mut self, op: &Op) {
        let Op::StoreHalves { buf, at, stride, heads, value } = *op else { return };
        let Ty::Tile { rows, .. } = self.p.ty(value) else { return };
        let (regs, words) = (self.tile(value), (rows / 8).min(4));
        let base = self.own_half(at, rows);
        let store = self.region(|l| {
            let part = l.scaled(l.t, stride);
            let a = l.plus(base, part);
            for (e, first) in (0..2).flat_map(|e| (0..rows / 8).step_by(words).map(move |first| (e, first))) {
                let values = (first..first + words).map(|row| regs[reg(row, e)]).collect();
                let a = l.offset(a, e * rows / 2 + first * 4);
                l.push(Op::StoreVec { buf, at: a, values }, vec![]);
            }
        });
        let last = self.int(heads as i64);
        let inside = self.bin(BinOp::Lt, self.t, last);
        self.push(Op::If { cond: inside, then: store, other: vec![] }, vec![]);
    }

    /// The bytes of two neighbouring tokens are one element of the transposition: high ones of column t, low ones of t + 4.
    pub fn split_halves(&mut self, src: Id) -> Vec<Id> {
        let regs = self.tile(src);
        let moved: Vec<Id> = (0..2)
            .map(|half| {
                let bytes = self.prmt(regs[reg(0, half)], regs[reg(1, half)], 0x4051);
                self.emit(Op::MovMatrix(bytes), DType::U32)
            })
            .collect();
        [0x5410, 0x7632].map(|quad| self.prmt(moved[0], moved[1], quad)).to_vec()
    }

    pub fn swap_halves(&mut self, src: Id) -> Vec<Id> {
        let regs = self.tile(src);
        (0..regs.len()).map(|r| regs[r ^ 1]).collect()
    }

    pub fn pair_index(&mut self) -> Vec<Id> {
        let first = self.scaled(self.g, 4);
        TOKENS.map(|token| self.offset(first, token)).to_vec()
    }

    /// Columns are side by side by twos, each two twice: what rows eight apart have.
    pub fn load_alike(&mut self, buf: Buf, at: Id, ty: Ty) -> Vec<Id> {
        let Ty::Tile { dtype, rows, cols, .. } = ty else { return vec![] };
        let mut row = vec![];
        if self.beside && cols == 8 {
            let one = self.int(1);
            let (two, odd) = (self.shift(BinOp::Shr, self.t, 1), self.bin(BinOp::And, self.t, one));
            let (two, odd) = (self.scaled(two, 16), self.scaled(odd, 4));
            let part = self.bin(BinOp::Add, two, odd);
            let base = self.plus(at, part);
            for nt in 0..cols / 8 {
                let two = [0, 32].map(|e| {
                    let at = self.offset(base, 64 * nt + e);
                    self.emit(Op::Load { buf, at }, dtype)
                });
                row.extend([two, two].concat());
            }
            return row.repeat(rows / 16);
        }
        let part = self.scaled(self.t, 16);
        let base = self.plus(at, part);
        for nt in 0..cols / 8 {
            let (at, outs) = (self.offset(base, 64 * nt), [0; 4].map(|_| self.p.fresh(Ty::Scalar(dtype))));
            self.push(Op::LoadVec { buf, at, words: 4 }, outs.to_vec());
            row.extend(outs);
        }
        row.repeat(rows / 16)
    }

    /// Four tokens' values, where they are side by side in memory: one 16-byte load.
    pub fn load_pairs(&mut self, buf: Buf, at: Id, stride: usize, elem: DType) -> Vec<Id> {
        let part = self.scaled(self.g, 4 * stride);
        let a = self.plus(at, part);
        if stride == 4 && elem == DType::U32 {
            let outs = [0; 4].map(|_| self.p.fresh(Ty::Scalar(DType::U32)));
            self.push(Op::LoadVec { buf, at: a, words: 4 }, outs.to_vec());
            return TOKENS.map(|token| outs[token]).to_vec();
        }
        TOKENS
            .map(|token| {
                let at = self.offset(a, token * stride);
                self.emit(Op::Load { buf, at }, elem)
            })
            .to_vec()
    }
}
