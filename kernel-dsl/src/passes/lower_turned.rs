//! Results of products become operands of the next one: across lanes by `movmatrix`, bytes within words by permutation.

use super::lower::Lower;
use crate::dtype::DType;
use crate::ir::*;

impl Lower {
    /// Rows 4g+i of lane (g, t) move to k elements 8t+i and 8t+4+i: one `movmatrix` for each i.
    fn transposed(&mut self, src: Id, narrow: bool) -> Vec<[Id; 4]> {
        let Ty::Tile { cols, .. } = self.p.ty(src) else { return vec![] };
        let (regs, tiles) = (self.tile(src), cols / 8);
        (0..tiles)
            .map(|nt| {
                let mut moved = [0; 4];
                for (i, m) in moved.iter_mut().enumerate() {
                    let at = (i / 2 * tiles + nt) * 4 + i % 2 * 2;
                    let mut pair = [regs[at], regs[at + 1]];
                    if narrow {
                        pair = pair.map(|x| self.emit(Op::Cast(x), DType::Bf16));
                    }
                    let packed = self.prmt(pair[0], pair[1], 0x5410);
                    *m = self.emit(Op::MovMatrix(packed), DType::U32);
                }
                moved
            })
            .collect()
    }

    pub(super) fn split_bytes(&mut self, src: Id, outs: &[Id]) {
        let (mut low, mut high) = (vec![], vec![]);
        for m in self.transposed(src, false) {
            let t = self.transpose_bytes(m);
            low.extend([t[0], t[2]]);
            high.extend([t[1], t[3]]);
        }
        self.set(outs[0], low);
        self.set(outs[1], high);
    }

    pub(super) fn to_operand(&mut self, src: Id) -> Vec<Id> {
        let mut regs = vec![];
        for m in self.transposed(src, true) {
            for sel in [0x5410, 0x7632] {
                regs.push(self.prmt(m[0], m[1], sel));
                regs.push(self.prmt(m[2], m[3], sel));
            }
        }
        regs
    }

    /// Bytes of four words, transposed: word j of the result holds byte j of each.
    pub fn transpose_bytes(&mut self, w: [Id; 4]) -> [Id; 4] {
        let (a, c) = (self.prmt(w[0], w[1], 0x5140), self.prmt(w[2], w[3], 0x5140));
        let (b, d) = (self.prmt(w[0], w[1], 0x7362), self.prmt(w[2], w[3], 0x7362));
        [self.prmt(a, c, 0x5410), self.prmt(a, c, 0x7632), self.prmt(b, d, 0x5410), self.prmt(b, d, 0x7632)]
    }
}
