//! Which token of a page has which number becomes operand registers: four bytes are compared at once.

use super::lower::Lower;
use crate::dtype::DType;
use crate::ir::*;

/// A byte four times.
const FOUR: u64 = 0x0101_0101;

impl Lower {
    /// Registers of the left operand, see [`crate::tile::Page::marks`].
    pub fn marks(&mut self, buf: Buf, at: Id, of_keys: bool) -> Vec<Id> {
        if of_keys { self.key_marks(buf, at) } else { self.value_marks(buf, at) }
    }

    /// 128 in each byte that is 0; bytes are below 32.
    fn zeros(&mut self, x: Id) -> Id {
        let (most, top) = (self.konst(DType::U32, 0x7f * FOUR), self.konst(DType::U32, 0x80 * FOUR));
        let sum = self.bin(BinOp::Add, x, most);
        let other = self.bin(BinOp::Xor, sum, top);
        self.bin(BinOp::And, other, top)
    }

    fn numbers(&mut self, word: Id) -> Id {
        let mask = self.konst(DType::U32, 31 * FOUR);
        self.bin(BinOp::And, word, mask)
    }

    /// A lane's quad row or quad lane, times `worth`, in each byte.
    fn own(&mut self, part: Id, worth: usize) -> Id {
        let part = self.emit(Op::Cast(part), DType::U32);
        self.scaled(part, worth * FOUR as usize)
    }

    /// Lane (g, t): tokens 8t..8t+7 in two fours, numbers 4g..4g+3.
    fn value_marks(&mut self, buf: Buf, at: Id) -> Vec<Id> {
        let part = self.scaled(self.t, 8);
        let mine = self.plus(at, part);
        let own = self.own(self.g, 4);
        let mut regs = vec![0; 8];
        for (u, word) in self.run(buf, mine, 8).into_iter().enumerate() {
            let word = self.numbers(word);
            let word = self.bin(BinOp::Xor, word, own);
            for number in 0..4 {
                let by = self.konst(DType::U32, number as u64 * FOUR);
                let x = self.bin(BinOp::Xor, word, by);
                regs[number / 2 * 4 + number % 2 + 2 * u] = self.zeros(x);
            }
        }
        regs
    }

    /// Lane (g, t): tokens 4g..4g+3, numbers 8t..8t+7 in two fours.
    fn key_marks(&mut self, buf: Buf, at: Id) -> Vec<Id> {
        let part = self.scaled(self.g, 4);
        let mine = self.plus(at, part);
        let word = self.run(buf, mine, 4)[0];
        let word = self.numbers(word);
        let own = self.own(self.t, 8);
        let mut regs = vec![0; 8];
        for token in 0..4 {
            let number = self.prmt(word, word, 0x1111 * token as u32);
            let number = self.bin(BinOp::Xor, number, own);
            for n in 0..2 {
                let by = self.konst(DType::U32, 0x0302_0100 + 4 * n as u64 * FOUR);
                let x = self.bin(BinOp::Xor, number, by);
                regs[token / 2 * 4 + n * 2 + token % 2] = self.zeros(x);
            }
        }
        regs
    }

    /// Lane (g, t): tokens 4g..4g+3, columns 4t..4t+3 in two twos.
    pub fn key_lengths(&mut self, buf: Buf, at: Id, pairs: Id) -> Vec<Id> {
        let (part, of_pairs) = (self.scaled(self.g, 4), self.scaled(self.g, 16));
        let (mine, pairs) = (self.plus(at, part), self.plus(pairs, of_pairs));
        let numbers = self.run(buf, mine, 4)[0];
        let t = self.emit(Op::Cast(self.t), DType::U32);
        let own = self.scaled(t, 2);
        let [zero, one, upper] = [0, 1, 0xffff_0000].map(|x| self.konst(DType::U32, x));
        let mut regs = vec![0; 8];
        for (token, pair) in self.run(buf, pairs, 16).into_iter().enumerate() {
            let number = self.shift(BinOp::Shr, numbers, 8 * token);
            let bit = self.bin(BinOp::And, number, one);
            let (low, high, odd) = (self.shift(BinOp::Shr, pair, 16), self.bin(BinOp::And, pair, upper), self.bin(BinOp::Ne, bit, zero));
            let length = self.emit(Op::Select(odd, high, low), DType::U32);
            let (two, seven) = (self.shift(BinOp::Shr, number, 1), self.konst(DType::U32, 7));
            let two = self.bin(BinOp::And, two, seven);
            for n in 0..2 {
                let by = self.konst(DType::U32, n as u64);
                let column = self.bin(BinOp::Add, own, by);
                let here = self.bin(BinOp::Eq, two, column);
                regs[token / 2 * 4 + n * 2 + token % 2] = self.emit(Op::Select(here, length, zero), DType::U32);
            }
        }
        regs
    }
}
