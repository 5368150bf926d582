//! Which operations each stage may hold, and where tiles may stand.

use super::*;
use crate::passes::simplify::inner;
use crate::report::{Fault, Report};

/// Tile IR: no registers of single lanes; tiles and copies only in a warp's program.
pub fn tile(p: &Program) -> Result<(), Report> {
    walk(&p.body, false, &|s, in_warp| {
        let thread_only = matches!(
            s.op,
            Op::LaneId
                | Op::ThreadId
                | Op::ThreadAnew
                | Op::BlockAnew(_)
                | Op::ShflXor(..)
                | Op::Alike(_)
                | Op::MovMatrix(_)
                | Op::LoadMatrices { .. }
                | Op::Prmt(..)
                | Op::MmaRegs { .. }
                | Op::MmaCores { .. }
                | Op::AnyLane(_)
                | Op::Ballot(_)
                | Op::Barrier
                | Op::AtomicAdd { .. }
        );
        if thread_only {
            return Some(Fault::StageOp { op: name(&s.op), stage: "tile" });
        }
        let warp_op = matches!(
            s.op,
            Op::CopyStart { .. }
                | Op::CopyAsync { .. }
                | Op::RingFetch { .. }
                | Op::RingWait { .. }
                | Op::StoreTile { .. }
                | Op::StoreHalves { .. }
                | Op::StorePacked { .. }
                | Op::StoreRight { .. }
                | Op::StoreCores { .. }
                | Op::PutBy { .. }
                | Op::KeepAcc { .. }
                | Op::SyncWarp
        ) || s.outs.iter().any(|o| matches!(p.ty(*o), Ty::Tile { .. }));
        (warp_op && !in_warp).then(|| Fault::TileOutsideWarp { op: name(&s.op) })
    })
}

/// Thread IR: scalars only.
pub fn thread(p: &Program) -> Result<(), Report> {
    walk(&p.body, false, &|s, _| {
        let tile = s.outs.iter().any(|o| matches!(p.ty(*o), Ty::Tile { .. }))
            || matches!(
                s.op,
                Op::ParFor { .. }
                    | Op::CopyStart { .. }
                    | Op::CopyAsync { .. }
                    | Op::StoreTile { .. }
                    | Op::StoreHalves { .. }
                    | Op::StorePacked { .. }
                    | Op::StoreRight { .. }
                    | Op::StoreCores { .. }
                    | Op::PutBy { .. }
                    | Op::Keep { .. }
                    | Op::Kept { .. }
                    | Op::KeptLeft { .. }
                    | Op::KeepAcc { .. }
                    | Op::Any(_)
            );
        tile.then(|| Fault::StageOp { op: name(&s.op), stage: "thread" })
    })
}

fn walk(stmts: &[Stmt], in_warp: bool, check: &dyn Fn(&Stmt, bool) -> Option<Fault>) -> Result<(), Report> {
    for s in stmts {
        if let Some(what) = check(s, in_warp) {
            return Err(Report { what, span: Some(s.span) });
        }
        let inside = in_warp || matches!(s.op, Op::ParFor { par: Par::Warps, .. });
        for b in inner(&s.op) {
            walk(b, inside, check)?;
        }
    }
    Ok(())
}

/// The operation's name without its operands.
pub fn name(op: &Op) -> String {
    let text = format!("{op:?}");
    text.split(['(', ' ', '{']).next().unwrap_or_default().to_string()
}
