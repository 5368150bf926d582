//! A kernel that counts: the same thread IR, and beside every access to one of its buffers a sum of bytes in registers. At its
//! end a warp adds its sums to two numbers in memory. What a kernel really moved is then known from itself, and the kernel that
//! does not count has not one instruction more.

use crate::dtype::DType;
use crate::ir::*;

/// The argument that is added at the end: i64 `[2]`, bytes read and bytes written; whoever launches sets them to 0.
pub const ARGUMENT: &str = "counted";

/// Thread IR that counts the bytes it moves of the buffer of that name; a copy into a ring counts once a warp.
pub fn run(src: &Program, buffer: &str) -> Program {
    let mut p = src.clone();
    let named = |x: &Param| matches!(x, Param::Buffer { name, .. } if name == buffer);
    let watched = p.params.iter().position(named);
    let [lane, first, zero, word] = [DType::I32, DType::Bool, DType::I64, DType::I64].map(|d| p.fresh(Ty::Scalar(d)));
    let none = p.fresh(Ty::Scalar(DType::I32));
    let sums = [p.fresh(Ty::Scalar(DType::I64)), p.fresh(Ty::Scalar(DType::I64))];
    let mut counter = Counter { watched, first, zero, sums, p };
    let body = std::mem::take(&mut counter.p.body);
    let body = counter.region(body);
    let mut all = vec![made(Op::LaneId, lane), made(Op::Const(0), none), made(Op::Bin(BinOp::Eq, lane, none), first), made(Op::Const(0), zero), made(Op::Const(8), word), made(Op::VarNew(zero), sums[0]), made(Op::VarNew(zero), sums[1])];
    all.extend(body);
    let totals = sums.map(|sum| counter.of_warp(sum, &mut all));
    let buf = Buf::Param(counter.p.params.len());
    let add = |(at, value)| Stmt { op: Op::AtomicAdd { buf, at, value }, outs: vec![], span: NOWHERE };
    let then = [zero, word].into_iter().zip(totals).map(add).collect();
    all.push(Stmt { op: Op::If { cond: first, then, other: vec![] }, outs: vec![], span: NOWHERE });
    let mut p = counter.p;
    p.body = all;
    p.params.push(Param::Buffer { name: ARGUMENT.into(), dtype: DType::I64, writable: true });
    p.name += "_counted";
    p
}

const NOWHERE: Span = Span { file: "", line: 0 };

fn made(op: Op, out: Id) -> Stmt {
    Stmt { op, outs: vec![out], span: NOWHERE }
}

/// How many bytes an access moves.
enum Bytes {
    Known(usize),
    /// What a value says.
    Of(Id),
}

struct Counter {
    /// index of the parameter
    watched: Option<usize>,
    /// this lane is its warp's first
    first: Id,
    zero: Id,
    /// variables of a lane: bytes read, bytes written
    sums: [Id; 2],
    p: Program,
}

impl Counter {
    fn region(&mut self, stmts: Vec<Stmt>) -> Vec<Stmt> {
        let mut out = Vec::with_capacity(stmts.len());
        for mut s in stmts {
            match &mut s.op {
                Op::If { then, other, .. } => {
                    *then = self.region(std::mem::take(then));
                    *other = self.region(std::mem::take(other));
                }
                Op::For { body, .. } => *body = self.region(std::mem::take(body)),
                _ => {}
            }
            let moved = self.moved(&s);
            out.push(s);
            if let Some((sum, bytes, once)) = moved {
                self.add(sum, bytes, once, &mut out);
            }
        }
        out
    }

    /// Which sum grows by how many bytes; for what a whole warp does together, the condition under which it does it.
    fn moved(&self, s: &Stmt) -> Option<(Id, Bytes, Option<Id>)> {
        let [read, written] = self.sums;
        let ours = |buf: &Buf| matches!(buf, Buf::Param(i) if Some(*i) == self.watched);
        let size = |id: Id| self.p.ty(id).dtype().size();
        match &s.op {
            Op::Load { buf, .. } if ours(buf) => Some((read, Bytes::Known(size(s.outs[0])), None)),
            Op::LoadVec { buf, words, .. } if ours(buf) => Some((read, Bytes::Known(4 * words), None)),
            Op::Bring { src, .. } if Some(*src) == self.watched => Some((read, Bytes::Known(16), None)),
            Op::Store { buf, value, .. } if ours(buf) => Some((written, Bytes::Known(size(*value)), None)),
            Op::StoreVec { buf, values, .. } if ours(buf) => Some((written, Bytes::Known(values.iter().map(|v| size(*v)).sum()), None)),
            Op::RingFetch { src, bytes, cond, .. } if Some(*src) == self.watched => Some((read, Bytes::Of(*bytes), Some(*cond))),
            _ => None,
        }
    }

    fn fresh(&mut self, op: Op, dtype: DType, out: &mut Vec<Stmt>) -> Id {
        let id = self.p.fresh(Ty::Scalar(dtype));
        out.push(made(op, id));
        id
    }

    fn add(&mut self, sum: Id, bytes: Bytes, once: Option<Id>, out: &mut Vec<Stmt>) {
        let mut bytes = match bytes {
            Bytes::Known(n) => self.fresh(Op::Const(n as u64), DType::I64, out),
            Bytes::Of(id) => self.fresh(Op::Cast(id), DType::I64, out),
        };
        if let Some(cond) = once {
            let counts = self.fresh(Op::Bin(BinOp::And, cond, self.first), DType::Bool, out);
            bytes = self.fresh(Op::Select(counts, bytes, self.zero), DType::I64, out);
        }
        let before = self.fresh(Op::VarGet(sum), DType::I64, out);
        let after = self.fresh(Op::Bin(BinOp::Add, before, bytes), DType::I64, out);
        out.push(Stmt { op: Op::VarSet(sum, after), outs: vec![], span: NOWHERE });
    }

    /// The sum over a warp's lanes.
    fn of_warp(&mut self, sum: Id, out: &mut Vec<Stmt>) -> Id {
        let mut total = self.fresh(Op::VarGet(sum), DType::I64, out);
        for by in [16, 8, 4, 2, 1] {
            let other = self.fresh(Op::ShflXor(total, by), DType::I64, out);
            total = self.fresh(Op::Bin(BinOp::Add, total, other), DType::I64, out);
        }
        total
    }
}
