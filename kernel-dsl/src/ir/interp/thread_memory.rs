//! Loads, stores and copies at thread stage. Shared memory is one array, as on the device.

use super::memory::{self, POISON, Region};
use super::scalar;
use super::thread::{Machine, Mask, threads};
use super::trap::Wrong;
use crate::ir::{Buf, Id};
use std::collections::VecDeque;

/// One warp's side of a ring.
#[derive(Clone, Default)]
pub struct Queue {
    /// Copies fetched and waited for so far; copy n lies in slot n modulo the stages.
    fetched: usize,
    waited: usize,
    in_flight: VecDeque<Vec<u8>>,
    /// Bytes of the page waited for last.
    len: usize,
}

impl Queue {
    pub fn left(&self) -> usize {
        self.in_flight.len()
    }
}

/// Where an access goes.
enum Place {
    Param(usize, usize),
    Shared(usize),
    Own(usize, usize),
}

impl Machine<'_> {
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
            Buf::Own(i) => {
                let each = self.p.own[*i].places * self.p.own[*i].bytes();
                Ok(Place::Own(*i, thread * each + memory::checked("tiles put by", each, offset, size, size)?))
            }
            Buf::Slot(ring, handle) => {
                let queue = &self.rings[*ring][thread / 32];
                if self.get(*handle, thread) as usize != queue.waited {
                    return Err(Wrong::StaleSlot { ring: *ring });
                }
                let name = format!("page of ring {ring}");
                Ok(Place::Shared(self.slot(*ring, thread / 32, queue.waited - 1) + memory::checked(&name, queue.len, offset, size, size)?))
            }
        }
    }

    pub(super) fn load(&mut self, mask: &Mask, buf: &Buf, at: Id, size: usize, outs: &[Id], buffers: &[Region]) -> Result<(), Wrong> {
        self.needs(&[at])?;
        if let Buf::Slot(_, handle) = buf {
            self.needs(&[*handle])?;
        }
        self.defines(outs);
        let each = size / outs.len().max(1);
        for thread in threads(mask) {
            let place = self.place(buf, at, size, thread, buffers)?;
            if let Place::Shared(i) = place {
                self.shadow.read(i, size, thread)?;
            }
            for (n, out) in outs.iter().enumerate() {
                let bits = match place {
                    Place::Param(b, i) => memory::read(&buffers[b].bytes, i + n * each, each),
                    Place::Shared(i) => memory::read(&self.shared, i + n * each, each),
                    Place::Own(own, i) => memory::read(&self.own[own], i + n * each, each),
                };
                self.set(*out, thread, scalar::truncated(self.p.ty(*out).dtype(), bits));
            }
        }
        Ok(())
    }

    /// A line of a buffer, or so many bytes: they must be there.
    pub(super) fn prefetch(&mut self, mask: &Mask, src: &Region, at: Id, bytes: Option<Id>) -> Result<(), Wrong> {
        self.needs(&[at])?;
        self.needs(bytes.as_slice())?;
        for thread in threads(mask) {
            let of = |id: Id| scalar::int(self.p.ty(id).dtype(), self.get(id, thread));
            let (size, align) = bytes.map_or((1, 1), |bytes| (of(bytes) as usize, 16));
            src.range(of(at), size, align)?;
        }
        Ok(())
    }

    /// 16 bytes for each thread, which nobody may touch before it has waited.
    pub(super) fn bring(&mut self, mask: &Mask, buf: &Buf, at: Id, src: usize, from: Id, buffers: &[Region]) -> Result<(), Wrong> {
        self.needs(&[at, from])?;
        for thread in threads(mask) {
            let from = buffers[src].range(scalar::int(self.p.ty(from).dtype(), self.get(from, thread)), 16, 16)?;
            let Place::Shared(to) = self.place(buf, at, 16, thread, buffers)? else {
                return Err(Wrong::Unsupported { op: "Bring to memory that is not shared".into() });
            };
            self.shadow.bring_starts(to, 16, thread)?;
            self.shared[to..to + 16].copy_from_slice(&buffers[src].bytes[from..from + 16]);
            self.sent_for[thread].push(to);
        }
        Ok(())
    }

    pub(super) fn brought(&mut self, mask: &Mask) {
        for thread in threads(mask) {
            for to in std::mem::take(&mut self.sent_for[thread]) {
                self.shadow.bring_ends(to, 16, thread);
            }
        }
    }

    /// First of `size` bytes of the block's memory, from byte `at` of a shared array on: a multiple of `align`.
    pub(super) fn shared_place(&self, buf: &Buf, at: i64, size: usize, align: usize) -> Result<usize, Wrong> {
        let Buf::Shared(i) = buf else { return Err(Wrong::Unsupported { op: "a product with memory that is not shared".into() }) };
        let (a, name) = (&self.p.shared[*i], format!("shared array {i}"));
        let place = a.offset + memory::checked(&name, a.len * a.dtype.size(), at, size, 1)?;
        if place % align == 0 { Ok(place) } else { Err(Wrong::Misaligned { buffer: name, at, size: align }) }
    }

    /// Lane l reads row l % 8 of matrix l / 8 and gets columns 2 (l % 4) and the next of row l / 4 of each; `turned`: of what is transposed.
    pub(super) fn load_matrices(&mut self, mask: &Mask, buf: &Buf, at: Id, turned: bool, outs: &[Id], buffers: &[Region]) -> Result<(), Wrong> {
        self.needs(&[at])?;
        self.defines(outs);
        for w in self.whole_warps(mask, "LoadMatrices")? {
            let mut rows = [[0; 8]; 32];
            for (l, row) in rows.iter_mut().enumerate() {
                let Place::Shared(i) = self.place(buf, at, 16, w * 32 + l, buffers)? else {
                    return Err(Wrong::Unsupported { op: "LoadMatrices of memory that is not shared".into() });
                };
                self.shadow.read(i, 16, w * 32 + l)?;
                *row = std::array::from_fn(|c| memory::read(&self.shared, i + 2 * c, 2));
            }
            for (q, out) in outs.iter().enumerate() {
                for l in 0..32 {
                    let of = |i: usize| if turned { rows[8 * q + i][l / 4] } else { rows[8 * q + l / 4][i] };
                    self.set(*out, w * 32 + l, of(l % 4 * 2) | of(l % 4 * 2 + 1) << 16);
                }
            }
        }
        Ok(())
    }

    pub(super) fn store(&mut self, mask: &Mask, buf: &Buf, at: Id, values: &[Id], buffers: &mut [Region]) -> Result<(), Wrong> {
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
                Place::Own(own, i) => self.own[own][i..i + size].copy_from_slice(&new),
                Place::Shared(i) => {
                    let shared = &mut self.shared;
                    self.shadow.write(i, size, thread, |at| shared[at] == new[at - i])?;
                    shared[i..i + size].copy_from_slice(&new);
                }
            }
        }
        Ok(())
    }

    /// Thread after thread: the sum has no order.
    pub(super) fn add(&mut self, mask: &Mask, buf: &Buf, at: Id, value: Id, buffers: &mut [Region]) -> Result<(), Wrong> {
        self.needs(&[at, value])?;
        for thread in threads(mask) {
            let Place::Param(b, i) = self.place(buf, at, 8, thread, buffers)? else {
                return Err(Wrong::Unsupported { op: "AtomicAdd to shared memory".into() });
            };
            buffers[b].room(i as i64, 8, 8)?;
            let sum = memory::read(&buffers[b].bytes, i, 8).wrapping_add(self.get(value, thread));
            buffers[b].bytes[i..i + 8].copy_from_slice(&sum.to_le_bytes());
        }
        Ok(())
    }

    /// First byte of the slot of a warp's copy `n`.
    fn slot(&self, ring: usize, warp: usize, n: usize) -> usize {
        let r = &self.p.rings[ring];
        r.offset + (warp * r.stages + n % r.stages) * r.bytes
    }

    pub(super) fn fetch(&mut self, mask: &Mask, ring: usize, src: &Region, [at, bytes, cond]: [Id; 3], ahead: usize) -> Result<(), Wrong> {
        self.needs(&[at, bytes, cond])?;
        let (stages, most) = (self.p.rings[ring].stages, self.p.rings[ring].bytes);
        for w in self.whole_warps(mask, "RingFetch")? {
            if (1..32).any(|l| [at, bytes, cond].iter().any(|id| self.get(*id, w * 32 + l) != self.get(*id, w * 32))) {
                return Err(Wrong::Uneven { op: "RingFetch".into() });
            }
            if self.get(cond, w * 32) & 1 == 0 {
                continue;
            }
            let bytes = memory::copied(ring, most, scalar::int(self.p.ty(bytes).dtype(), self.get(bytes, w * 32)))?;
            let from = src.range(scalar::int(self.p.ty(at).dtype(), self.get(at, w * 32)), bytes, 16)?;
            let n = self.rings[ring][w].fetched;
            if n != self.rings[ring][w].waited + ahead {
                return Err(Wrong::RingOrder { ring });
            }
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

    pub(super) fn wait(&mut self, mask: &Mask, ring: usize, handle: Id) -> Result<(), Wrong> {
        self.defines(&[handle]);
        for w in self.whole_warps(mask, "RingWait")? {
            let queue = &mut self.rings[ring][w];
            let Some(page) = queue.in_flight.pop_front() else { return Err(Wrong::RingEmpty { ring }) };
            queue.waited += 1;
            let (n, before) = (queue.waited, std::mem::replace(&mut queue.len, page.len()));
            let slot = self.slot(ring, w, n - 1);
            self.shared[slot..slot + page.len()].copy_from_slice(&page);
            self.shadow.copy_ends(slot, page.len(), w);
            if n > 1 {
                let over = self.slot(ring, w, n - 2);
                self.shared[over..over + before].fill(POISON);
            }
            (0..32).for_each(|l| self.set(handle, w * 32 + l, n as u64));
        }
        Ok(())
    }
}
