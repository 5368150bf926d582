//! Tile IR: a block's warps one after another, each warp's tiles as whole matrices.
//!
//! Iterations of a parallel loop come in a shuffled order; one that meets another's writes stops the run.

use super::element::Element;
use super::matrix::{self, Shape};
use super::memory::{self, Region};
use super::tile_memory::Queue;
use super::trap::{Trap, Wrong};
use super::turns::Turns;
use super::{Stage, scalar};
use crate::dtype::DType;
use crate::ir::*;
use crate::pack::{left_byte, right_byte, spread};
use crate::tile::{band_row, pair};
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
    by: HashMap<(usize, usize, i64), Rc<[u64]>>,
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
        Machine {
            p,
            scalars,
            block: [0; 3],
            values: vec![],
            homes: vec![0; p.types.len()],
            shared: vec![],
            rings: vec![],
            by: HashMap::new(),
            kept: HashMap::new(),
            warp: 0,
            turns: Turns::new(p.params.len() + p.shared.len()),
            random: seed,
        }
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

    fn tile(&self, id: Id) -> Result<(Shape, Rc<[u64]>), Wrong> {
        match (self.p.ty(id), self.value(id)?) {
            (Ty::Tile { dtype, rows, cols, .. }, Value::Tile(x)) => Ok((Shape { dtype, rows, cols }, x)),
            _ => Err(Wrong::Unsupported { op: "a scalar in a tile's place".into() }),
        }
    }

    /// Element by element; scalars, row and column vectors repeat themselves.
    fn map(&mut self, e: &Element) -> Result<(), Wrong> {
        let operands = e.operands.iter().map(|id| Ok((self.p.ty(*id), self.value(*id)?))).collect::<Result<Vec<_>, Wrong>>()?;
        let (rows, cols) = if let Ty::Tile { rows, cols, .. } = self.p.ty(e.out) { (rows, cols) } else { (1, 1) };
        let at = |i: usize| {
            let mut bits = [0; 3];
            for (b, operand) in bits.iter_mut().zip(&operands) {
                *b = match operand {
                    (_, Value::Scalar(bits)) => *bits,
                    (Ty::Tile { layout: Layout::Rows, .. }, Value::Tile(x)) => x[i / cols],
                    (Ty::Tile { layout: Layout::Cols, .. }, Value::Tile(x)) => x[i % cols],
                    (_, Value::Tile(x)) => x[i],
                };
            }
            e.eval(bits)
        };
        let value = match self.p.ty(e.out) {
            Ty::Scalar(_) => Value::Scalar(at(0)?),
            Ty::Tile { .. } => Value::Tile((0..rows * cols).map(at).collect::<Result<_, _>>()?),
        };
        self.values[e.out as usize] = Some(value);
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
            Op::Load { buf, at } => {
                let bits = self.load(buf, self.offset(*at)?, d(out), buffers)?;
                self.put(out, bits);
                Ok(())
            }
            Op::Prefetch { buf, at } => self.load(buf, self.offset(*at)?, DType::U8, buffers).map(drop),
            Op::LoadVec { buf, at, .. } => {
                for (i, out) in s.outs.iter().enumerate() {
                    let bits = self.load(buf, self.offset(*at)? + 4 * i as i64, d(*out), buffers)?;
                    self.put(*out, bits);
                }
                Ok(())
            }
            Op::StoreVec { buf, at, values } => {
                values.iter().enumerate().try_for_each(|(i, v)| self.store(buf, self.offset(*at)? + 4 * i as i64, d(*v), self.scalar(*v)?, buffers))
            }
            Op::Store { buf, at, value } => self.store(buf, self.offset(*at)?, d(*value), self.scalar(*value)?, buffers),
            Op::CopyStart { ring, src, at, bytes, .. } => self.start(*ring, *src, &buffers[*src], *at, *bytes),
            Op::CopyAsync { ring, src, at, bytes } => {
                self.take_started(*ring, *src, *at, *bytes)?;
                self.fetch(*ring, &buffers[*src], *at, *bytes)?;
                self.wait(*ring, out)
            }
            Op::RingFetch { ring, src, at, bytes, cond, .. } => {
                if self.scalar(*cond)? & 1 != 0 { self.fetch(*ring, &buffers[*src], *at, *bytes) } else { Ok(()) }
            }
            Op::RingWait { ring } => self.wait(*ring, out),
            Op::AfterPrevious | Op::ReleaseNext | Op::SyncWarp | Op::Anew | Op::CopyOver => Ok(()),
            _ => self.tile_stmt(s, out, buffers),
        }
    }

    fn tile_stmt(&mut self, s: &Stmt, out: Id, buffers: &mut [Region]) -> Result<(), Wrong> {
        let tile = match &s.op {
            Op::RowIndex => match self.p.ty(out) {
                Ty::Tile { rows, .. } => (0..rows as u64).collect(),
                Ty::Scalar(_) => vec![0],
            },
            Op::Reduce { op, axis, src } => {
                let (shape, x) = self.tile(*src)?;
                let y = matrix::reduce(*op, *axis, shape, &x)?;
                if *axis == Axis::All {
                    self.put(out, y[0]);
                    return Ok(());
                }
                y
            }
            Op::Any(a) => {
                let any = self.tile(*a)?.1.iter().any(|x| x & 1 != 0);
                self.put(out, u64::from(any));
                return Ok(());
            }
            Op::AnyRows { src, pairs } => {
                let (shape, x) = self.tile(*src)?;
                let holds = |c: usize| (0..shape.rows).any(|r| x[r * shape.cols + c] & 1 != 0);
                (0..shape.cols).map(|c| u64::from(holds(c) || *pairs && holds(c ^ 4))).collect()
            }
            Op::Raise(by) => match self.p.ty(out) {
                Ty::Tile { rows, .. } => (0..rows).map(|r| 1 << by[r % 8]).collect(),
                Ty::Scalar(_) => vec![1],
            },
            Op::MmaRaised { a, b, by } => {
                let ((sa, a), (sb, b)) = (self.tile(*a)?, self.tile(*b)?);
                matrix::mma_raised((sa, &a), (sb, &b), by)
            }
            Op::Mma { a, b, c } => {
                let ((sa, a), (sb, b), (_, c)) = (self.tile(*a)?, self.tile(*b)?, self.tile(*c)?);
                matrix::mma(sa, &a, sb, &b, &c)
            }
            Op::SumK(a) => {
                let (shape, x) = self.tile(*a)?;
                matrix::sum_k(shape, &x)
            }
            Op::SplitBytes(a) => {
                let (_, x) = self.tile(*a)?;
                self.values[s.outs[1] as usize] = Some(Value::Tile(x.iter().map(|x| x >> 8 & 0xff).collect()));
                x.iter().map(|x| x & 0xff).collect()
            }
            Op::FoldHalves { src, weight } => {
                let (shape, x) = self.tile(*src)?;
                let both = |r: usize, head: usize| match shape.dtype {
                    DType::F32 => u64::from(f32::from_bits(x[r * 8 + head] as u32).mul_add(*weight as f32, f32::from_bits(x[r * 8 + head + 4] as u32)).to_bits()),
                    d => scalar::truncated(d, (scalar::int(d, x[r * 8 + head]) * *weight as i64 + scalar::int(d, x[r * 8 + head + 4])) as u64),
                };
                match shape.rows {
                    1 => (0..8).map(|c| both(0, c % 4)).collect(),
                    n => (0..n * 4).map(|i| both(pair::whose(n, i / 8, i % 8), i % 4)).collect(),
                }
            }
            Op::FoldOnto { src, left, right, start } => {
                let ((_, x), (_, first)) = (self.tile(*src)?, self.tile(*start)?);
                let of = |bits: u64, by: usize| scalar::int(DType::I32, bits) * by as i64;
                pair::tile(|t, head| scalar::truncated(DType::I32, (of(x[t * 8 + head], *left) + of(x[t * 8 + head + 4], *right) + of(first[head], 1)) as u64))
            }
            Op::LoadHalves { buf, at, stride, heads } => {
                let (at, Ty::Tile { rows, .. }) = (self.offset(*at)?, self.p.ty(out)) else { return Err(Wrong::Unsupported { op: "LoadHalves into a scalar".into() }) };
                let place = |i: usize| at + ((i % 4).min(heads - 1) * stride + 4 * pair::whose(2 * rows, i / 8, i % 8)) as i64;
                (0..rows * 8).map(|i| self.load(buf, place(i), DType::F32, buffers)).collect::<Result<Vec<u64>, _>>()?
            }
            Op::StoreHalves { buf, at, stride, heads, value } => {
                let (at, (shape, x)) = (self.offset(*at)?, self.tile(*value)?);
                for (i, bits) in x.iter().enumerate().filter(|(i, _)| i % 4 < *heads) {
                    let place = at + (i % 4 * stride + 4 * pair::whose(2 * shape.rows, i / 8, i % 8)) as i64;
                    self.store(buf, place, DType::F32, *bits, buffers)?;
                }
                return Ok(());
            }
            Op::PutBy { own, place, value } => {
                let (place, tile) = (self.own_place(*own, *place)?, self.tile(*value)?.1);
                self.by.insert((*own, self.warp, place), tile);
                return Ok(());
            }
            Op::TakeUp { own, place } => {
                let place = self.own_place(*own, *place)?;
                self.by.get(&(*own, self.warp, place)).ok_or(Wrong::Undefined { id: out })?.to_vec()
            }
            Op::SplitHalves(a) => {
                let x = self.tile(*a)?.1;
                let byte = |(row, right): (usize, bool), c: usize| x[row * 8 + c % 4 + 4 * usize::from(right)] >> (if c < 4 { 8 } else { 0 }) & 0xff;
                (0..256).map(|i| byte(pair::place(i / 8), i % 8)).collect()
            }
            Op::SwapHalves(a) => {
                let x = self.tile(*a)?.1;
                (0..x.len()).map(|i| x[i ^ 4]).collect()
            }
            Op::QuadOrder(a) | Op::TwosOrder(a) => self.tile(*a)?.1.to_vec(),
            Op::Band { src, index, of } => {
                let (shape, x) = self.tile(*src)?;
                let row = |r: usize| band_row(shape.rows, r, *index, *of);
                (0..x.len() / of).map(|i| x[row(i / shape.cols) * shape.cols + i % shape.cols]).collect()
            }
            Op::PairIndex => pair::tile(|t, _| t as u64),
            Op::LoadPairs { buf, at, stride, elem } => {
                let at = self.offset(*at)?;
                let values = (0..32).map(|t| self.load(buf, at + (t * stride) as i64, *elem, buffers)).collect::<Result<Vec<u64>, _>>()?;
                pair::tile(|t, _| values[t])
            }
            Op::ToOperand(a) => self.tile(*a)?.1.iter().map(|x| scalar::cast(DType::F32, DType::Bf16, *x)).collect::<Result<_, _>>()?,
            Op::Hadamard(a) => matrix::hadamard(&self.tile(*a)?.1),
            Op::LoadOperand { buf, at, stride } => self.load_tile(buf, *at, (self.p.ty(out).dtype().size(), *stride), usize::MAX, out, buffers)?,
            Op::LoadMatrix { buf, at, stride, first, col, turned } => self.load_matrix(buf, *at, (*stride, *first, *col), *turned, out, buffers)?,
            Op::LoadLeft { buf, at } => self.load_left(buf, *at, out, buffers)?,
            Op::LoadRight { buf, at } => self.load_right(buf, *at, out, buffers)?,
            Op::StoreRight { buf, at, value, spread: across } => {
                let (at, (shape, x)) = (self.offset(*at)?, self.tile(*value)?);
                for (i, bits) in x.iter().enumerate() {
                    let (row, k) = (i / shape.cols, i % shape.cols);
                    self.store(buf, at + right_byte(shape.cols, k, if *across { spread(row) } else { row }) as i64, shape.dtype, *bits, buffers)?;
                }
                return Ok(());
            }
            Op::LoadSpread { buf, at } => {
                let (at, dtype) = (self.offset(*at)?, self.p.ty(out).dtype());
                (0..32).map(|c| self.load(buf, at + 4 * spread(c) as i64, dtype, buffers)).collect::<Result<Vec<u64>, _>>()?
            }
            Op::SpreadIndex => (0..32).map(|c| spread(c) as u64).collect(),
            Op::FoldRows { src, weight } => {
                let (shape, x) = self.tile(*src)?;
                let n = shape.cols;
                let both = |r: usize, c: usize| match shape.dtype {
                    DType::F32 => u64::from(f32::from_bits(x[2 * r * n + c] as u32).mul_add(*weight as f32, f32::from_bits(x[(2 * r + 1) * n + c] as u32)).to_bits()),
                    d => scalar::truncated(d, (scalar::int(d, x[2 * r * n + c]) * *weight as i64 + scalar::int(d, x[(2 * r + 1) * n + c])) as u64),
                };
                (0..8 * n).map(|i| both(i / n, i % n)).collect()
            }
            Op::SplitRows(a) => {
                let x = self.tile(*a)?.1;
                (0..512).map(|i| x[i / 64 * 32 + spread(i % 32)] >> (if i / 32 % 2 == 0 { 8 } else { 0 }) & 0xff).collect()
            }
            Op::SwapRows(a) => {
                let (shape, x) = self.tile(*a)?;
                (0..x.len()).map(|i| x[(i / shape.cols ^ 1) * shape.cols + i % shape.cols]).collect()
            }
            Op::TwiceRows(a) => {
                let x = self.tile(*a)?.1;
                (0..16).map(|r| x[r / 2]).collect()
            }
            Op::PairSums(a) => {
                let x = self.tile(*a)?.1;
                let number = |r: usize, token: usize| f32::from_bits(x[r * 32 + spread(token)] as u32);
                let of = |half: usize| (0..64).map(|i| u64::from((number(i / 8, i % 8 * 4 + 2 * half) + number(i / 8, i % 8 * 4 + 2 * half + 1)).to_bits())).collect::<Vec<u64>>();
                self.values[s.outs[1] as usize] = Some(Value::Tile(of(1).into()));
                of(0)
            }
            Op::StoreLeft { buf, at, value } => {
                let (at, (shape, x)) = (self.offset(*at)?, self.tile(*value)?);
                for (i, bits) in x.iter().enumerate() {
                    self.store(buf, at + left_byte(shape.rows, shape.cols, i / shape.cols, i % shape.cols) as i64, shape.dtype, *bits, buffers)?;
                }
                return Ok(());
            }
            Op::Marks { buf, at, of_keys } => self.marks(buf, *at, *of_keys, buffers)?,
            Op::LoadTile { buf, at, row_stride, col_stride, cols, .. } => self.load_tile(buf, *at, (*row_stride, *col_stride), *cols, out, buffers)?,
            Op::StoreTile { buf, at, row_stride, col_stride, cols, value } => {
                let (at, (shape, x)) = (self.offset(*at)?, self.tile(*value)?);
                for (i, bits) in x.iter().enumerate().filter(|(i, _)| i % shape.cols < *cols) {
                    let (r, c) = (i / shape.cols, i % shape.cols);
                    self.store(buf, at + (r * row_stride + c * col_stride) as i64, shape.dtype, *bits, buffers)?;
                }
                return Ok(());
            }
            op => return Err(Wrong::Unsupported { op: format!("{} at tile stage", verify::name(op)) }),
        };
        self.values[out as usize] = Some(Value::Tile(tile.into()));
        Ok(())
    }

    fn own_place(&self, own: usize, place: Id) -> Result<i64, Wrong> {
        let (at, places) = (self.offset(place)?, self.p.own[own].places);
        memory::checked("tiles put by", places, at, 1, 1).map(|at| at as i64)
    }
}
