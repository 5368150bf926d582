//! Transposed keys whose decoder gives two dims of two blocks in each word, and the right operand that meets them: look-ups of bytes by
//! nibbles yield that, and another order of k costs the query alone.

use super::lower::Lower;
use crate::dtype::DType;
use crate::ir::*;
use crate::report::Fault;

impl Lower {
    /// As `key_quads`, two dims of two blocks in each word.
    pub(super) fn key_twos(&mut self, buf: Buf, at: Id, k: Packing, func: usize) -> Vec<Id> {
        let own = k.blocks() / 4;
        // A zero of which the compiler knows nothing: what is made with it stays in a register, where a constant would be copied anew for
        // each instruction that takes it.
        let zero = self.konst(DType::U32, 0);
        let zero = self.emit(Op::ShflXor(zero, 1), DType::U32);
        let codes: Vec<Vec<Id>> = self.quad_codes(buf, at, k).into_iter().map(|code| [&code[..7], &[if k.bits > 56 { code[7] } else { zero }]].concat()).collect();
        let words: Vec<Vec<Id>> = codes.into_iter().map(|code| self.call(func, code, 8)).collect();
        if own < 2 {
            self.fail(Fault::StageOp { op: format!("keys of {} dims by twos", k.d), stage: "thread" });
            return vec![0; 8 * own];
        }
        let mut regs = vec![0; 8 * own];
        for i in 0..4 {
            let row: Vec<Id> = if own == 2 { (0..4).map(|n| words[i / 2][2 * n + i % 2]).collect() } else { (0..2 * own).map(|n| words[i * own / 4 + n % (own / 4)][n / (own / 4)]).collect() };
            for (n, word) in row.into_iter().enumerate() {
                regs[(i / 2 * own + n / 2) * 4 + n % 2 * 2 + i % 2] = word;
            }
        }
        regs
    }

    /// A lane's run of k, [blocks][8 dims], as `key_twos` has it.
    pub fn twos_order(&mut self, src: Id) -> Vec<Id> {
        let Ty::Tile { rows: k, .. } = self.p.ty(src) else { return vec![] };
        let own = k / 32;
        let mut regs = vec![];
        for run in self.tile(src).chunks(2 * own) {
            for n in 0..2 * own {
                // Word `word` of the `quad`-th four blocks.
                let (quad, word) = if own < 4 { (0, 2 * n) } else { (n % (own / 4), n / (own / 4)) };
                let (block, dims) = (4 * quad + word % 2 * 2, word / 2);
                let [a, b] = [0, 1].map(|i| run[((block + i) * 2 + dims / 2).min(2 * own - 1)]);
                regs.push(self.prmt(a, b, if dims % 2 == 0 { 0x5410 } else { 0x7632 }));
            }
        }
        regs
    }
}
