//! Who last touched each byte of shared memory: finds races that a run in lockstep would hide.
//!
//! Two accesses by different threads, one of them a write that changes the byte, need a block barrier between
//! them, or within one warp a warp barrier. Bytes that an asynchronous copy is bringing belong to nobody.

use super::trap::{Clash, Wrong};

/// Threads that touched a byte since the last barrier that orders them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Who {
    #[default]
    Nobody,
    Thread(u16),
    Warp(u16),
    Many,
}

#[derive(Clone, Copy, Default)]
struct Touch {
    who: Who,
    block_epoch: u32,
    warp_epoch: u32,
    /// Fences that its thread had passed.
    fences: u32,
}

#[derive(Clone, Copy, Default)]
struct Byte {
    written: Touch,
    read: Touch,
    in_flight: bool,
}

pub struct Shadow {
    bytes: Vec<Byte>,
    block_epoch: u32,
    warp_epochs: Vec<u32>,
    fences: Vec<u32>,
}

impl Shadow {
    pub fn new(len: usize, warps: usize) -> Shadow {
        Shadow { bytes: vec![Byte::default(); len], block_epoch: 1, warp_epochs: vec![1; warps], fences: vec![0; 32 * warps] }
    }

    pub fn barrier(&mut self) {
        self.block_epoch += 1;
    }

    /// What the thread wrote before is there for the tensor core behind a barrier.
    pub fn fence(&mut self, thread: usize) {
        self.fences[thread] += 1;
    }

    pub fn sync_warp(&mut self, warp: usize) {
        self.warp_epochs[warp] += 1;
    }

    /// True if `thread` may meet what `touch` did without a barrier.
    fn ordered(&self, touch: Touch, thread: usize) -> bool {
        let warp = thread / 32;
        match touch.who {
            _ if touch.block_epoch != self.block_epoch => true,
            Who::Nobody => true,
            Who::Thread(t) if t as usize == thread => true,
            Who::Thread(t) => t as usize / 32 == warp && touch.warp_epoch != self.warp_epochs[warp],
            Who::Warp(w) => w as usize == warp && touch.warp_epoch != self.warp_epochs[warp],
            Who::Many => false,
        }
    }

    fn touch(&self, who: Who, warp: usize) -> Touch {
        let fences = if let Who::Thread(t) = who { self.fences[t as usize] } else { 0 };
        Touch { who, block_epoch: self.block_epoch, warp_epoch: self.warp_epochs[warp], fences }
    }

    pub fn read(&mut self, at: usize, size: usize, thread: usize) -> Result<(), Wrong> {
        for i in at..at + size {
            let b = self.bytes[i];
            if b.in_flight {
                return race(i, Clash::Copy);
            }
            if !self.ordered(b.written, thread) {
                return race(i, Clash::ReadWrite);
            }
            let fresh = b.read.block_epoch != self.block_epoch;
            let who = match b.read.who {
                Who::Thread(t) if !fresh && t as usize == thread => continue,
                Who::Thread(t) if !fresh && t as usize / 32 == thread / 32 => Who::Warp((thread / 32) as u16),
                Who::Warp(w) if !fresh && w as usize == thread / 32 => Who::Warp(w),
                Who::Nobody => Who::Thread(thread as u16),
                _ if fresh => Who::Thread(thread as u16),
                _ => Who::Many,
            };
            self.bytes[i].read = self.touch(who, thread / 32);
        }
        Ok(())
    }

    /// The tensor core reads for a warp: only a fence and a barrier of the block order it behind a write, the warp's own too.
    pub fn read_by_core(&mut self, at: usize, size: usize, warp: usize) -> Result<(), Wrong> {
        for i in at..at + size {
            let written = self.bytes[i].written;
            let fenced = if let Who::Thread(t) = written.who { self.fences[t as usize] > written.fences } else { true };
            if written.who != Who::Nobody && (written.block_epoch == self.block_epoch || !fenced) {
                return race(i, Clash::Core);
            }
            self.read(i, 1, warp * 32)?;
        }
        Ok(())
    }

    /// `same(i)` tells whether byte i keeps its value.
    pub fn write(&mut self, at: usize, size: usize, thread: usize, same: impl Fn(usize) -> bool) -> Result<(), Wrong> {
        for i in at..at + size {
            let b = self.bytes[i];
            if b.in_flight {
                return race(i, Clash::Copy);
            }
            if !same(i) {
                if !self.ordered(b.written, thread) {
                    return race(i, Clash::Writes);
                }
                if !self.ordered(b.read, thread) {
                    return race(i, Clash::ReadWrite);
                }
            }
            self.bytes[i].written = self.touch(Who::Thread(thread as u16), thread / 32);
        }
        Ok(())
    }

    /// Bytes that a thread sends for: written by it, and nobody's until they are there.
    pub fn bring_starts(&mut self, at: usize, size: usize, thread: usize) -> Result<(), Wrong> {
        self.write(at, size, thread, |_| false)?;
        self.bytes[at..at + size].iter_mut().for_each(|b| b.in_flight = true);
        Ok(())
    }

    pub fn bring_ends(&mut self, at: usize, size: usize, thread: usize) {
        let written = self.touch(Who::Thread(thread as u16), thread / 32);
        self.bytes[at..at + size].fill(Byte { written, ..Byte::default() });
    }

    /// A copy into these bytes starts: its warp has left them, the others must have met a barrier since.
    pub fn copy_starts(&mut self, at: usize, size: usize, warp: usize) -> Result<(), Wrong> {
        self.sync_warp(warp);
        for i in at..at + size {
            let b = self.bytes[i];
            if b.in_flight || !self.ordered(b.written, warp * 32) || !self.ordered(b.read, warp * 32) {
                return race(i, Clash::Copy);
            }
            self.bytes[i].in_flight = true;
        }
        Ok(())
    }

    /// The warp sees what the copy brought; another needs a barrier first.
    pub fn copy_ends(&mut self, at: usize, size: usize, warp: usize) {
        let written = self.touch(Who::Warp(warp as u16), warp);
        self.sync_warp(warp);
        self.bytes[at..at + size].fill(Byte { written, ..Byte::default() });
    }
}

fn race(at: usize, clash: Clash) -> Result<(), Wrong> {
    Err(Wrong::Race { buffer: "shared memory".into(), at, clash })
}
