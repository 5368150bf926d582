//! Loads, stores and copies at tile stage.

use super::memory::{self, Region};
use super::scalar;
use super::tile::{Machine, Value};
use super::trap::Wrong;
use crate::dtype::DType;
use crate::ir::{Buf, Id, Ty};
use crate::pack::{TOKENS, kept_acc, kept_left, left_byte, line_byte, line_place, right_byte};
use crate::tile::MARK;
use std::collections::VecDeque;

/// One warp's side of a ring: copies on their way, and the page waited for last.
#[derive(Clone, Default)]
pub struct Queue {
    /// Copies that a loop has been promised: source, byte, bytes.
    started: VecDeque<(usize, i64, i64)>,
    in_flight: VecDeque<Vec<u8>>,
    waited: u64,
    page: Vec<u8>,
}

impl Queue {
    pub fn left(&self) -> usize {
        self.in_flight.len() + self.started.len()
    }
}

impl Machine<'_> {
    /// The value of a byte offset.
    pub(super) fn offset(&self, at: Id) -> Result<i64, Wrong> {
        Ok(scalar::int(self.p.ty(at).dtype(), self.scalar(at)?))
    }

    /// The present page of this warp.
    fn page(&self, ring: usize, handle: Id) -> Result<&[u8], Wrong> {
        let queue = &self.rings[ring][self.warp];
        if self.scalar(handle)? == queue.waited { Ok(&queue.page) } else { Err(Wrong::StaleSlot { ring }) }
    }

    pub(super) fn load(&self, buf: &Buf, at: i64, d: DType, buffers: &[Region]) -> Result<u64, Wrong> {
        let size = d.size();
        let (index, region) = match buf {
            Buf::Param(i) => (*i, &buffers[*i]),
            Buf::Shared(i) => (buffers.len() + i, &self.shared[*i]),
            Buf::Own(_) => return Err(Wrong::Unsupported { op: "a thread's own words at tile stage".into() }),
            Buf::Slot(ring, handle) => {
                let page = self.page(*ring, *handle)?;
                let at = memory::checked(&format!("page of ring {ring}"), page.len(), at, size, size)?;
                return Ok(scalar::truncated(d, memory::read(page, at, size)));
            }
        };
        let at = region.range(at, size, size)?;
        self.turns.read(index, &region.name, at..at + size)?;
        Ok(scalar::truncated(d, memory::read(&region.bytes, at, size)))
    }

    pub(super) fn store(&mut self, buf: &Buf, at: i64, d: DType, bits: u64, buffers: &mut [Region]) -> Result<(), Wrong> {
        let size = d.size();
        let (index, region) = match buf {
            Buf::Param(i) => (*i, &mut buffers[*i]),
            Buf::Shared(i) => (buffers.len() + i, &mut self.shared[*i]),
            Buf::Slot(..) | Buf::Own(_) => return Err(Wrong::ReadOnly { buffer: "a page".into() }),
        };
        let at = region.room(at, size, size)?;
        let changed = memory::read(&region.bytes, at, size) != bits;
        self.turns.write(index, (&region.name, region.bytes.len()), at..at + size, changed)?;
        region.bytes[at..at + size].copy_from_slice(&bits.to_le_bytes()[..size]);
        Ok(())
    }

    /// `len` bytes of a page or of an argument.
    pub(super) fn bytes(&self, buf: &Buf, at: Id, len: usize, buffers: &[Region]) -> Result<Vec<u8>, Wrong> {
        let at = self.offset(at)?;
        match buf {
            Buf::Slot(ring, handle) => {
                let page = self.page(*ring, *handle)?;
                let at = memory::checked(&format!("page of ring {ring}"), page.len(), at, len, 1)?;
                Ok(page[at..at + len].to_vec())
            }
            Buf::Param(i) => {
                let (region, from) = (&buffers[*i], buffers[*i].range(at, len, 1)?);
                self.turns.read(*i, &region.name, from..from + len)?;
                Ok(region.bytes[from..from + len].to_vec())
            }
            _ => Err(Wrong::Unsupported { op: "Unpack of a block's own memory".into() }),
        }
    }

    /// The elements of tile `out`, (row, column) strides apart; columns from `limit` on repeat the one before.
    pub(super) fn load_tile(&self, buf: &Buf, at: Id, strides: (usize, usize), limit: usize, out: Id, buffers: &[Region]) -> Result<Vec<u64>, Wrong> {
        let Ty::Tile { dtype, rows, cols, .. } = self.p.ty(out) else { return Err(Wrong::Unsupported { op: "a tile load into a scalar".into() }) };
        let at = self.offset(at)?;
        (0..rows * cols).map(|i| self.load(buf, at + (i / cols * strides.0 + (i % cols).min(limit - 1) * strides.1) as i64, dtype, buffers)).collect()
    }

    /// A left operand in the order of the lanes' registers.
    pub(super) fn load_left(&self, buf: &Buf, at: Id, out: Id, buffers: &[Region]) -> Result<Vec<u64>, Wrong> {
        let Ty::Tile { dtype, rows, cols, .. } = self.p.ty(out) else { return Err(Wrong::Unsupported { op: "a tile load into a scalar".into() }) };
        let at = self.offset(at)?;
        (0..rows * cols).map(|i| self.load(buf, at + left_byte(rows, cols, i / cols, i % cols) as i64, dtype, buffers)).collect()
    }

    /// A right operand likewise.
    pub(super) fn load_right(&self, buf: &Buf, at: Id, out: Id, buffers: &[Region]) -> Result<Vec<u64>, Wrong> {
        let Ty::Tile { dtype, rows, cols, .. } = self.p.ty(out) else { return Err(Wrong::Unsupported { op: "a tile load into a scalar".into() }) };
        let at = self.offset(at)?;
        (0..rows * cols).map(|i| self.load(buf, at + right_byte(rows * dtype.size(), i / cols * dtype.size(), i % cols) as i64, dtype, buffers)).collect()
    }

    /// Which of 32 tokens has which number.
    pub(super) fn marks(&self, buf: &Buf, at: Id, of_keys: bool, buffers: &[Region]) -> Result<Vec<u64>, Wrong> {
        let at = self.offset(at)?;
        let numbers = (0..TOKENS).map(|t| self.load(buf, at + t as i64, DType::U8, buffers)).collect::<Result<Vec<u64>, _>>()?;
        let mark = |token: usize, number: usize| u64::from(MARK) * u64::from(numbers[token] & 31 == number as u64);
        Ok((0..32 * TOKENS).map(|i| if of_keys { mark(i / 32, i % 32) } else { mark(i % TOKENS, i / TOKENS) }).collect())
    }

    /// What each of 32 tokens has along its number.
    pub(super) fn lengths(&self, buf: &Buf, at: [Id; 2], buffers: &[Region]) -> Result<Vec<u64>, Wrong> {
        let [at, pairs] = [self.offset(at[0])?, self.offset(at[1])?];
        let of = |i: usize| {
            let number = self.load(buf, at + (i / 16) as i64, DType::U8, buffers)? & 15;
            let pair = self.load(buf, pairs + (i / 16 * 4) as i64, DType::U32, buffers)?;
            Ok(if number == (i % 16) as u64 { pair >> 16 } else { 0 })
        };
        (0..16 * TOKENS).map(of).collect()
    }

    /// A left operand from columns of lines.
    pub(super) fn load_lines(&self, buf: &Buf, at: Id, dtype: DType, buffers: &[Region]) -> Result<Vec<u64>, Wrong> {
        let at = self.offset(at)?;
        let (base, by) = (at / 128 * 128, (at % 128) as usize);
        (0..16 * 128).map(|i| self.load(buf, base + line_byte(0, line_place(128, i % 128), by + i / 128) as i64, dtype, buffers)).collect()
    }

    /// 16 bytes of an argument to shared memory; that they come later is the thread stage's to check.
    pub(super) fn bring(&mut self, buf: &Buf, at: Id, src: usize, from: Id, buffers: &mut [Region]) -> Result<(), Wrong> {
        let (at, from) = (self.offset(at)?, self.offset(from)?);
        if let Buf::Shared(i) = buf {
            self.shared[*i].range(at, 16, 16)?;
        }
        buffers[src].range(from, 16, 16)?;
        (0..4).map(|n| 4 * n).try_for_each(|n| {
            let word = self.load(&Buf::Param(src), from + n, DType::U32, buffers)?;
            self.store(buf, at + n, DType::U32, word, buffers)
        })
    }

    /// A copy that a loop will make: source, byte, bytes.
    pub(super) fn start(&mut self, ring: usize, src: usize, from: &Region, at: Id, bytes: Id) -> Result<(), Wrong> {
        let (at, bytes) = (self.offset(at)?, self.offset(bytes)?);
        from.range(at, memory::copied(ring, self.p.rings[ring].bytes, bytes)?, 16)?;
        self.rings[ring][self.warp].started.push_back((src, at, bytes));
        Ok(())
    }

    /// What was started first must be what is copied now.
    pub(super) fn take_started(&mut self, ring: usize, src: usize, at: Id, bytes: Id) -> Result<(), Wrong> {
        let (at, bytes) = (self.offset(at)?, self.offset(bytes)?);
        match self.rings[ring][self.warp].started.pop_front() {
            Some(other) if other != (src, at, bytes) => Err(Wrong::RingOrder { ring }),
            _ => Ok(()),
        }
    }

    pub(super) fn fetch(&mut self, ring: usize, src: &Region, at: Id, bytes: Id) -> Result<(), Wrong> {
        let r = &self.p.rings[ring];
        let bytes = memory::copied(ring, r.bytes, self.offset(bytes)?)?;
        let from = src.range(self.offset(at)?, bytes, 16)?;
        let queue = &mut self.rings[ring][self.warp];
        // The page waited for last keeps its slot.
        if queue.in_flight.len() + usize::from(queue.waited > 0) >= r.stages {
            return Err(Wrong::RingFull { ring, stages: r.stages });
        }
        queue.in_flight.push_back(src.bytes[from..from + bytes].to_vec());
        Ok(())
    }

    pub(super) fn wait(&mut self, ring: usize, handle: Id) -> Result<(), Wrong> {
        let queue = &mut self.rings[ring][self.warp];
        queue.page = queue.in_flight.pop_front().ok_or(Wrong::RingEmpty { ring })?;
        queue.waited += 1;
        let n = queue.waited;
        self.put(handle, n);
        Ok(())
    }

    /// What a turn keeps, at (kept, turn, k).
    pub(super) fn keep(&mut self, place: (usize, i64, usize), value: Id) -> Result<(), Wrong> {
        let value = self.value(value)?;
        self.kept.insert(place, value);
        Ok(())
    }

    pub(super) fn take_kept(&mut self, place: (usize, i64, usize), out: Id) -> Result<(), Wrong> {
        let value = self.kept.get(&place).ok_or(Wrong::Undefined { id: out })?;
        self.values[out as usize] = Some(value.clone());
        Ok(())
    }

    /// The words of a warp's turns as a left operand.
    pub(super) fn kept_left(&mut self, kept: usize, warp: Id, first: usize, out: Id) -> Result<(), Wrong> {
        let (w, Ty::Tile { cols, .. }) = (self.offset(warp)?, self.p.ty(out)) else { return Ok(()) };
        let byte = |i: usize| {
            let (lane, word, byte) = kept_left(cols, i / cols, i % cols);
            match self.kept.get(&(kept, 32 * w + lane as i64, first + word)) {
                Some(Value::Scalar(bits)) => Ok(bits >> (8 * byte) & 0xff),
                _ => Err(Wrong::Undefined { id: out }),
            }
        };
        let tile = (0..16 * cols).map(byte).collect::<Result<_, Wrong>>()?;
        self.values[out as usize] = Some(Value::Tile(tile));
        Ok(())
    }

    /// Numbers of an accumulator, each to the turn of the lane that has it.
    pub(super) fn keep_acc(&mut self, kept: usize, warp: Id, first: usize, value: Id) -> Result<(), Wrong> {
        let (w, (shape, x)) = (self.offset(warp)?, self.tile(value)?);
        for (i, bits) in x.iter().enumerate() {
            let (lane, k) = kept_acc(i / shape.cols, i % shape.cols);
            self.kept.insert((kept, 32 * w + lane as i64, first + k), Value::Scalar(*bits));
        }
        Ok(())
    }
}
