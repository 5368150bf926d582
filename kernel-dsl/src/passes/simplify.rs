//! Removes statements whose results nobody reads, so that printed stages show what runs.

use crate::ir::*;

pub fn run(mut p: Program) -> Program {
    let mut uses = Uses(vec![0; p.types.len()]);
    uses.count(&p.body);
    // Once, and again where a loop changes a variable that only what went had read.
    while uses.sweep(&mut p.body) {}
    p
}

/// How often each value is read.
struct Uses(Vec<u32>);

impl Uses {
    fn count(&mut self, stmts: &[Stmt]) {
        for s in stmts {
            each_operand(&s.op, |id| self.0[id as usize] += 1);
            inner(&s.op).into_iter().for_each(|b| self.count(b));
        }
    }

    /// Drops statements, the last one first: what only they read goes in the same sweep. Whether any went.
    fn sweep(&mut self, stmts: &mut Vec<Stmt>) -> bool {
        let (mut stay, mut any) = (vec![true; stmts.len()], false);
        for (s, stays) in stmts.iter_mut().zip(&mut stay).rev() {
            match &mut s.op {
                Op::If { then, other, .. } => any |= self.sweep(other) | self.sweep(then),
                Op::For { body, .. } | Op::ParFor { body, .. } => any |= self.sweep(body),
                _ => {}
            }
            if !self.needs(s) {
                each_operand(&s.op, |id| self.0[id as usize] -= 1);
                (*stays, any) = (false, true);
            }
        }
        let mut stay = stay.into_iter();
        stmts.retain(|_| stay.next() == Some(true));
        any
    }

    fn needs(&self, s: &Stmt) -> bool {
        let read = |id: &Id| self.0[*id as usize] > 0;
        match &s.op {
            Op::If { then, other, .. } => !then.is_empty() || !other.is_empty(),
            Op::VarSet(var, _) => read(var),
            op => effect(op) || s.outs.iter().any(read),
        }
    }
}

/// What runs whoever reads its results.
fn effect(op: &Op) -> bool {
    matches!(
        op,
        Op::For { .. }
            | Op::ParFor { .. }
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
    )
}

/// The regions of a statement.
pub fn inner(op: &Op) -> Vec<&Vec<Stmt>> {
    match op {
        Op::If { then, other, .. } => vec![then, other],
        Op::For { body, .. } | Op::ParFor { body, .. } => vec![body],
        _ => vec![],
    }
}

/// Values an operation reads, regions apart.
pub fn operands(op: &Op) -> Vec<Id> {
    let mut all = vec![];
    each_operand(op, |id| all.push(id));
    all
}

/// Likewise, one after the other.
fn each_operand(op: &Op, mut f: impl FnMut(Id)) {
    let mut see = |buf: Option<&Buf>, ids: &[Id]| {
        if let Some(Buf::Slot(_, id)) = buf {
            f(*id);
        }
        ids.iter().for_each(|id| f(*id));
    };
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
        | Op::ReleaseNext => {}
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
        | Op::LeftHalves(a)
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
        | Op::Ballot(a) => see(None, &[*a]),
        Op::BytesBeside(a, b) | Op::Bin(_, a, b) | Op::Prmt(a, b, _) | Op::Funnel(a, b, _) | Op::OfLane(a, b) => see(None, &[*a, *b]),
        // A write alone does not keep a variable alive.
        Op::VarSet(_, v) => see(None, &[*v]),
        Op::Fma(a, b, c) | Op::Select(a, b, c) | Op::Pick(a, b, c) | Op::AddDot4(a, b, c) => see(None, &[*a, *b, *c]),
        Op::Mma { a, b, c } => see(None, &[*a, *b, *c]),
        Op::MmaShared { a, buf, at, c, .. } => see(Some(buf), &[*a, *at, *c]),
        Op::MmaLines(x) => {
            see(Some(&x.a), &[x.at]);
            see(Some(&x.x), &[x.x_at]);
        }
        Op::MmaCores { a, buf, at, c, .. } => {
            see(Some(buf), a);
            see(None, &[*at]);
            see(None, c);
        }
        Op::MmaRaised { a, b, .. } => see(None, &[*a, *b]),
        Op::FoldOnto { src, start, .. } => see(None, &[*src, *start]),
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
        | Op::LoadAlike { buf, at }
        | Op::LoadPairs { buf, at, .. }
        | Op::LoadHalves { buf, at, .. }
        | Op::LoadVec { buf, at, .. } => see(Some(buf), &[*at]),
        Op::Lengths { buf, at, pairs } => see(Some(buf), &[*at, *pairs]),
        Op::Store { buf, at, value }
        | Op::AtomicAdd { buf, at, value }
        | Op::StoreTile { buf, at, value, .. }
        | Op::StoreHalves { buf, at, value, .. }
        | Op::StorePacked { buf, at, value }
        | Op::StoreRight { buf, at, value, .. }
        | Op::StoreCores { buf, at, value, .. } => see(Some(buf), &[*at, *value]),
        Op::PutBy { place, value, .. } => see(None, &[*place, *value]),
        Op::TakeUp { place, .. } => see(None, &[*place]),
        Op::Keep { turn, value, .. } => see(None, &[*turn, *value]),
        Op::Kept { turn, .. } => see(None, &[*turn]),
        Op::KeptLeft { warp, .. } => see(None, &[*warp]),
        Op::KeepAcc { warp, value, .. } => see(None, &[*warp, *value]),
        Op::StoreVec { buf, at, values } => {
            see(Some(buf), &[*at]);
            see(None, values);
        }
        Op::If { cond, .. } => see(None, &[*cond]),
        Op::For { lo, hi, step, .. } => see(None, &[*lo, *hi, *step]),
        Op::ParFor { count, .. } => see(None, &[*count]),
        Op::Call { args, .. } => see(None, args),
        Op::Reduce { src, .. } | Op::AnyRows { src, .. } | Op::FoldHalves { src, .. } | Op::FoldRows { src, .. } | Op::FoldCols { src, .. } | Op::Band { src, .. } => see(None, &[*src]),
        Op::Bring { buf, at, from, .. } => see(Some(buf), &[*at, *from]),
        Op::Prefetch { at, bytes, .. } => {
            see(None, &[*at]);
            see(None, bytes.as_slice());
        }
        Op::CopyStart { at, bytes, .. } | Op::CopyAsync { at, bytes, .. } => see(None, &[*at, *bytes]),
        Op::RingFetch { at, bytes, cond, .. } => see(None, &[*at, *bytes, *cond]),
        Op::MmaRegs { a, b, c, .. } => [a, b, c].into_iter().for_each(|ids| see(None, ids)),
    }
}
