//! Variables, branches and loops. What is known while building is decided here, the rest becomes IR.

use super::{B, V};
use crate::dtype::DType;
use crate::ir::*;
use crate::report::Fault;

impl B {
    /// `let mut x = v`
    pub fn var(&self, v: V) -> V {
        match self.get(&v) {
            V::Array(items) => V::Array(items.into_iter().map(|x| self.var(x)).collect()),
            V::Tuple(items) => V::Tuple(items.into_iter().map(|x| self.var(x)).collect()),
            V::Struct(fields) => self.each_field(&fields, |x| self.var(x.clone())),
            V::S(id) => {
                let ty = self.ty(id);
                match self.emit(Op::VarNew(id), ty) {
                    V::S(var) => V::Var(var),
                    v => v,
                }
            }
            V::Bool(x) => self.var(V::S(self.id_of(&V::Bool(x), DType::Bool))),
            V::Int(_) | V::Float(_) => self.fail(Fault::Untyped),
            // Buffers and rings are not copied: `mut` only says that they are written.
            v => v,
        }
    }

    /// The present value of a path.
    pub fn get(&self, v: &V) -> V {
        match v {
            V::Var(id) => self.emit(Op::VarGet(*id), self.ty(*id)),
            V::Array(items) => V::Array(items.iter().map(|x| self.get(x)).collect()),
            V::Tuple(items) => V::Tuple(items.iter().map(|x| self.get(x)).collect()),
            V::Struct(fields) => self.each_field(fields, |x| self.get(x)),
            v => v.clone(),
        }
    }

    pub fn assign(&self, place: &V, v: V) -> V {
        match (place, self.get(&v)) {
            (V::Var(_), _) if self.by_element.get() => return self.fail(Fault::ImpureSelect),
            (V::Var(id), v) => {
                let ty = self.ty(*id);
                let value = self.id_of(&v, ty.dtype());
                if self.ty(value) != ty {
                    let (op, left, right) = ("=".into(), self.describe(ty), self.describe(self.ty(value)));
                    let same = ty.dtype() == self.ty(value).dtype();
                    return self.fail(match ty {
                        Ty::Scalar(_) if same => Fault::ElementInScalar,
                        _ if same => Fault::Shapes { op, left, right },
                        _ => Fault::Types { op, left, right },
                    });
                }
                self.push(Op::VarSet(*id, value), vec![]);
            }
            // What an `if` gives is a list, whether its branches write an array or a tuple.
            (V::Array(a) | V::Tuple(a), V::Array(c) | V::Tuple(c)) if a.len() == c.len() => {
                for (p, v) in a.iter().zip(c) {
                    self.assign(p, v);
                }
            }
            (V::Struct(a), c @ V::Struct(_)) => drop(self.joined_fields(a, &c, |p, v| self.assign(p, v.clone()))),
            (V::Poison, _) | (_, V::Poison) | (V::Unit, _) => {}
            _ => return self.fail(Fault::NotMutable),
        }
        V::Unit
    }

    /// The element of a local array: its index is known while building.
    pub fn element(&self, base: &V, index: V) -> V {
        let i = match self.get(&index) {
            V::Int(i) => i,
            V::Poison => return V::Poison,
            _ => return self.fail(Fault::DeviceIndex),
        };
        match base {
            V::Array(items) | V::Tuple(items) => match items.get(i as usize) {
                Some(v) => v.clone(),
                None => self.fail(Fault::IndexOutside { index: i, len: items.len() }),
            },
            V::Poison => V::Poison,
            _ => self.fail(Fault::NoMethod { name: "[]".into(), on: "this value".into() }),
        }
    }

    pub fn if_else(&self, cond: V, then: &dyn Fn() -> V, other: &dyn Fn() -> V) -> V {
        let c = match self.get(&cond) {
            V::Bool(true) => return then(),
            V::Bool(false) => return other(),
            v => match self.id(&v) {
                Some(c) => c,
                None => return V::Poison,
            },
        };
        let outer = self.by_element.replace(self.by_element.get() || matches!(self.ty(c), Ty::Tile { .. }));
        let (ts, tv) = self.region(|| {
            let v = then();
            self.get(&v)
        });
        let (os, ov) = self.region(|| {
            let v = other();
            self.get(&v)
        });
        self.by_element.set(outer);
        let pure = ts.iter().chain(&os).all(|s| is_pure(&s.op));
        if pure && !matches!(tv, V::Unit) {
            self.append(ts);
            self.append(os);
            return self.select(c, &tv, &ov);
        }
        if matches!(self.ty(c), Ty::Tile { .. }) {
            return self.fail(Fault::ImpureSelect);
        }
        // Variables carry the result out of the branches.
        let out = self.placeholder(&tv, &ov);
        let (mut ts, mut os) = (ts, os);
        ts.extend(self.region(|| self.assign(&out, tv)).0);
        os.extend(self.region(|| self.assign(&out, ov)).0);
        self.push(Op::If { cond: c, then: ts, other: os }, vec![]);
        self.get(&out)
    }

    fn placeholder(&self, a: &V, c: &V) -> V {
        match (a, c) {
            (V::Array(x), V::Array(y)) | (V::Tuple(x), V::Tuple(y)) if x.len() == y.len() => V::Array(x.iter().zip(y).map(|(x, y)| self.placeholder(x, y)).collect()),
            (V::Struct(x), V::Struct(_)) => self.joined_fields(x, c, |x, y| self.placeholder(x, y)),
            (V::S(i), _) | (_, V::S(i)) => match self.ty(*i) {
                Ty::Scalar(d) => self.var(self.constant(d, 0)),
                t => {
                    let zero = self.id_of(&V::Int(0), t.dtype());
                    self.var(self.emit(Op::Full(zero), t))
                }
            },
            (V::Bool(_), _) => self.var(self.constant(DType::Bool, 0)),
            (V::Unit, V::Unit) => V::Unit,
            (V::Poison, _) | (_, V::Poison) => V::Poison,
            _ => self.fail(Fault::UnevenBranches),
        }
    }

    /// `for i in lo..hi`: unrolled when both ends are known, a loop on the device otherwise.
    pub fn for_range(&self, lo: V, hi: V, body: &dyn Fn(V)) {
        if let (V::Int(lo), V::Int(hi)) = (self.get(&lo), self.get(&hi)) {
            for i in lo..hi {
                body(V::Int(i));
            }
            return;
        }
        self.for_stream(lo, hi, V::Int(1), V::Int(0), body);
    }

    /// `for i in stream(lo, hi, step, stages)`
    pub fn for_pipelined(&self, lo: V, hi: V, step: V, stages: V, body: &dyn Fn(V)) {
        let n = stages.size(self, "the number of stages");
        if !(2..=8).contains(&n) {
            self.fail(Fault::Stages { stages: n });
        }
        self.for_stream(lo, hi, step, stages, body);
    }

    /// `strided` is a stream of no stages.
    pub fn for_stream(&self, lo: V, hi: V, step: V, stages: V, body: &dyn Fn(V)) {
        let stages = stages.size(self, "the number of stages");
        let (lo, hi, step) = (self.bound(&lo), self.bound(&hi), self.bound(&step));
        let var = self.program.borrow_mut().fresh(Ty::Scalar(DType::I32));
        let (stmts, ()) = self.region(|| body(V::S(var)));
        self.push(Op::For { var, lo, hi, step, stages, body: stmts }, vec![]);
    }

    pub fn for_parallel(&self, par: Par, count: V, body: &dyn Fn(V)) {
        let (flag, nested) = match par {
            Par::Warps => (&self.in_warps, self.in_warps.get() || self.in_threads.get()),
            Par::Threads | Par::Warpwise => (&self.in_threads, self.in_warps.get() || self.in_threads.get()),
            Par::Lanes => (&self.in_threads, self.in_threads.get() || !self.in_warps.get()),
        };
        if nested {
            self.fail(Fault::NestedParallel);
        }
        flag.set(true);
        let count = self.bound(&count);
        let var = self.program.borrow_mut().fresh(Ty::Scalar(DType::I32));
        let (stmts, ()) = self.region(|| body(V::S(var)));
        flag.set(false);
        self.push(Op::ParFor { par, var, count, body: stmts }, vec![]);
    }

    /// A loop's bound: one number for all elements.
    fn bound(&self, v: &V) -> Id {
        let id = self.id_of(v, DType::I32);
        if matches!(self.ty(id), Ty::Tile { .. }) {
            self.fail(Fault::ElementBound);
        }
        id
    }

    pub fn block_id(&self, axis: V) -> V {
        let axis = axis.size(self, "the axis of block_id");
        self.emit(Op::BlockId(axis), Ty::Scalar(DType::I32))
    }
}

/// True if evaluating the operation where it is not needed changes nothing.
fn is_pure(op: &Op) -> bool {
    matches!(
        op,
        Op::Const(_)
            | Op::BlockId(_)
            | Op::Funnel(..)
            | Op::Pick(..)
            | Op::AddDot4(..)
            | Op::Un(..)
            | Op::Bin(..)
            | Op::Fma(..)
            | Op::Select(..)
            | Op::Cast(_)
            | Op::Bitcast(_)
            | Op::VarGet(_)
            | Op::Full(_)
            | Op::RowIndex
            | Op::Raise(_)
            | Op::PairIndex
    )
}
