//! Tile IR: a block's warps one after another, each warp's tiles as whole matrices.
//!
//! Iterations of a parallel loop come in a shuffled order; one that meets another's writes stops the run.

use super::element::Element;
use super::matrix::{self, Shape};
use super::memory::Region;
use super::tile_memory::Queue;
use super::trap::{Trap, Wrong};
use super::turns::Turns;
use super::{Stage, scalar};
use crate::dtype::DType;
use crate::ir::*;
use std::collections::HashMap;
use std::rc::Rc;

/// A scalar's bits or a tile's elements, row-major.
#[derive(Clone)]
pub(super) enum Value {
    Scalar(u64),
    Tile(Rc<[u64]>),
}

pub struct Machine<'a> {
    pub(super) p: &'a Program,
    scalars: Vec<(Id, u64)>,
    block: [u32; 3],
    pub(super) values: Vec<Option<Value>>,
    /// The parallel iteration in which a variable was declared.
    homes: Vec<u32>,
    pub(super) shared: Vec<Region>,
    /// [ring, warp]
    pub(super) rings: Vec<Vec<Queue>>,
    /// Tiles put by: (own, warp, place).
    pub(super) by: HashMap<(usize, usize, i64), Rc<[u64]>>,
    /// What turns keep: (kept, turn, k).
    pub(super) kept: HashMap<(usize, i64, usize), Value>,
    pub(super) warp: usize,
    pub(super) turns: Turns,
    random: u64,
}

impl Stage for Machine<'_> {
    fn block(&mut self, block: [u32; 3], buffers: &mut [Region]) -> Result<(), Trap> {
        let p = self.p;
        self.block = block;
        self.values = vec![None; p.types.len()];
        for (id, bits) in &self.scalars {
            self.values[*id as usize] = Some(Value::Scalar(*bits));
        }
        self.shared = p.shared.iter().enumerate().map(|(i, a)| Region::poisoned(format!("shared array {i}"), a.len * a.dtype.size())).collect();
        self.rings = p.rings.iter().map(|_| vec![Queue::default(); p.warps]).collect();
        self.by.clear();
        self.kept.clear();
        self.region(&p.body, buffers)?;
        for (ring, queues) in self.rings.iter().enumerate() {
            let copies: usize = queues.iter().map(|q| q.left()).sum();
            if copies > 0 {
                return Err(self.trap(Wrong::RingLeft { ring, copies }, Span { file: "", line: 0 }));
            }
        }
        Ok(())
    }
}

impl<'a> Machine<'a> {
    pub fn new(p: &'a Program, scalars: Vec<(Id, u64)>, seed: u64) -> Machine<'a> {
        Machine { p, scalars, block: [0; 3], values: vec![], homes: vec![0; p.types.len()], shared: vec![], rings: vec![], by: HashMap::new(), kept: HashMap::new(), warp: 0, turns: Turns::new(p.params.len() + p.shared.len()), random: seed }
    }

    fn trap(&self, what: Wrong, span: Span) -> Trap {
        Trap { what, span, block: self.block }
    }

    fn region(&mut self, stmts: &[Stmt], buffers: &mut [Region]) -> Result<(), Trap> {
        for s in stmts {
            let scalar = |m: &Self, id: Id| m.scalar(id).map_err(|w| m.trap(w, s.span));
            let number = |m: &Self, id: Id| scalar(m, id).map(|bits| scalar::int(DType::I32, bits));
            match &s.op {
                Op::If { cond, then, other } => {
                    let taken = if scalar(self, *cond)? & 1 != 0 { then } else { other };
                    self.region(taken, buffers)?;
                }
                Op::For { var, lo, hi, step, body, .. } => {
                    let (mut at, hi, step) = (number(self, *lo)?, number(self, *hi)?, number(self, *step)?);
                    if step <= 0 {
                        return Err(self.trap(Wrong::Step { step }, s.span));
                    }
                    while at < hi {
                        self.put(*var, at as u32 as u64);
                        self.region(body, buffers)?;
                        at += step;
                    }
                }
                Op::ParFor { par, var, count, body } => {
                    let count = number(self, *count)?;
                    if *par == Par::Warps && count > self.p.warps as i64 {
                        return Err(self.trap(Wrong::TooManyWarps { count, warps: self.p.warps }, s.span));
                    }
                    self.parallel(*par, *var, count, body, buffers)?;
                }
                Op::Unpack { buf, at, packing, func } => {
                    let codes = self.bytes(buf, *at, packing.all_bytes(), buffers).map_err(|w| self.trap(w, s.span))?;
                    let tile = matrix::unpack(*packing, &codes, |code| {
                        let code: Vec<u64> = code.iter().map(|w| u64::from(*w)).collect();
                        let words = self.call(*func, &code, s.span, buffers)?;
                        Ok(words.into_iter().map(|w| w as u32).collect())
                    })?;
                    self.values[s.outs[0] as usize] = Some(Value::Tile(tile.into()));
                }
                Op::Call { func, args } => {
                    let args = args.iter().map(|a| scalar(self, *a)).collect::<Result<Vec<u64>, Trap>>()?;
                    let results = self.call(*func, &args, s.span, buffers)?;
                    s.outs.iter().zip(results).for_each(|(out, bits)| self.put(*out, bits));
                }
                _ => self.stmt(s, buffers).map_err(|w| self.trap(w, s.span))?,
            }
        }
        Ok(())
    }

    fn parallel(&mut self, par: Par, var: Id, count: i64, body: &[Stmt], buffers: &mut [Region]) -> Result<(), Trap> {
        let mut order: Vec<i64> = (0..count.max(0)).collect();
        for i in (1..order.len()).rev() {
            self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            order.swap(i, (self.random >> 33) as usize % (i + 1));
        }
        self.turns.enter();
        for i in order {
            self.turns.next();
            if par == Par::Warps {
                self.warp = i as usize;
            }
            self.put(var, i as u64);
            self.region(body, buffers)?;
        }
        self.turns.leave();
        Ok(())
    }

    fn call(&mut self, func: usize, args: &[u64], span: Span, buffers: &mut [Region]) -> Result<Vec<u64>, Trap> {
        let f = &self.p.funcs[func];
        f.params.iter().zip(args).for_each(|(param, bits)| self.put(*param, *bits));
        self.region(&f.body, buffers)?;
        f.results.iter().map(|r| self.scalar(*r).map_err(|w| self.trap(w, span))).collect()
    }

    pub(super) fn put(&mut self, id: Id, bits: u64) {
        self.values[id as usize] = Some(Value::Scalar(bits));
    }

    pub(super) fn value(&self, id: Id) -> Result<Value, Wrong> {
        self.values[id as usize].clone().ok_or(Wrong::Undefined { id })
    }

    pub(super) fn scalar(&self, id: Id) -> Result<u64, Wrong> {
        match &self.values[id as usize] {
            Some(Value::Scalar(bits)) => Ok(*bits),
            Some(Value::Tile(_)) => Err(Wrong::Unsupported { op: "a tile in a scalar's place".into() }),
            None => Err(Wrong::Undefined { id }),
        }
    }

    pub(super) fn tile(&self, id: Id) -> Result<(Shape, Rc<[u64]>), Wrong> {
        match (self.p.ty(id), self.value(id)?) {
            (Ty::Tile { dtype, rows, cols, .. }, Value::Tile(x)) => Ok((Shape { dtype, rows, cols }, x)),
            _ => Err(Wrong::Unsupported { op: "a scalar in a tile's place".into() }),
        }
    }

    /// Element by element; scalars, row and column vectors repeat themselves.
    fn map(&mut self, e: &Element) -> Result<(), Wrong> {
        let Ty::Tile { rows, cols, .. } = self.p.ty(e.out) else {
            let mut bits = [0; 3];
            for (b, id) in bits.iter_mut().zip(e.operands()) {
                *b = self.scalar(*id)?;
            }
            self.put(e.out, e.eval(bits)?);
            return Ok(());
        };
        let operands = e.operands().iter().map(|id| Ok((self.p.ty(*id), self.value(*id)?))).collect::<Result<Vec<_>, Wrong>>()?;
        let mut all = Vec::with_capacity(rows * cols);
        for row in 0..rows {
            for col in 0..cols {
                let mut bits = [0; 3];
                for (b, operand) in bits.iter_mut().zip(&operands) {
                    *b = match operand {
                        (_, Value::Scalar(bits)) => *bits,
                        (Ty::Tile { layout: Layout::Rows, .. }, Value::Tile(x)) => x[row],
                        (Ty::Tile { layout: Layout::Cols, .. }, Value::Tile(x)) => x[col],
                        (_, Value::Tile(x)) => x[row * cols + col],
                    };
                }
                all.push(e.eval(bits)?);
            }
        }
        self.values[e.out as usize] = Some(Value::Tile(all.into()));
        Ok(())
    }

    fn stmt(&mut self, s: &Stmt, buffers: &mut [Region]) -> Result<(), Wrong> {
        if let Some(e) = Element::of(self.p, s) {
            return self.map(&e);
        }
        let d = |id: Id| self.p.ty(id).dtype();
        let out = s.outs.first().copied().unwrap_or_default();
        match &s.op {
            Op::BlockId(axis) => {
                self.put(out, u64::from(self.block[*axis]));
                Ok(())
            }
            Op::VarNew(a) | Op::VarGet(a) => {
                self.values[out as usize] = Some(self.value(*a)?);
                if matches!(s.op, Op::VarNew(_)) {
                    self.homes[out as usize] = self.turns.now();
                }
                Ok(())
            }
            Op::VarSet(var, a) => {
                self.value(*var)?;
                if self.homes[*var as usize] != self.turns.now() {
                    return Err(Wrong::SharedVariable { id: *var });
                }
                self.values[*var as usize] = Some(self.value(*a)?);
                Ok(())
            }
            Op::Keep { kept, turn, k, value } => self.keep((*kept, self.offset(*turn)?, *k), *value),
            Op::Kept { kept, turn, k } => self.take_kept((*kept, self.offset(*turn)?, *k), out),
            Op::KeptLeft { kept, warp, first } => self.kept_left(*kept, *warp, *first, out),
            Op::KeepAcc { kept, warp, first, value } => self.keep_acc(*kept, *warp, *first, *value),
            Op::Load { buf, at } | Op::Peek { buf, at } => {
                let bits = self.load(buf, self.offset(*at)?, d(out), buffers)?;
                self.put(out, bits);
                Ok(())
            }
            Op::Prefetch { buf: Buf::Param(buf), at, bytes } => {
                let (size, align) = bytes.map_or(Ok((1, 1)), |bytes| self.offset(bytes).map(|n| (n as usize, 16)))?;
                buffers[*buf].range(self.offset(*at)?, size, align).map(drop)
            }
            Op::LoadVec { buf, at, .. } => {
                for (i, out) in s.outs.iter().enumerate() {
                    let bits = self.load(buf, self.offset(*at)? + 4 * i as i64, d(*out), buffers)?;
                    self.put(*out, bits);
                }
                Ok(())
            }
            Op::StoreVec { buf, at, values } => values.iter().enumerate().try_for_each(|(i, v)| self.store(buf, self.offset(*at)? + 4 * i as i64, d(*v), self.scalar(*v)?, buffers)),
            Op::Store { buf, at, value } => self.store(buf, self.offset(*at)?, d(*value), self.scalar(*value)?, buffers),
            Op::CopyStart { ring, src, at, bytes, .. } => self.start(*ring, *src, &buffers[*src], *at, *bytes),
            Op::CopyAsync { ring, src, at, bytes } => {
                self.take_started(*ring, *src, *at, *bytes)?;
                self.fetch(*ring, &buffers[*src], *at, *bytes)?;
                self.wait(*ring, out)
            }
            Op::RingFetch { ring, src, at, bytes, cond, .. } => {
                if self.scalar(*cond)? & 1 != 0 {
                    self.fetch(*ring, &buffers[*src], *at, *bytes)
                } else {
                    Ok(())
                }
            }
            Op::RingWait { ring } => self.wait(*ring, out),
            Op::Bring { buf, at, src, from } => self.bring(buf, *at, *src, *from, buffers),
            Op::AfterPrevious | Op::ReleaseNext | Op::SyncWarp | Op::Anew | Op::CopyOver | Op::Brought => Ok(()),
            _ => self.tile_stmt(s, out, buffers),
        }
    }
}
