//! Tiles become registers: from a warp's program to one lane's.
//!
//! A tile value turns into `Ty::regs` scalars; which element a register holds follows from the layout
//! alone. Scalars stay as they are.

use super::lower_halves::has_pairs;
use crate::dtype::DType;
use crate::ir::*;
use crate::report::{Fault, Report};

pub(super) struct Lower {
    pub p: Program,
    /// Of each tile, by its value's number.
    pub regs: Vec<Vec<Id>>,
    pub out: Vec<Vec<Stmt>>,
    pub span: Span,
    /// Lane, quad row (lane / 4), quad lane (lane % 4), thread.
    pub lane: Id,
    pub g: Id,
    pub t: Id,
    pub thread: Id,
    /// The two columns that a lane has of a tile of eight are four apart: see [`super::lower_halves`].
    pub beside: bool,
    /// Rows whose halves are the same.
    pub alike: Vec<bool>,
    /// Numbers are read anew in this region.
    pub anew: bool,
    /// Variables of what turns keep, and the turn of the loop over all threads or over warps that is being lowered.
    pub kept: Vec<Vec<Vec<Id>>>,
    pub turn: Option<(Par, Id)>,
    /// Regions around that turn's number.
    pub around: usize,
    pub fault: Option<Report>,
}

/// Lowers a program whose shared memory is placed.
pub fn run(mut p: Program) -> Result<Program, Report> {
    let (body, regs) = (std::mem::take(&mut p.body), vec![vec![]; p.types.len()]);
    let beside = has_pairs(&body);
    let alike = if beside { super::alike::run(&p, &body) } else { vec![] };
    p.lowered = true;
    let mut l = Lower { p, regs, out: vec![vec![]], span: Span { file: "", line: 0 }, lane: 0, g: 0, t: 0, thread: 0, beside, alike, anew: false, kept: vec![], turn: None, around: 0, fault: None };
    l.thread = l.emit(Op::ThreadId, DType::I32);
    l.lane = l.emit(Op::LaneId, DType::I32);
    l.quad_numbers();
    for array in l.p.kept.clone() {
        let d = array.ty.reg_dtype();
        let zero = l.konst(d, 0);
        let vars = (0..array.len).map(|_| (0..array.ty.regs()).map(|_| l.emit(Op::VarNew(zero), d)).collect()).collect();
        l.kept.push(vars);
    }
    l.block(&body);
    if let Some(r) = l.fault {
        return Err(r);
    }
    l.p.body = l.out.pop().unwrap_or_default();
    Ok(l.p)
}

impl Lower {
    fn block(&mut self, stmts: &[Stmt]) {
        for s in stmts {
            self.span = s.span;
            self.stmt(s);
        }
    }

    /// Register of operand `id` that meets register `r` of a result of type `ty`.
    fn operand(&self, id: Id, ty: Ty, r: usize) -> Id {
        let (Ty::Tile { layout: mine, .. }, Ty::Tile { layout, cols, .. }) = (self.p.ty(id), ty) else { return id };
        let regs = &self.regs[id as usize];
        match (mine, layout) {
            (Layout::Rows, Layout::MmaC) => {
                // With 8 rows a lane has one row: registers are columns only.
                let (per, half) = (cols / 8 * 4, r % 4 / 2);
                if regs.len() == 1 { regs[0] } else { regs[r / per * 2 + half] }
            }
            (Layout::Cols, Layout::MmaC) => match ty {
                Ty::Tile { rows: 8, .. } => regs[r],
                _ => regs[r % (cols / 8 * 4) / 4 * 2 + r % 2],
            },
            _ => regs[r],
        }
    }

    fn stmt(&mut self, s: &Stmt) {
        let out = s.outs.first().copied();
        let ty = out.map(|o| self.p.ty(o));
        match &s.op {
            Op::If { cond, then, other } => {
                let (cond, then) = (*cond, self.region(|l| l.block(then)));
                let other = self.region(|l| l.block(other));
                self.push(Op::If { cond, then, other }, vec![]);
            }
            Op::For { var, lo, hi, step, body, .. } => {
                let (var, lo, hi, step) = (*var, *lo, *hi, *step);
                let body = self.region(|l| l.block(body));
                self.push(Op::For { var, lo, hi, step, stages: 0, body }, vec![]);
            }
            Op::ParFor { par, var, count, body } => self.parallel(*par, *var, *count, body),
            Op::VarNew(first) if out.is_some_and(|out| self.alike(out)) => {
                let first = self.tile(*first)[0];
                let var = self.emit(Op::VarNew(first), self.p.ty(s.outs[0]).reg_dtype());
                self.set(s.outs[0], vec![var; 2]);
            }
            Op::VarSet(var, v) if self.alike(*var) => {
                let (var, v) = (self.tile(*var)[0], self.tile(*v)[0]);
                self.push(Op::VarSet(var, v), vec![]);
            }
            Op::VarSet(var, v) if self.lies(*var) => {
                for (var, v) in self.tile(*var).into_iter().zip(self.tile(*v)) {
                    self.push(Op::VarSet(var, v), vec![]);
                }
            }
            Op::Anew => self.anew(),
            Op::OfLane(src, index) => {
                let own = self.tile(*src)[0];
                self.push(Op::OfLane(own, *index), s.outs.clone());
            }
            Op::BlockId(axis) if self.anew => self.push(Op::BlockAnew(*axis), s.outs.clone()),
            Op::Any(src) => {
                let regs = self.tile(*src);
                let any = self.fold(&regs, BinOp::Or);
                self.push(Op::AnyLane(any), s.outs.clone());
            }
            Op::Reduce { op, axis, src } => self.reduce(*op, *axis, *src, s.outs[0]),
            Op::SplitBytes(src) => self.split_bytes(*src, &s.outs),
            Op::StoreTile { .. } => self.store_tile(&s.op),
            Op::StoreHalves { .. } => self.store_halves(&s.op),
            Op::StoreCores { buf, at, byte, value } => self.store_cores(*buf, *at, *byte, *value),
            Op::StorePacked { buf, at, value } => {
                let lane = match self.p.ty(*value) {
                    Ty::Tile { layout: Layout::MmaB, cols, .. } => self.right_lane(cols),
                    _ => self.lane,
                };
                self.store_packed(*buf, *at, lane, *value);
            }
            Op::StoreRight { buf, at, value, spread: true } => self.store_spread(*buf, *at, *value),
            Op::StoreRight { buf, at, value, spread: false } => self.store_right(*buf, *at, *value),
            Op::PairSums(src) => self.pair_sums(*src, &s.outs),
            Op::BytesBeside(a, b) => self.bytes_beside(*a, *b, &s.outs),
            Op::PutBy { own, place, value } => self.put_by(*own, *place, *value),
            Op::Keep { kept, turn, k, value } => self.keep(*kept, *turn, *k, *value),
            Op::Kept { kept, turn, k } => self.take_kept(*kept, *turn, *k, &s.outs),
            Op::KeepAcc { kept, warp, first, value } => self.keep_acc(*kept, *warp, *first, *value),
            Op::CopyAsync { ring, src, at, bytes } => {
                let cond = self.konst(DType::Bool, 1);
                self.push(Op::RingFetch { ring: *ring, src: *src, at: *at, bytes: *bytes, cond, ahead: 0 }, vec![]);
                self.push(Op::RingWait { ring: *ring }, s.outs.clone());
            }
            op => match (ty, out) {
                (Some(ty @ Ty::Tile { .. }), Some(out)) => {
                    let regs = self.tile_op(op, ty);
                    self.set(out, regs);
                }
                _ => self.push(op.clone(), s.outs.clone()),
            },
        }
    }

    /// Registers of a tile that one operation makes.
    fn tile_op(&mut self, op: &Op, ty: Ty) -> Vec<Id> {
        match op {
            Op::Full(v) => vec![self.repeated(*v, ty); ty.regs()],
            // Their columns have an order of their own.
            Op::MmaShared { .. } | Op::LoadSpread { .. } if self.beside && matches!(ty, Ty::Tile { cols: 8, .. }) => {
                self.fail(Fault::StageOp { op: format!("{op:?} beside pairs"), stage: "tile" });
                vec![0; ty.regs()]
            }
            Op::RowIndex => {
                let base = self.scaled(self.g, ty.regs());
                (0..ty.regs()).map(|i| self.offset(base, i)).collect()
            }
            Op::VectorIndex => self.vector_index(ty.regs()),
            Op::Gather { buf, at } => self.tile(*at).into_iter().map(|at| self.emit(Op::Load { buf: *buf, at }, ty.dtype())).collect(),
            Op::Raise(by) => self.raise(by, ty.regs()),
            Op::AnyRows { src, pairs } => self.any_rows(*src, *pairs),
            Op::MmaRaised { a, b, by } => self.mma_raised(*a, *b, by, ty),
            Op::Mma { a, b, c } => self.mma(*a, *b, *c),
            Op::MmaShared { a, buf, at, stride, c } => self.mma_shared(*a, (*buf, *at, *stride), *c, ty),
            Op::FoldCols { src, weight } => self.fold_cols(*src, *weight),
            Op::SumK(b) => self.sum_k(*b),
            Op::LaneTotals(b) => self.lane_totals(*b),
            Op::FoldFours(src) => self.fold_fours(*src),
            Op::InFours(src) => self.in_fours(*src),
            Op::Unpack { buf, at, packing, func } => self.unpack(*buf, *at, *packing, *func),
            Op::ToOperand(src) => self.to_operand(*src),
            Op::FoldHalves { src, weight } => self.fold_halves(*src, *weight),
            Op::FoldOnto { src, left, right, start } => self.fold_onto(*src, (*left, *right), *start),
            Op::LoadHalves { buf, at, stride, heads } => self.load_halves(*buf, *at, (*stride, *heads), ty),
            Op::TakeUp { own, place } => self.take_up(*own, *place, ty),
            Op::KeptLeft { kept, warp, first } => self.kept_left(*kept, *warp, *first, ty),
            Op::OwnHalves(src) => self.own_halves(*src),
            Op::SplitHalves(src) => self.split_halves(*src),
            Op::SwapHalves(src) => self.swap_halves(*src),
            Op::LeftHalves(src) => vec![self.tile(*src)[0]; 2],
            Op::QuadOrder(src) => self.quad_order(*src),
            Op::TwosOrder(src) => self.twos_order(*src),
            Op::Band { src, index, .. } => self.tile(*src).chunks(ty.regs()).nth(*index).map(<[Id]>::to_vec).unwrap_or_default(),
            Op::PairIndex => self.pair_index(),
            Op::LoadAlike { buf, at } => self.load_alike(*buf, *at, ty),
            Op::LoadPairs { buf, at, stride, elem } => self.load_pairs(*buf, *at, *stride, *elem),
            Op::LoadOperand { buf, at, stride } => self.load_operand(*buf, *at, *stride, ty),
            Op::LoadLeft { buf, at } => self.load_packed(*buf, *at, self.lane, ty),
            Op::LoadRight { buf, at } => {
                let Ty::Tile { cols, .. } = ty else { return vec![] };
                let lane = self.right_lane(cols);
                self.load_packed(*buf, *at, lane, ty)
            }
            Op::LoadSpread { buf, at } => self.load_columns_spread(*buf, *at, ty),
            Op::SpreadIndex => {
                let base = self.scaled(self.t, 8);
                (0..8).map(|i| self.offset(base, i)).collect()
            }
            Op::FoldRows { src, weight } => self.fold_rows(*src, *weight),
            Op::SplitRows(src) => self.split_rows(*src),
            Op::SwapRows(src) => {
                let regs = self.tile(*src);
                (0..regs.len()).map(|i| regs[i ^ 2]).collect()
            }
            Op::TwiceRows(src) => self.tile(*src).repeat(2),
            Op::Lengths { buf, at, pairs } => self.key_lengths(*buf, *at, *pairs),
            Op::Marks { buf, at, of_keys } => self.marks(*buf, *at, *of_keys),
            Op::LoadLines { buf, at } => self.load_lines(*buf, *at),
            Op::MmaLines(_) => {
                let outs: Vec<Id> = (0..ty.regs()).map(|_| self.p.fresh(Ty::Scalar(DType::I32))).collect();
                self.push(op.clone(), outs.clone());
                outs
            }
            Op::LoadTile { buf, at, row_stride, col_stride, cols, elem } => self.load_tile(*buf, *at, (*row_stride, *col_stride), *cols, *elem, ty),
            Op::Hadamard(src) => self.hadamard(*src),
            op => self.elements(op, ty),
        }
    }

    /// Registers of an element-wise operation; what elements share, such as a token's scale, is made once.
    fn elements(&mut self, op: &Op, ty: Ty) -> Vec<Id> {
        let mut made: Vec<(Op, Id)> = vec![];
        (0..ty.regs())
            .map(|r| {
                let own = self.element(op, ty, r);
                let before = made.iter().find(|(op, _)| *op == own && !matches!(own, Op::VarNew(_))).map(|m| m.1);
                before.unwrap_or_else(|| {
                    let id = self.emit(own.clone(), ty.reg_dtype());
                    made.push((own, id));
                    id
                })
            })
            .collect()
    }

    /// What makes register `r` of it.
    fn element(&mut self, op: &Op, ty: Ty, r: usize) -> Op {
        let x = |id: &Id| self.operand(*id, ty, r);
        match op {
            Op::Un(o, a) => Op::Un(*o, x(a)),
            Op::Bin(o, a, c) => Op::Bin(*o, x(a), x(c)),
            Op::Fma(a, c, d) => Op::Fma(x(a), x(c), x(d)),
            Op::Funnel(a, c, n) => Op::Funnel(x(a), x(c), *n),
            Op::Pick(a, c, s) => Op::Pick(x(a), x(c), x(s)),
            Op::AddDot4(a, c, d) => Op::AddDot4(x(a), x(c), x(d)),
            Op::Select(c, a, d) => Op::Select(x(c), x(a), x(d)),
            Op::Cast(a) => Op::Cast(x(a)),
            Op::Bitcast(a) => Op::Bitcast(x(a)),
            Op::VarNew(a) => Op::VarNew(x(a)),
            Op::VarGet(a) => Op::VarGet(x(a)),
            other => {
                self.fail(Fault::StageOp { op: format!("{other:?}"), stage: "tile" });
                Op::Const(0)
            }
        }
    }

    fn parallel(&mut self, par: Par, var: Id, count: Id, body: &[Stmt]) {
        match par {
            Par::Warps => {
                let five = self.int(5);
                // What warps keep would live on where a warp had no turn.
                let whole = self.known(count) == Some(self.p.warps as u64);
                let keeps = whole && self.p.kept.iter().any(|kept| !matches!(kept.ty, Ty::Scalar(_)));
                if keeps {
                    let own = self.emit(Op::Bin(BinOp::Shr, self.thread, five), DType::I32);
                    self.push(Op::Alike(own), vec![var]);
                } else {
                    self.push(Op::Bin(BinOp::Shr, self.thread, five), vec![var]);
                }
                (self.turn, self.around) = (Some((Par::Warps, var)), self.out.len());
                if keeps || whole && body.iter().any(|s| matches!(s.op, Op::KeepAcc { .. })) {
                    self.block(body);
                } else {
                    let cond = self.bin(BinOp::Lt, var, count);
                    let then = self.region(|l| l.block(body));
                    self.push(Op::If { cond, then, other: vec![] }, vec![]);
                }
                self.turn = None;
                self.push(Op::Barrier, vec![]);
            }
            Par::Warpwise => {
                if self.known(count) != Some(self.p.threads() as u64) {
                    self.fail(Fault::OtherTurn);
                }
                self.all_turns(var, body);
                self.push(Op::SyncWarp, vec![]);
            }
            Par::Threads | Par::Lanes => {
                let block = par == Par::Threads;
                if block && self.known(count) == Some(self.p.threads() as u64) {
                    self.all_turns(var, body);
                    self.push(Op::Barrier, vec![]);
                    return;
                }
                if block && self.known(count).is_some_and(|n| n < self.p.threads() as u64) {
                    // One turn for some threads.
                    let zero = self.int(0);
                    self.push(Op::Bin(BinOp::Add, self.thread, zero), vec![var]);
                    let cond = self.bin(BinOp::Lt, var, count);
                    let then = self.region(|l| l.block(body));
                    self.push(Op::If { cond, then, other: vec![] }, vec![]);
                    self.push(Op::Barrier, vec![]);
                    return;
                }
                let step = self.int(if block { self.p.threads() as i64 } else { 32 });
                let lo = if block { self.thread } else { self.lane };
                let body = self.region(|l| l.block(body));
                self.push(Op::For { var, lo, hi: count, step, stages: 0, body }, vec![]);
                self.push(if block { Op::Barrier } else { Op::SyncWarp }, vec![]);
            }
        }
    }

    /// One turn for every thread: no loop, so that its start can be scheduled with what came before.
    fn all_turns(&mut self, var: Id, body: &[Stmt]) {
        let zero = self.int(0);
        self.push(Op::Bin(BinOp::Add, self.thread, zero), vec![var]);
        self.turn = Some((Par::Threads, var));
        self.block(body);
        self.turn = None;
    }
}
