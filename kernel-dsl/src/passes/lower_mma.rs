//! Products and sums over k become instructions of the tensor core, 16 rows by 8 columns each.

use super::lower::Lower;
use crate::dtype::DType;
use crate::ir::*;
use crate::report::Fault;

/// The instruction, elements along k that it takes, and what it sums in.
pub(crate) fn kind_of(a: DType, b: DType) -> (MmaKind, usize, DType) {
    match (a, b) {
        (DType::U8, DType::I8) => (MmaKind::U8S8, 32, DType::I32),
        (DType::U8, _) => (MmaKind::U8U8, 32, DType::I32),
        (DType::I8, DType::U8) => (MmaKind::S8U8, 32, DType::I32),
        (DType::I8, _) => (MmaKind::S8S8, 32, DType::I32),
        (DType::F16, _) => (MmaKind::F16, 16, DType::F32),
        _ => (MmaKind::Bf16, 16, DType::F32),
    }
}

impl Lower {
    pub fn mma(&mut self, a: Id, b: Id, c: Id) -> Vec<Id> {
        let (Ty::Tile { dtype: da, rows: m, cols: k, .. }, Ty::Tile { dtype: db, cols: n, .. }) = (self.p.ty(a), self.p.ty(b)) else { return vec![] };
        let (kind, per, acc) = kind_of(da, db);
        let (a, b, c, steps) = (self.tile(a), self.tile(b), self.tile(c), k / per);
        let mut regs = vec![];
        for mt in 0..m / 16 {
            for nt in 0..n / 8 {
                let at = (mt * (n / 8) + nt) * 4;
                let mut sum = c[at..at + 4].to_vec();
                for ks in 0..steps {
                    let (x, y) = ((mt * steps + ks) * 4, (nt * steps + ks) * 2);
                    sum = self.mma_regs(kind, a[x..x + 4].to_vec(), b[y..y + 2].to_vec(), sum, acc);
                }
                regs.extend(sum);
            }
        }
        regs
    }

    /// Sums of lower steps of k are raised to those of higher ones.
    pub fn mma_raised(&mut self, a: Id, b: Id, by: &[u8; 8], ty: Ty) -> Vec<Id> {
        let (Ty::Tile { cols: k, .. }, Ty::Tile { rows: m, cols: n, .. }) = (self.p.ty(a), ty) else { return vec![] };
        let (a, b, steps, zero) = (self.tile(a), self.tile(b), k / 32, self.int(0));
        // A word holds one dim of four blocks.
        let height = |step: usize| by[2 * step / (steps / 4)];
        // The lowest first.
        let mut order: Vec<usize> = (0..steps).collect();
        order.sort_by_key(|s| height(*s));
        if (0..steps).any(|s| height(s) != by[(2 * s + 1) / (steps / 4)]) {
            self.fail(Fault::StageOp { op: format!("mma_raised by {by:?}"), stage: "thread" });
            return vec![zero; ty.regs()];
        }
        let mut regs = vec![];
        for (mt, nt) in (0..m / 16).flat_map(|mt| (0..n / 8).map(move |nt| (mt, nt))) {
            // A chain for each height, the lowest first: they wait for one another only where they are added.
            let mut total: Option<(Vec<Id>, u8)> = None;
            for chain in order.chunk_by(|a, b| height(*a) == height(*b)) {
                let mut sum = vec![zero; 4];
                for &ks in chain {
                    let (x, y) = ((mt * steps + ks) * 4, (nt * steps + ks) * 2);
                    sum = self.mma_regs(MmaKind::U8S8, a[x..x + 4].to_vec(), b[y..y + 2].to_vec(), sum, DType::I32);
                }
                let own = height(chain[0]);
                if let Some((before, below)) = total {
                    sum = before
                        .into_iter()
                        .zip(sum)
                        .map(|(low, own_sum)| {
                            let raised = self.scaled(low, 1 << (own - below));
                            self.bin(BinOp::Add, raised, own_sum)
                        })
                        .collect();
                }
                total = Some((sum, own));
            }
            let sum = total.map_or_else(Vec::new, |(sum, _)| sum);
            regs.extend(sum);
        }
        regs
    }

    /// Row g (rows / 8) + r of lane (g, t): constants where a lane has whole eights.
    pub fn raise(&mut self, by: &[u8; 8], regs: usize) -> Vec<Id> {
        if regs % 8 != 0 {
            self.fail(Fault::StageOp { op: format!("raise of {} rows", 8 * regs), stage: "thread" });
        }
        (0..regs).map(|r| self.int(1 << by[r % 8])).collect()
    }

    pub fn mma_regs(&mut self, kind: MmaKind, a: Vec<Id>, b: Vec<Id>, c: Vec<Id>, acc: DType) -> Vec<Id> {
        let outs: Vec<Id> = (0..4).map(|_| self.p.fresh(Ty::Scalar(acc))).collect();
        self.push(Op::MmaRegs { kind, a, b, c }, outs.clone());
        outs
    }

    /// The tensor core adds up k faster than shuffles do.
    pub fn sum_k(&mut self, b: Id) -> Vec<Id> {
        let Ty::Tile { rows: k, cols: n, .. } = self.p.ty(b) else { return vec![] };
        let (b, steps) = (self.tile(b), k / 32);
        let (ones, zero) = (self.konst(DType::U32, 0x0101_0101), self.int(0));
        let mut regs = vec![];
        for nt in 0..n / 8 {
            let mut sum = vec![zero; 4];
            for ks in 0..steps {
                let y = (nt * steps + ks) * 2;
                sum = self.mma_regs(MmaKind::U8U8, vec![ones; 4], b[y..y + 2].to_vec(), sum, DType::I32);
            }
            regs.extend(&sum[..2]);
        }
        regs
    }

    /// A register full of `v`: operands hold several elements in one.
    pub(super) fn repeated(&mut self, v: Id, ty: Ty) -> Id {
        if ty.reg_dtype() == ty.dtype() {
            return v;
        }
        match (self.known(v), 8 * ty.dtype().size()) {
            (Some(0), _) => self.konst(DType::U32, 0),
            (Some(bits), 8) => self.konst(DType::U32, (bits & 0xff) * 0x0101_0101),
            (Some(bits), _) => self.konst(DType::U32, (bits & 0xffff) * 0x0001_0001),
            _ => {
                self.fail(Fault::StageOp { op: "an operand full of a variable".into(), stage: "thread" });
                v
            }
        }
    }
}
