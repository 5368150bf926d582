//! What turns of a loop keep for themselves: variables of a thread, or of each lane of a warp.

use super::lower::Lower;
use crate::ir::*;
use crate::report::Fault;

impl Lower {
    /// Variables of what a turn keeps: a thread has no more than its own turn has kept, a warp likewise.
    fn own_turn(&mut self, kept: usize, turn: Id, k: usize) -> Vec<Id> {
        let par = if matches!(self.p.kept[kept].ty, Ty::Scalar(_)) { Par::Threads } else { Par::Warps };
        if self.turn != Some((par, turn)) {
            self.fail(Fault::OtherTurn);
        }
        self.kept[kept][k].clone()
    }

    pub(super) fn keep(&mut self, kept: usize, turn: Id, k: usize, value: Id) {
        let vars = self.own_turn(kept, turn, k);
        let values = if self.lies(value) { self.tile(value) } else { vec![value] };
        for (var, value) in vars.into_iter().zip(values) {
            self.push(Op::VarSet(var, value), vec![]);
        }
    }

    pub(super) fn take_kept(&mut self, kept: usize, turn: Id, k: usize, outs: &[Id]) {
        let vars = self.own_turn(kept, turn, k);
        match self.p.kept[kept].ty {
            Ty::Scalar(_) => self.push(Op::VarGet(vars[0]), outs.to_vec()),
            ty => {
                let regs = vars.into_iter().map(|var| self.emit(Op::VarGet(var), ty.reg_dtype())).collect();
                self.set(outs[0], regs);
            }
        }
    }

    /// Variables of what the turns of this loop's warp keep: a lane is one of them.
    fn own_lane(&mut self, kept: usize, warp: Id, first: usize, n: usize) -> Vec<Id> {
        if self.turn != Some((Par::Warps, warp)) {
            self.fail(Fault::OtherTurn);
        }
        self.kept[kept][first..first + n].iter().flatten().copied().collect()
    }

    pub(super) fn kept_left(&mut self, kept: usize, warp: Id, first: usize, ty: Ty) -> Vec<Id> {
        let vars = self.own_lane(kept, warp, first, ty.regs());
        vars.into_iter().map(|var| self.emit(Op::VarGet(var), ty.reg_dtype())).collect()
    }

    pub(super) fn keep_acc(&mut self, kept: usize, warp: Id, first: usize, value: Id) {
        let values = self.tile(value);
        let vars = self.own_lane(kept, warp, first, values.len());
        for (var, value) in vars.into_iter().zip(values) {
            self.push(Op::VarSet(var, value), vec![]);
        }
    }
}
