//! Rows of eight columns whose halves are the same, whatever happens: one register of a lane holds both, see [`super::lower_halves`].

use crate::ir::*;

/// Of each value, whether it is such a row. Scalars are alike as well.
pub fn run(p: &Program, body: &[Stmt]) -> Vec<bool> {
    let may = |ty: &Ty| matches!(ty, Ty::Scalar(_) | Ty::Tile { cols: 8, layout: Layout::Cols, .. });
    let mut alike: Vec<bool> = p.types.iter().map(may).collect();
    // All are, up to what contradicts: a variable is what each of its values is.
    while contradicted(p, body, &mut alike) {}
    alike
}

fn contradicted(p: &Program, stmts: &[Stmt], alike: &mut [bool]) -> bool {
    let mut any = false;
    let mut lose = |alike: &mut [bool], id: Id| {
        any |= alike[id as usize];
        alike[id as usize] = false;
    };
    let mut within = vec![];
    for s in stmts {
        let is = |id: &Id| alike[*id as usize];
        let stays = match &s.op {
            Op::If { then, other, .. } => {
                within.extend([then, other]);
                true
            }
            Op::For { body, .. } | Op::ParFor { body, .. } => {
                within.push(body);
                true
            }
            Op::VarSet(var, value) => {
                if !is(value) {
                    lose(alike, *var);
                }
                true
            }
            Op::Full(_) | Op::LeftHalves(_) | Op::FoldHalves { .. } | Op::AnyRows { pairs: true, .. } => true,
            Op::Un(_, a) | Op::Cast(a) | Op::Bitcast(a) | Op::VarNew(a) | Op::VarGet(a) => is(a),
            Op::Bin(_, a, b) => is(a) && is(b),
            Op::Fma(a, b, c) | Op::Select(a, b, c) => is(a) && is(b) && is(c),
            _ => false,
        };
        if !stays {
            let rows = s.outs.iter().filter(|out| matches!(p.ty(**out), Ty::Tile { .. }));
            rows.for_each(|out| lose(alike, *out));
        }
    }
    for body in within {
        any |= contradicted(p, body, alike);
    }
    any
}
