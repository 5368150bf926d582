//! What lowering writes with: operations and constants, the numbers of a thread, registers of tiles.

use super::lower::Lower;
use crate::dtype::DType;
use crate::ir::*;
use crate::report::{Fault, Report};

impl Lower {
    pub fn push(&mut self, op: Op, outs: Vec<Id>) {
        let span = self.span;
        if let Some(r) = self.out.last_mut() {
            r.push(Stmt { op, outs, span });
        }
    }

    pub fn emit(&mut self, op: Op, dtype: DType) -> Id {
        let id = self.p.fresh(Ty::Scalar(dtype));
        self.push(op, vec![id]);
        id
    }

    /// Numbers of the thread that follow from its lane's.
    pub fn quad_numbers(&mut self) {
        self.g = self.shift(BinOp::Shr, self.lane, 2);
        let three = self.int(3);
        self.t = self.emit(Op::Bin(BinOp::And, self.lane, three), DType::I32);
    }

    /// All of them read anew, up to the end of the region.
    pub fn anew(&mut self) {
        self.anew = true;
        self.thread = self.emit(Op::ThreadAnew, DType::I32);
        let lanes = self.int(31);
        self.lane = self.emit(Op::Bin(BinOp::And, self.thread, lanes), DType::I32);
        self.quad_numbers();
        // The warp's number too, in the place of the one of a region around this one.
        if let Some((Par::Warps, var)) = self.turn.filter(|_| self.out.len() > self.around) {
            let five = self.int(5);
            self.push(Op::Bin(BinOp::Shr, self.thread, five), vec![var]);
        }
    }

    pub fn konst(&mut self, dtype: DType, bits: u64) -> Id {
        self.emit(Op::Const(bits), dtype)
    }

    pub fn int(&mut self, n: i64) -> Id {
        self.konst(DType::I32, n as i32 as u32 as u64)
    }

    pub fn shift(&mut self, op: BinOp, a: Id, n: usize) -> Id {
        let d = self.p.ty(a).dtype();
        let n = self.konst(d, n as u64);
        self.emit(Op::Bin(op, a, n), d)
    }

    pub fn bin(&mut self, op: BinOp, a: Id, c: Id) -> Id {
        let d = if op.is_compare() { DType::Bool } else { self.p.ty(a).dtype() };
        self.emit(Op::Bin(op, a, c), d)
    }

    /// The value of a constant of an enclosing region.
    pub fn known(&self, id: Id) -> Option<u64> {
        self.out.iter().flatten().find_map(|s| match s.op {
            Op::Const(bits) if s.outs == [id] => Some(bits),
            _ => None,
        })
    }

    /// a * n in the type of `a`; nothing for n = 1.
    pub fn scaled(&mut self, a: Id, n: usize) -> Id {
        if n == 1 {
            return a;
        }
        let d = self.p.ty(a).dtype();
        let n = self.konst(d, n as u64);
        self.emit(Op::Bin(BinOp::Mul, a, n), d)
    }

    /// at + n, bytes.
    pub fn offset(&mut self, at: Id, n: usize) -> Id {
        if n == 0 {
            return at;
        }
        let d = self.p.ty(at).dtype();
        let n = self.konst(d, n as u64);
        self.emit(Op::Bin(BinOp::Add, at, n), d)
    }

    /// at + lane_part, the i32 lane part widened to the type of `at`.
    pub fn plus(&mut self, at: Id, part: Id) -> Id {
        let d = self.p.ty(at).dtype();
        let part = if self.p.ty(part).dtype() == d { part } else { self.emit(Op::Cast(part), d) };
        self.emit(Op::Bin(BinOp::Add, at, part), d)
    }

    pub fn prmt(&mut self, a: Id, b: Id, sel: u32) -> Id {
        self.emit(Op::Prmt(a, b, sel), DType::U32)
    }

    pub fn fail(&mut self, what: Fault) {
        if self.fault.is_none() {
            self.fault = Some(Report { what, span: Some(self.span) });
        }
    }

    pub fn set(&mut self, id: Id, regs: Vec<Id>) {
        self.regs[id as usize] = regs;
    }

    pub fn tile(&self, id: Id) -> Vec<Id> {
        self.regs.get(id as usize).cloned().unwrap_or_default()
    }

    /// Whether a value is a tile that lies in registers.
    pub fn lies(&self, id: Id) -> bool {
        self.regs.get(id as usize).is_some_and(|regs| !regs.is_empty())
    }

    pub fn region(&mut self, f: impl FnOnce(&mut Lower)) -> Vec<Stmt> {
        let (span, numbers) = (self.span, (self.thread, self.lane, self.g, self.t, self.anew));
        self.out.push(vec![]);
        f(self);
        self.span = span;
        (self.thread, self.lane, self.g, self.t, self.anew) = numbers;
        self.out.pop().unwrap_or_default()
    }
}
