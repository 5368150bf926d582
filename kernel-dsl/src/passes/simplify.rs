//! Removes statements whose results nobody reads, so that printed stages show what runs.

use crate::ir::*;
use std::collections::HashSet;

pub fn run(src: &Program) -> Program {
    let mut p = src.clone();
    loop {
        let mut used = HashSet::new();
        p.body.iter().for_each(|s| reads(s, &mut used));
        let before = count(&p.body);
        p.body = keep(std::mem::take(&mut p.body), &used);
        if count(&p.body) == before {
            return p;
        }
    }
}

fn count(stmts: &[Stmt]) -> usize {
    stmts.iter().map(|s| 1 + inner(&s.op).iter().map(|b| count(b)).sum::<usize>()).sum()
}

/// The regions of a statement.
pub fn inner(op: &Op) -> Vec<&Vec<Stmt>> {
    match op {
        Op::If { then, other, .. } => vec![then, other],
        Op::For { body, .. } | Op::ParFor { body, .. } => vec![body],
        _ => vec![],
    }
}

fn reads(s: &Stmt, used: &mut HashSet<Id>) {
    used.extend(operands(&s.op));
    for b in inner(&s.op) {
        b.iter().for_each(|s| reads(s, used));
    }
}

fn keep(stmts: Vec<Stmt>, used: &HashSet<Id>) -> Vec<Stmt> {
    let mut out = vec![];
    for mut s in stmts {
        match &mut s.op {
            Op::If { then, other, .. } => {
                *then = keep(std::mem::take(then), used);
                *other = keep(std::mem::take(other), used);
                if then.is_empty() && other.is_empty() {
                    continue;
                }
            }
            Op::For { body, .. } | Op::ParFor { body, .. } => *body = keep(std::mem::take(body), used),
            Op::VarSet(var, _) if !used.contains(var) => continue,
            op => {
                let effect = matches!(
                    op,
                    Op::VarSet(..)
                        | Op::Store { .. }
                        | Op::Prefetch { .. }
                        | Op::StoreVec { .. }
                        | Op::StoreTile { .. }
                        | Op::StoreHalves { .. }
                        | Op::StorePacked { .. }
                        | Op::StoreRight { .. }
                        | Op::StoreCores { .. }
                        | Op::AtomicAdd { .. }
                        | Op::PutBy { .. }
                        | Op::Keep { .. }
                        | Op::KeepAcc { .. }
                        | Op::Bring { .. }
                        | Op::Brought
                        | Op::CopyStart { .. }
                        | Op::CopyAsync { .. }
                        | Op::RingFetch { .. }
                        | Op::RingWait { .. }
                        | Op::Barrier
                        | Op::SyncWarp
                        | Op::CopyOver
                        | Op::AfterPrevious
                        | Op::ReleaseNext
                        | Op::Anew
                );
                if !effect && !s.outs.iter().any(|o| used.contains(o)) {
                    continue;
                }
            }
        }
        out.push(s);
    }
    out
}

/// Values an operation reads, regions apart.
pub fn operands(op: &Op) -> Vec<Id> {
    let of = |b: &Buf| if let Buf::Slot(_, id) = b { vec![*id] } else { vec![] };
    match op {
        Op::Const(_)
        | Op::BlockId(_)
        | Op::RowIndex
        | Op::VectorIndex
        | Op::Raise(_)
        | Op::PairIndex
        | Op::SpreadIndex
        | Op::LaneId
        | Op::ThreadId
        | Op::ThreadAnew
        | Op::BlockAnew(_)
        | Op::Anew
        | Op::RingWait { .. }
        | Op::Barrier
        | Op::SyncWarp
        | Op::CopyOver
        | Op::Brought
        | Op::AfterPrevious
        | Op::ReleaseNext => vec![],
        Op::Un(_, a)
        | Op::Cast(a)
        | Op::Bitcast(a)
        | Op::VarNew(a)
        | Op::VarGet(a)
        | Op::Full(a)
        | Op::Any(a)
        | Op::SumK(a)
        | Op::LaneTotals(a)
        | Op::FoldFours(a)
        | Op::InFours(a)
        | Op::SplitBytes(a)
        | Op::SplitHalves(a)
        | Op::SwapHalves(a)
        | Op::OwnHalves(a)
        | Op::SplitRows(a)
        | Op::SwapRows(a)
        | Op::TwiceRows(a)
        | Op::PairSums(a)
        | Op::QuadOrder(a)
        | Op::TwosOrder(a)
        | Op::ToOperand(a)
        | Op::Hadamard(a)
        | Op::ShflXor(a, _)
        | Op::Alike(a)
        | Op::MovMatrix(a)
        | Op::AnyLane(a)
        | Op::Ballot(a) => vec![*a],
        Op::BytesBeside(a, b) | Op::Bin(_, a, b) | Op::Prmt(a, b, _) | Op::Funnel(a, b, _) | Op::OfLane(a, b) => vec![*a, *b],
        // A write alone does not keep a variable alive.
        Op::VarSet(_, v) => vec![*v],
        Op::Fma(a, b, c) | Op::Select(a, b, c) | Op::Pick(a, b, c) => vec![*a, *b, *c],
        Op::Mma { a, b, c } => vec![*a, *b, *c],
        Op::MmaShared { a, buf, at, c, .. } => [of(buf), vec![*a, *at, *c]].concat(),
        Op::MmaLines(x) => [of(&x.a), of(&x.x), vec![x.at, x.x_at]].concat(),
        Op::MmaCores { a, buf, at, c, .. } => [of(buf), a.clone(), vec![*at], c.clone()].concat(),
        Op::MmaRaised { a, b, .. } => vec![*a, *b],
        Op::FoldOnto { src, start, .. } => vec![*src, *start],
        Op::Load { buf, at }
        | Op::Gather { buf, at }
        | Op::Peek { buf, at }
        | Op::Unpack { buf, at, .. }
        | Op::LoadOperand { buf, at, .. }
        | Op::LoadLeft { buf, at }
        | Op::LoadRight { buf, at }
        | Op::LoadSpread { buf, at }
        | Op::Marks { buf, at, .. }
        | Op::LoadLines { buf, at }
        | Op::LoadMatrices { buf, at, .. }
        | Op::LoadTile { buf, at, .. }
        | Op::LoadPairs { buf, at, .. }
        | Op::LoadHalves { buf, at, .. }
        | Op::LoadVec { buf, at, .. } => [of(buf), vec![*at]].concat(),
        Op::Store { buf, at, value }
        | Op::AtomicAdd { buf, at, value }
        | Op::StoreTile { buf, at, value, .. }
        | Op::StoreHalves { buf, at, value, .. }
        | Op::StorePacked { buf, at, value }
        | Op::StoreRight { buf, at, value, .. }
        | Op::StoreCores { buf, at, value, .. } => [of(buf), vec![*at, *value]].concat(),
        Op::PutBy { place, value, .. } => vec![*place, *value],
        Op::TakeUp { place, .. } => vec![*place],
        Op::Keep { turn, value, .. } => vec![*turn, *value],
        Op::Kept { turn, .. } => vec![*turn],
        Op::KeptLeft { warp, .. } => vec![*warp],
        Op::KeepAcc { warp, value, .. } => vec![*warp, *value],
        Op::StoreVec { buf, at, values } => [of(buf), vec![*at], values.clone()].concat(),
        Op::If { cond, .. } => vec![*cond],
        Op::For { lo, hi, step, .. } => vec![*lo, *hi, *step],
        Op::ParFor { count, .. } => vec![*count],
        Op::Call { args, .. } => args.clone(),
        Op::Reduce { src, .. } | Op::AnyRows { src, .. } | Op::FoldHalves { src, .. } | Op::FoldRows { src, .. } | Op::FoldCols { src, .. } | Op::Band { src, .. } => vec![*src],
        Op::Bring { buf, at, from, .. } => [of(buf), vec![*at, *from]].concat(),
        Op::Prefetch { at, bytes, .. } => std::iter::once(*at).chain(*bytes).collect(),
        Op::CopyStart { at, bytes, .. } | Op::CopyAsync { at, bytes, .. } => vec![*at, *bytes],
        Op::RingFetch { at, bytes, cond, .. } => vec![*at, *bytes, *cond],
        Op::MmaRegs { a, b, c, .. } => [a.clone(), b.clone(), c.clone()].concat(),
    }
}
