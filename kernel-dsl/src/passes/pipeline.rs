//! Asynchronous copies run ahead of their loop: `stages - 1` of them are in flight while one is used.
//!
//! A loop of S stages that copies at an address computed from its variable, as its size may be, becomes: S - 1 fetches before
//! the loop, and in each turn one wait for the oldest copy and one fetch for the turn S - 1 ahead. The
//! ring is a queue, so the meaning stays: turn i reads what was copied from turn i's address.
//!
//! Through a ring whose copies are started before (`start`) a loop fetches nothing before its first turn: those fetches stand there.

use crate::dtype::DType;
use crate::ir::*;
use crate::passes::simplify::{inner, operands};
use crate::report::{Fault, Report};
use std::collections::{HashMap, HashSet};

pub fn run(src: &Program) -> Result<Program, Report> {
    let mut p = src.clone();
    let body = std::mem::take(&mut p.body);
    let early: Vec<bool> = (0..p.rings.len()).map(|ring| starts(&body, ring)).collect();
    p.body = region(&mut p, body, &early)?;
    Ok(p)
}

fn region(p: &mut Program, stmts: Vec<Stmt>, early: &[bool]) -> Result<Vec<Stmt>, Report> {
    let mut out = vec![];
    for mut s in stmts {
        let staged = matches!(s.op, Op::For { stages: 2.., .. });
        match &mut s.op {
            Op::If { then, other, .. } => {
                *then = region(p, std::mem::take(then), early)?;
                *other = region(p, std::mem::take(other), early)?;
            }
            Op::For { body, .. } | Op::ParFor { body, .. } => *body = region(p, std::mem::take(body), early)?,
            _ => {}
        }
        match s.op {
            Op::CopyStart { ring, src, at, bytes, ahead } => {
                copy_over(p, ring, s.span, &mut out);
                let cond = p.fresh(Ty::Scalar(DType::Bool));
                out.push(Stmt { op: Op::Const(1), outs: vec![cond], span: s.span });
                out.push(Stmt { op: Op::RingFetch { ring, src, at, bytes, cond, ahead }, outs: vec![], span: s.span });
            }
            _ if staged => split(p, s, early, &mut out)?,
            _ => out.push(s),
        }
    }
    Ok(out)
}

/// What was read and written in the ring's place comes before its copies.
fn copy_over(p: &Program, ring: usize, span: Span, out: &mut Vec<Stmt>) {
    if p.shared.iter().any(|a| a.over == Some(ring)) {
        out.push(Stmt { op: Op::CopyOver, outs: vec![], span });
    }
}

fn split(p: &mut Program, s: Stmt, early: &[bool], out: &mut Vec<Stmt>) -> Result<(), Report> {
    let span = s.span;
    let Op::For { var, lo, hi, step, stages, mut body } = s.op else { return Ok(()) };
    let fail = |why| Err(Report { what: Fault::PipelineSource { why }, span: Some(span) });
    let Some(at) = body.iter().position(|s| matches!(s.op, Op::CopyAsync { .. })) else { return fail("the loop holds no copy") };
    let Op::CopyAsync { ring, src, at: address, bytes } = body[at].op else { return Ok(()) };
    if copies(&body, ring) > 1 {
        return fail("the loop copies through its ring more than once");
    }
    let written = assigned(&body);
    let Some(slice) = slice_of(&body[..at], &[address, bytes], &written) else {
        return fail("its address depends on what the loop changes");
    };

    let scalar = |p: &mut Program, op, d, out: &mut Vec<Stmt>| {
        let id = p.fresh(Ty::Scalar(d));
        out.push(Stmt { op, outs: vec![id], span });
        id
    };
    // The fetch for the turn whose variable is `turn`: without a gap, so that what is waited for tells its slot.
    let fetch = |p: &mut Program, turn: Id, ahead: usize, out: &mut Vec<Stmt>| {
        let cond = scalar(p, Op::Bin(BinOp::Lt, turn, hi), DType::Bool, out);
        let mut map = HashMap::from([(var, turn)]);
        let mut guarded = vec![];
        for s in &slice {
            guarded.push(renamed(p, s, &mut map));
        }
        let [at, bytes] = [address, bytes].map(|id| map.get(&id).copied().unwrap_or(id));
        let yes = scalar(p, Op::Const(1), DType::Bool, &mut guarded);
        guarded.push(Stmt { op: Op::RingFetch { ring, src, at, bytes, cond: yes, ahead }, outs: vec![], span });
        out.push(Stmt { op: Op::If { cond, then: guarded, other: vec![] }, outs: vec![], span });
    };
    if !early[ring] {
        copy_over(p, ring, span, out);
    }
    let mut turn = lo;
    for i in 0..if early[ring] { 0 } else { stages - 1 } {
        if i > 0 {
            turn = scalar(p, Op::Bin(BinOp::Add, turn, step), DType::I32, out);
        }
        fetch(p, turn, i, out);
    }
    let handle = body[at].outs.clone();
    let ahead = scalar(p, Op::Const(stages as u64 - 1), DType::I32, out);
    let distance = scalar(p, Op::Bin(BinOp::Mul, step, ahead), DType::I32, out);
    let mut turns = vec![Stmt { op: Op::RingWait { ring }, outs: handle, span }];
    let next = scalar(p, Op::Bin(BinOp::Add, var, distance), DType::I32, &mut turns);
    // One copy of the stages is used, the others come before.
    fetch(p, next, stages - 2, &mut turns);
    body.remove(at);
    turns.extend(body);
    out.push(Stmt { op: Op::For { var, lo, hi, step, stages: 0, body: turns }, outs: vec![], span });
    Ok(())
}

/// What a loop changes: a fetch that reads it would come too early.
#[derive(Default)]
struct Written {
    vars: HashSet<Id>,
    memory: HashSet<Buf>,
}

fn assigned(stmts: &[Stmt]) -> Written {
    let mut w = Written::default();
    for s in stmts {
        match &s.op {
            Op::VarSet(v, _) => drop(w.vars.insert(*v)),
            Op::Store { buf, .. } | Op::Bring { buf, .. } | Op::StoreVec { buf, .. } | Op::StoreTile { buf, .. } | Op::StoreHalves { buf, .. } | Op::StorePacked { buf, .. } | Op::StoreRight { buf, .. } | Op::StoreCores { buf, .. } => {
                w.memory.insert(*buf);
            }
            _ => {}
        }
        for b in inner(&s.op) {
            let of = assigned(b);
            w.vars.extend(of.vars);
            w.memory.extend(of.memory);
        }
    }
    w
}

/// Whether a copy through `ring` is started before its loop.
fn starts(stmts: &[Stmt], ring: usize) -> bool {
    stmts.iter().any(|s| matches!(s.op, Op::CopyStart { ring: r, .. } if r == ring) || inner(&s.op).iter().any(|b| starts(b, ring)))
}

/// Copies through `ring`, however deep.
fn copies(stmts: &[Stmt], ring: usize) -> usize {
    let own = |s: &Stmt| usize::from(matches!(s.op, Op::CopyAsync { ring: r, .. } if r == ring));
    stmts.iter().map(|s| own(s) + inner(&s.op).iter().map(|b| copies(b, ring)).sum::<usize>()).sum()
}

/// The statements that `values` need, or None if one of them may not be repeated.
fn slice_of(stmts: &[Stmt], values: &[Id], written: &Written) -> Option<Vec<Stmt>> {
    let mut need: HashSet<Id> = values.iter().copied().collect();
    let mut slice = vec![];
    for s in stmts.iter().rev() {
        if !s.outs.iter().any(|o| need.contains(o)) {
            continue;
        }
        let repeatable = match &s.op {
            Op::VarGet(v) => !written.vars.contains(v),
            Op::Const(_) | Op::BlockId(_) | Op::Funnel(..) | Op::Pick(..) | Op::AddDot4(..) | Op::OfLane(..) | Op::Un(..) | Op::Bin(..) | Op::Fma(..) | Op::Select(..) | Op::Cast(_) | Op::Bitcast(_) => true,
            Op::Load { buf: buf @ (Buf::Param(_) | Buf::Shared(_)), .. } => !written.memory.contains(buf),
            _ => false,
        };
        if !repeatable {
            return None;
        }
        need.extend(operands(&s.op));
        slice.push(s.clone());
    }
    slice.reverse();
    Some(slice)
}

/// A copy of a pure statement with fresh results.
fn renamed(p: &mut Program, s: &Stmt, map: &mut HashMap<Id, Id>) -> Stmt {
    let m = |id: &Id| map.get(id).copied().unwrap_or(*id);
    let op = match &s.op {
        Op::Un(o, a) => Op::Un(*o, m(a)),
        Op::Bin(o, a, b) => Op::Bin(*o, m(a), m(b)),
        Op::Fma(a, b, c) => Op::Fma(m(a), m(b), m(c)),
        Op::Funnel(a, b, n) => Op::Funnel(m(a), m(b), *n),
        Op::Pick(a, b, s) => Op::Pick(m(a), m(b), m(s)),
        Op::AddDot4(a, b, c) => Op::AddDot4(m(a), m(b), m(c)),
        Op::OfLane(a, i) => Op::OfLane(m(a), m(i)),
        Op::Select(a, b, c) => Op::Select(m(a), m(b), m(c)),
        Op::Cast(a) => Op::Cast(m(a)),
        Op::Bitcast(a) => Op::Bitcast(m(a)),
        Op::VarGet(a) => Op::VarGet(m(a)),
        Op::Load { buf, at } => Op::Load { buf: *buf, at: m(at) },
        other => other.clone(),
    };
    let outs = s
        .outs
        .iter()
        .map(|o| {
            let fresh = p.fresh(p.ty(*o));
            map.insert(*o, fresh);
            fresh
        })
        .collect();
    Stmt { op, outs, span: s.span }
}
