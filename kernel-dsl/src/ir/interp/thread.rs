//! Thread IR: the whole block in lockstep. A value is a vector over all threads, control flow a mask.
//!
//! Lockstep hides races, so shared memory has a [`Shadow`]; an operation that joins the lanes of a warp or the
//! threads of the block must be reached by all of them.

use super::memory::{self, POISON, Region};
use super::shadow::Shadow;
use super::trap::{Trap, Wrong};
use super::{Stage, scalar, warp};
use crate::dtype::DType;
use crate::ir::*;
use std::collections::VecDeque;

/// Active lanes of each warp.
pub type Mask = [u32; 32];

/// One warp's side of a ring.
#[derive(Clone, Default)]
struct Queue {
    /// Copies fetched and waited for so far; copy n lies in slot n modulo the stages.
    fetched: usize,
    waited: usize,
    in_flight: VecDeque<Vec<u8>>,
}

pub struct Machine<'a> {
    pub(super) p: &'a Program,
    scalars: Vec<(Id, u64)>,
    block: [u32; 3],
    pub(super) warps: usize,
    /// [value, thread]
    values: Vec<u64>,
    known: Vec<bool>,
    shared: Vec<u8>,
    shadow: Shadow,
    /// [ring, warp]
    rings: Vec<Vec<Queue>>,
}

/// Where an access goes.
enum Place {
    Param(usize, usize),
    Shared(usize),
}

impl<'a> Machine<'a> {
    pub fn new(p: &'a Program, scalars: Vec<(Id, u64)>) -> Machine<'a> {
        Machine {
            p,
            scalars,
            block: [0; 3],
            warps: p.warps,
            values: vec![0; p.types.len() * p.threads()],
            known: vec![],
            shared: vec![],
            shadow: Shadow::new(p.shared_bytes, p.warps),
            rings: vec![],
        }
    }

}

impl Stage for Machine<'_> {
    fn block(&mut self, block: [u32; 3], buffers: &mut [Region]) -> Result<(), Trap> {
        let p = self.p;
        self.block = block;
        self.known = vec![false; p.types.len()];
        self.shared = vec![POISON; p.shared_bytes];
        self.shadow.barrier();
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
            let copies: usize = queues.iter().map(|q| q.in_flight.len()).sum();
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
                        self.map(mask, *param, [*arg], |[a]| Ok(a)).map_err(|w| self.trap(w, s.span))?;
                    }
                    self.region(&f.body, mask, buffers)?;
                    for (out, result) in s.outs.iter().zip(&f.results) {
                        self.map(mask, *out, [*result], |[a]| Ok(a)).map_err(|w| self.trap(w, s.span))?;
                    }
                }
                _ => self.stmt(s, mask, buffers).map_err(|w| self.trap(w, s.span))?,
            }
        }
        Ok(())
    }

    fn repeat(&mut self, (var, lo, hi, step): (Id, Id, Id, Id), body: &[Stmt], span: Span, mask: &Mask, buffers: &mut [Region]) -> Result<(), Trap> {
        let i32_of = |bits| scalar::int(DType::I32, bits);
        self.map(mask, var, [lo], |[a]| Ok(a)).map_err(|w| self.trap(w, span))?;
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
            let turn = self.map(&active, var, [var, step], |[at, step]| match i32_of(step) {
                step @ ..=0 => Err(Wrong::Step { step }),
                step => Ok(scalar::truncated(DType::I32, (i32_of(at) + step) as u64)),
            });
            turn.map_err(|w| self.trap(w, span))?;
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

    /// `out = f(ins)` in each active thread.
    fn map<const N: usize>(&mut self, mask: &Mask, out: Id, ins: [Id; N], f: impl Fn([u64; N]) -> Result<u64, Wrong>) -> Result<(), Wrong> {
        self.needs(&ins)?;
        self.defines(&[out]);
        for thread in threads(mask) {
            let bits = f(ins.map(|id| self.get(id, thread)))?;
            self.set(out, thread, bits);
        }
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
        let d = |id: Id| self.p.ty(id).dtype();
        let out = s.outs.first().copied().unwrap_or_default();
        match &s.op {
            Op::Const(bits) => {
                let bits = scalar::truncated(d(out), *bits);
                self.map(mask, out, [], |[]| Ok(bits))
            }
            Op::BlockId(axis) => {
                let bits = u64::from(self.block[*axis]);
                self.map(mask, out, [], |[]| Ok(bits))
            }
            Op::LaneId | Op::ThreadId => {
                self.defines(&[out]);
                let last = if s.op == Op::LaneId { 31 } else { usize::MAX };
                threads(mask).for_each(|thread| self.set(out, thread, (thread & last) as u64));
                Ok(())
            }
            Op::Un(op, a) => {
                let (op, da) = (*op, d(*a));
                self.map(mask, out, [*a], |[a]| scalar::unary(op, da, a))
            }
            Op::Bin(op, a, b) => {
                let (op, da, db) = (*op, d(*a), d(*b));
                self.map(mask, out, [*a, *b], |[a, b]| scalar::binary(op, (da, a), (db, b)))
            }
            Op::Fma(a, b, c) => {
                let da = d(*a);
                self.map(mask, out, [*a, *b, *c], |[a, b, c]| scalar::fma(da, a, b, c))
            }
            Op::Funnel(a, b, n) => self.map(mask, out, [*a, *b], |[a, b]| Ok(scalar::funnel(a, b, *n))),
            Op::Select(c, a, b) => self.map(mask, out, [*c, *a, *b], |[c, a, b]| Ok(if c & 1 != 0 { a } else { b })),
            Op::Cast(a) => {
                let (from, to) = (d(*a), d(out));
                self.map(mask, out, [*a], |[a]| scalar::cast(from, to, a))
            }
            Op::Bitcast(a) => {
                let (from, to) = (d(*a), d(out));
                self.map(mask, out, [*a], |[a]| scalar::bitcast(from, to, a))
            }
            Op::Prmt(a, b, selector) => self.map(mask, out, [*a, *b], |[a, b]| Ok(scalar::prmt(a, b, *selector))),
            Op::VarNew(a) | Op::VarGet(a) => self.map(mask, out, [*a], |[a]| Ok(a)),
            Op::VarSet(var, a) => {
                self.needs(&[*var])?;
                self.map(mask, *var, [*a], |[a]| Ok(a))
            }
            Op::Load { buf, at } => self.load(mask, buf, *at, d(out).size(), &s.outs, buffers),
            Op::LoadVec { buf, at, words } => self.load(mask, buf, *at, 4 * words, &s.outs, buffers),
            Op::Store { buf, at, value } => self.store(mask, buf, *at, &[*value], buffers),
            Op::StoreVec { buf, at, values } => self.store(mask, buf, *at, values, buffers),
            Op::RingFetch { ring, src, at, cond } => self.fetch(mask, *ring, &buffers[*src], *at, *cond),
            Op::RingWait { ring } => self.wait(mask, *ring, out),
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

    /// Where `size` bytes at offset `at` of a buffer lie for one thread.
    fn place(&self, buf: &Buf, at: Id, size: usize, thread: usize, buffers: &[Region]) -> Result<Place, Wrong> {
        let offset = scalar::int(self.p.ty(at).dtype(), self.get(at, thread));
        match buf {
            Buf::Param(i) => Ok(Place::Param(*i, buffers[*i].range(offset, size, size)?)),
            Buf::Shared(i) => {
                let a = &self.p.shared[*i];
                let name = format!("shared array {i}");
                Ok(Place::Shared(a.offset + memory::checked(&name, a.len * a.dtype.size(), offset, size, size)?))
            }
            Buf::Slot(ring, handle) => {
                let (r, queue) = (&self.p.rings[*ring], &self.rings[*ring][thread / 32]);
                if self.get(*handle, thread) as usize != queue.waited {
                    return Err(Wrong::StaleSlot { ring: *ring });
                }
                let name = format!("page of ring {ring}");
                Ok(Place::Shared(self.slot(*ring, thread / 32, queue.waited - 1) + memory::checked(&name, r.bytes, offset, size, size)?))
            }
        }
    }

    fn load(&mut self, mask: &Mask, buf: &Buf, at: Id, size: usize, outs: &[Id], buffers: &[Region]) -> Result<(), Wrong> {
        self.needs(&[at])?;
        if let Buf::Slot(_, handle) = buf {
            self.needs(&[*handle])?;
        }
        self.defines(outs);
        let each = size / outs.len();
        for thread in threads(mask) {
            let place = self.place(buf, at, size, thread, buffers)?;
            if let Place::Shared(i) = place {
                self.shadow.read(i, size, thread)?;
            }
            for (n, out) in outs.iter().enumerate() {
                let bits = match place {
                    Place::Param(b, i) => memory::read(&buffers[b].bytes, i + n * each, each),
                    Place::Shared(i) => memory::read(&self.shared, i + n * each, each),
                };
                self.set(*out, thread, scalar::truncated(self.p.ty(*out).dtype(), bits));
            }
        }
        Ok(())
    }

    fn store(&mut self, mask: &Mask, buf: &Buf, at: Id, values: &[Id], buffers: &mut [Region]) -> Result<(), Wrong> {
        self.needs(&[at])?;
        self.needs(values)?;
        let each = self.p.ty(values[0]).dtype().size();
        let size = each * values.len();
        for thread in threads(mask) {
            let new: Vec<u8> = values.iter().flat_map(|v| self.get(*v, thread).to_le_bytes().into_iter().take(each)).collect();
            match self.place(buf, at, size, thread, buffers)? {
                Place::Param(b, i) => {
                    buffers[b].room(i as i64, size, size)?;
                    buffers[b].bytes[i..i + size].copy_from_slice(&new);
                }
                Place::Shared(i) => {
                    let shared = &mut self.shared;
                    self.shadow.write(i, size, thread, |at| shared[at] == new[at - i])?;
                    shared[i..i + size].copy_from_slice(&new);
                }
            }
        }
        Ok(())
    }

    /// First byte of the slot of a warp's copy `n`.
    fn slot(&self, ring: usize, warp: usize, n: usize) -> usize {
        let r = &self.p.rings[ring];
        r.offset + (warp * r.stages + n % r.stages) * r.bytes
    }

    fn fetch(&mut self, mask: &Mask, ring: usize, src: &Region, at: Id, cond: Id) -> Result<(), Wrong> {
        self.needs(&[at, cond])?;
        let (stages, bytes) = (self.p.rings[ring].stages, self.p.rings[ring].bytes);
        for w in self.whole_warps(mask, "RingFetch")? {
            if (1..32).any(|l| [at, cond].iter().any(|id| self.get(*id, w * 32 + l) != self.get(*id, w * 32))) {
                return Err(Wrong::Uneven { op: "RingFetch".into() });
            }
            if self.get(cond, w * 32) & 1 == 0 {
                continue;
            }
            let from = src.range(scalar::int(self.p.ty(at).dtype(), self.get(at, w * 32)), bytes, 16)?;
            let n = self.rings[ring][w].fetched;
            // The page waited for last keeps its slot.
            if n - self.rings[ring][w].waited.saturating_sub(1) >= stages {
                return Err(Wrong::RingFull { ring, stages });
            }
            let slot = self.slot(ring, w, n);
            self.shadow.copy_starts(slot, bytes, w)?;
            self.shared[slot..slot + bytes].fill(POISON);
            let queue = &mut self.rings[ring][w];
            queue.in_flight.push_back(src.bytes[from..from + bytes].to_vec());
            queue.fetched += 1;
        }
        Ok(())
    }

    fn wait(&mut self, mask: &Mask, ring: usize, handle: Id) -> Result<(), Wrong> {
        self.defines(&[handle]);
        for w in self.whole_warps(mask, "RingWait")? {
            let queue = &mut self.rings[ring][w];
            let Some(page) = queue.in_flight.pop_front() else { return Err(Wrong::RingEmpty { ring }) };
            queue.waited += 1;
            let n = queue.waited;
            let slot = self.slot(ring, w, n - 1);
            self.shared[slot..slot + page.len()].copy_from_slice(&page);
            self.shadow.copy_ends(slot, page.len(), w);
            if n > 1 {
                let over = self.slot(ring, w, n - 2);
                self.shared[over..over + page.len()].fill(POISON);
            }
            (0..32).for_each(|l| self.set(handle, w * 32 + l, n as u64));
        }
        Ok(())
    }
}

/// The threads of a mask, in order.
pub(super) fn threads(mask: &Mask) -> impl Iterator<Item = usize> + use<> {
    let mask = *mask;
    (0..32).filter(move |w| mask[*w] != 0).flat_map(move |w| (0..32).filter(move |l| mask[w] >> l & 1 != 0).map(move |l| w * 32 + l))
}
