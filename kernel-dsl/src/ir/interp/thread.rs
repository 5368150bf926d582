//! Thread IR: the whole block in lockstep. A value is a vector over all threads, control flow a mask.
//!
//! Lockstep hides races, so shared memory has a [`Shadow`]; an operation that joins the lanes of a warp or the
//! threads of the block must be reached by all of them.

use super::cores::Cores;
use super::element::Element;
use super::memory::{POISON, Region};
use super::shadow::Shadow;
use super::thread_memory::Queue;
use super::trap::{Trap, Wrong};
use super::{Stage, scalar, warp};
use crate::dtype::DType;
use crate::ir::*;

/// Active lanes of each warp.
pub type Mask = [u32; 32];

pub struct Machine<'a> {
    pub(super) p: &'a Program,
    scalars: Vec<(Id, u64)>,
    block: [u32; 3],
    pub(super) warps: usize,
    /// [value, thread]
    values: Vec<u64>,
    known: Vec<bool>,
    pub(super) shared: Vec<u8>,
    pub(super) shadow: Shadow,
    /// [own][thread]: what it has put by.
    pub(super) own: Vec<Vec<u8>>,
    /// [ring, warp]
    pub(super) rings: Vec<Vec<Queue>>,
    /// [thread]: places of 16 bytes each that it sent for.
    pub(super) sent_for: Vec<Vec<usize>>,
}

impl<'a> Machine<'a> {
    pub fn new(p: &'a Program, scalars: Vec<(Id, u64)>) -> Machine<'a> {
        Machine { p, scalars, block: [0; 3], warps: p.warps, values: vec![0; p.types.len() * p.threads()], known: vec![], shared: vec![], shadow: Shadow::new(p.shared_bytes, p.warps), own: vec![], rings: vec![], sent_for: vec![] }
    }
}

impl Stage for Machine<'_> {
    fn block(&mut self, block: [u32; 3], buffers: &mut [Region]) -> Result<(), Trap> {
        let p = self.p;
        self.block = block;
        self.known = vec![false; p.types.len()];
        self.shared = vec![POISON; p.shared_bytes];
        self.own = p.own.iter().map(|own| vec![POISON; own.places * own.bytes() * p.threads()]).collect();
        self.shadow.barrier();
        self.sent_for = vec![vec![]; p.threads()];
        self.rings = p.rings.iter().map(|_| vec![Queue::default(); p.warps]).collect();
        let mut mask = [0; 32];
        mask[..self.warps].fill(u32::MAX);
        for (id, bits) in self.scalars.clone() {
            self.known[id as usize] = true;
            let at = id as usize * p.threads();
            self.values[at..at + p.threads()].fill(bits);
        }
        self.region(&p.body, &mask, buffers)?;
        for (ring, queues) in self.rings.iter().enumerate() {
            let copies: usize = queues.iter().map(|q| q.left()).sum();
            if copies > 0 {
                return Err(self.trap(Wrong::RingLeft { ring, copies }, Span { file: "", line: 0 }));
            }
        }
        Ok(())
    }
}

impl Machine<'_> {
    fn trap(&self, what: Wrong, span: Span) -> Trap {
        Trap { what, span, block: self.block }
    }

    fn region(&mut self, stmts: &[Stmt], mask: &Mask, buffers: &mut [Region]) -> Result<(), Trap> {
        for s in stmts {
            match &s.op {
                Op::If { cond, then, other } => {
                    let yes = self.narrowed(mask, *cond).map_err(|w| self.trap(w, s.span))?;
                    let mut no = *mask;
                    no.iter_mut().zip(yes).for_each(|(n, y)| *n &= !y);
                    for (region, mask) in [(then, yes), (other, no)] {
                        if mask != [0; 32] {
                            self.region(region, &mask, buffers)?;
                        }
                    }
                }
                Op::For { var, lo, hi, step, body, .. } => self.repeat((*var, *lo, *hi, *step), body, s.span, mask, buffers)?,
                Op::Call { func, args } => {
                    let f = &self.p.funcs[*func];
                    for (param, arg) in f.params.iter().zip(args) {
                        self.copy(mask, *param, *arg).map_err(|w| self.trap(w, s.span))?;
                    }
                    self.region(&f.body, mask, buffers)?;
                    for (out, result) in s.outs.iter().zip(&f.results) {
                        self.copy(mask, *out, *result).map_err(|w| self.trap(w, s.span))?;
                    }
                }
                _ => self.stmt(s, mask, buffers).map_err(|w| self.trap(w, s.span))?,
            }
        }
        Ok(())
    }

    fn repeat(&mut self, (var, lo, hi, step): (Id, Id, Id, Id), body: &[Stmt], span: Span, mask: &Mask, buffers: &mut [Region]) -> Result<(), Trap> {
        let i32_of = |bits| scalar::int(DType::I32, bits);
        self.needs(&[hi, step]).and_then(|()| self.copy(mask, var, lo)).map_err(|w| self.trap(w, span))?;
        let mut active = *mask;
        loop {
            let mut next = [0; 32];
            for thread in threads(&active) {
                if i32_of(self.get(var, thread)) < i32_of(self.get(hi, thread)) {
                    next[thread / 32] |= 1 << (thread % 32);
                }
            }
            active = next;
            if active == [0; 32] {
                return Ok(());
            }
            self.region(body, &active, buffers)?;
            for thread in threads(&active) {
                let by = i32_of(self.get(step, thread));
                if by <= 0 {
                    return Err(self.trap(Wrong::Step { step: by }, span));
                }
                let next = i32_of(self.get(var, thread)) + by;
                self.set(var, thread, scalar::truncated(DType::I32, next as u64));
            }
        }
    }

    pub(super) fn get(&self, id: Id, thread: usize) -> u64 {
        self.values[id as usize * self.p.threads() + thread]
    }

    pub(super) fn set(&mut self, id: Id, thread: usize, bits: u64) {
        self.values[id as usize * self.p.threads() + thread] = bits;
    }

    /// Fails unless the values were computed somewhere before.
    pub(super) fn needs(&self, ids: &[Id]) -> Result<(), Wrong> {
        match ids.iter().find(|id| !self.known[**id as usize]) {
            Some(id) => Err(Wrong::Undefined { id: *id }),
            None => Ok(()),
        }
    }

    pub(super) fn defines(&mut self, ids: &[Id]) {
        ids.iter().for_each(|id| self.known[*id as usize] = true);
    }

    /// An element-wise statement in each active thread.
    fn map(&mut self, mask: &Mask, e: &Element) -> Result<(), Wrong> {
        self.needs(e.operands())?;
        self.defines(&[e.out]);
        for thread in threads(mask) {
            let mut bits = [0; 3];
            bits.iter_mut().zip(e.operands()).for_each(|(b, id)| *b = self.get(*id, thread));
            let result = e.eval(bits)?;
            self.set(e.out, thread, result);
        }
        Ok(())
    }

    fn copy(&mut self, mask: &Mask, to: Id, from: Id) -> Result<(), Wrong> {
        self.needs(&[from])?;
        self.defines(&[to]);
        threads(mask).for_each(|thread| self.set(to, thread, self.get(from, thread)));
        Ok(())
    }

    /// The threads of `mask` whose `cond` holds.
    fn narrowed(&self, mask: &Mask, cond: Id) -> Result<Mask, Wrong> {
        self.needs(&[cond])?;
        let mut yes = [0; 32];
        for thread in threads(mask) {
            yes[thread / 32] |= (self.get(cond, thread) as u32 & 1) << (thread % 32);
        }
        Ok(yes)
    }

    fn stmt(&mut self, s: &Stmt, mask: &Mask, buffers: &mut [Region]) -> Result<(), Wrong> {
        if let Some(e) = Element::of(self.p, s) {
            return self.map(mask, &e);
        }
        let out = s.outs.first().copied().unwrap_or_default();
        match &s.op {
            Op::BlockId(axis) | Op::BlockAnew(axis) => {
                self.defines(&[out]);
                let bits = u64::from(self.block[*axis]);
                threads(mask).for_each(|thread| self.set(out, thread, bits));
                Ok(())
            }
            Op::LaneId | Op::ThreadId | Op::ThreadAnew => {
                self.defines(&[out]);
                let last = if s.op == Op::LaneId { 31 } else { usize::MAX };
                threads(mask).for_each(|thread| self.set(out, thread, (thread & last) as u64));
                Ok(())
            }
            Op::VarNew(a) | Op::VarGet(a) => self.copy(mask, out, *a),
            Op::VarSet(var, a) => {
                self.needs(&[*var])?;
                self.copy(mask, *var, *a)
            }
            Op::Load { buf, at } | Op::Peek { buf, at } => self.load(mask, buf, *at, self.p.ty(out).dtype().size(), &s.outs, buffers),
            Op::LoadVec { buf, at, words } => self.load(mask, buf, *at, 4 * words, &s.outs, buffers),
            Op::Prefetch { buf: Buf::Param(buf), at, bytes } => self.prefetch(mask, &buffers[*buf], *at, *bytes),
            Op::LoadMatrices { buf, at, turned } => self.load_matrices(mask, buf, *at, *turned, &s.outs, buffers),
            Op::MmaLines(x) => self.mma_lines(mask, x, &s.outs),
            Op::MmaCores { kind, a, steps, buf, at, stride, c } => self.mma_cores(mask, &Cores { kind: *kind, a, steps: *steps, buf, at: *at, stride: *stride, c }, &s.outs),
            Op::Store { buf, at, value } => self.store(mask, buf, *at, &[*value], buffers),
            Op::StoreVec { buf, at, values } => self.store(mask, buf, *at, values, buffers),
            Op::Bring { buf, at, src, from } => self.bring(mask, buf, *at, *src, *from, buffers),
            Op::Brought => {
                self.brought(mask);
                Ok(())
            }
            Op::AtomicAdd { buf, at, value } => self.add(mask, buf, *at, *value, buffers),
            Op::RingFetch { ring, src, at, bytes, cond, ahead } => self.fetch(mask, *ring, &buffers[*src], [*at, *bytes, *cond], *ahead),
            Op::RingWait { ring } => self.wait(mask, *ring, out),
            Op::AfterPrevious | Op::ReleaseNext => Ok(()),
            Op::CopyOver => {
                threads(mask).for_each(|thread| self.shadow.fence(thread));
                Ok(())
            }
            Op::Barrier => {
                if mask[..self.warps].iter().any(|m| *m != u32::MAX) {
                    return Err(Wrong::Diverged { op: "Barrier".into() });
                }
                self.shadow.barrier();
                Ok(())
            }
            Op::SyncWarp => {
                for w in self.whole_warps(mask, "SyncWarp")? {
                    self.shadow.sync_warp(w);
                }
                Ok(())
            }
            op => warp::stmt(self, op, &s.outs, mask),
        }
    }

    /// The active warps, all of whose lanes must be.
    pub(super) fn whole_warps(&self, mask: &Mask, op: &str) -> Result<Vec<usize>, Wrong> {
        let active: Vec<usize> = (0..self.warps).filter(|w| mask[*w] != 0).collect();
        if active.iter().all(|w| mask[*w] == u32::MAX) { Ok(active) } else { Err(Wrong::Diverged { op: op.into() }) }
    }
}

/// The threads of a mask, in order.
pub(super) fn threads(mask: &Mask) -> impl Iterator<Item = usize> + use<> {
    let mask = *mask;
    (0..32).filter(move |w| mask[*w] != 0).flat_map(move |w| (0..32).filter(move |l| mask[w] >> l & 1 != 0).map(move |l| w * 32 + l))
}
