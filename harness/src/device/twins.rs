//! What the twins of the kernels count: every store and every attention runs once more through a kernel that counts the bytes it
//! moves, and must give what the kernel gave that serves. Numbers stay on the device until the passage is through.

use std::cell::Cell;
use std::rc::Rc;

use kernels_gen::kernels::forward::distances::BYTES;
use runtime::{Memory, Span};

use super::Machine;
use crate::attention::{Geometry, Seen, Tally};
use crate::error::Result;

pub struct Twins {
    machine: Rc<Machine>,
    /// i64 [store | attention][bytes read, bytes written]
    counted: Memory,
    /// i32 [layer, block]: bytes of a cache that both stored
    stored: Memory,
    /// blocks of a layer's cache
    blocks: usize,
    layers: usize,
    /// i32 [block of any call]: bytes of outputs that are the same
    outputs: Memory,
    /// blocks in use so far, and the bytes that were compared
    calls: Cell<usize>,
    compared: Cell<u64>,
}

impl Twins {
    /// For caches of up to `bytes` bytes a layer, zeroed before anything is stored, and passages of `tokens` tokens.
    pub fn new(machine: Rc<Machine>, geometry: &Geometry, tokens: usize, bytes: usize) -> Result<Twins> {
        let (device, layers, blocks) = (&machine.device, geometry.layers, bytes.div_ceil(BYTES));
        // no call has less than a token
        let outputs = layers * ((4 * tokens * geometry.heads * geometry.d).div_ceil(BYTES) + tokens);
        Ok(Twins { counted: Memory::zeroed(device, 8 * 4)?, stored: Memory::zeroed(device, 4 * layers * blocks)?, outputs: Memory::zeroed(device, 4 * outputs)?, machine, blocks, layers, calls: Cell::new(0), compared: Cell::new(0) })
    }

    /// Where the store that counts does so.
    pub fn of_stores(&self) -> Result<Span<'_>> {
        Ok(self.counted.span().part(0, 16)?)
    }

    /// Where the attention that counts does so.
    pub fn of_attention(&self) -> Result<Span<'_>> {
        Ok(self.counted.span().part(16, 16)?)
    }

    /// The memory for the store that counts; `fresh` before a layer's first rows: then it holds other bytes than a zeroed cache.
    pub fn shadow(&self, bytes: usize, fresh: bool) -> Result<Rc<Memory>> {
        let shadow = self.machine.scratch("shadow", bytes)?;
        if fresh {
            shadow.fill(&self.machine.stream, 0xff)?;
        }
        Ok(shadow)
    }

    /// Enqueues the comparison of a layer's cache, once all its rows are stored in both.
    pub fn compare_caches(&self, layer: usize, cache: &Memory) -> Result<()> {
        let (bytes, shadow) = (cache.bytes(), self.shadow(cache.bytes(), false)?);
        let out = self.stored.span().part((4 * layer * self.blocks) as u64, (4 * self.blocks) as u64)?;
        self.machine.same_bytes([cache.span(), shadow.span(), out], bytes)
    }

    /// Enqueues the comparison of the outputs of one call.
    pub fn compare_outputs(&self, one: Span, other: Span, bytes: usize) -> Result<()> {
        let blocks = bytes.div_ceil(BYTES);
        let out = self.outputs.span().part(4 * self.calls.get() as u64, 4 * blocks as u64)?;
        self.machine.same_bytes([one, other, out], bytes)?;
        self.calls.set(self.calls.get() + blocks);
        self.compared.set(self.compared.get() + bytes as u64);
        Ok(())
    }

    /// Waits; puts what was counted in the place of what the host expects.
    pub fn finish(&self, tally: &mut Tally) -> Result<()> {
        let stream = &self.machine.stream;
        let total = |memory: &Memory, count: usize| -> Result<u64> {
            let counts: Vec<i32> = memory.download(stream, 0, count)?;
            Ok(counts.iter().map(|n| *n as u64).sum())
        };
        let [.., stored, read, _] = self.counted.download::<i64>(stream, 0, 4)?[..] else { return Ok(()) };
        tally.bytes_written = stored as u64;
        tally.bytes_read = read as u64;
        tally.seen = Some(Seen { stored_alike: total(&self.stored, self.layers * self.blocks)?, outputs_apart: self.compared.get() - total(&self.outputs, self.calls.get())? });
        Ok(())
    }
}
