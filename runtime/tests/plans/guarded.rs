//! Device memory between guard zones that must not change.

use runtime::*;

pub const GUARD: usize = 64 << 10;
pub const FILL: u8 = 0xa5;

/// Device memory with a guard zone before and after.
pub struct Guarded {
    pub memory: Memory,
    pub bytes: usize,
}

impl Guarded {
    pub fn new<T: cuda::Plain>(device: &Device, stream: &Stream, values: &[T]) -> Self {
        let bytes = size_of_val(values);
        let memory = Memory::zeroed(device, bytes.next_multiple_of(256) + 2 * GUARD).unwrap();
        memory.fill(stream, FILL).unwrap();
        memory.upload(stream, GUARD, values).unwrap();
        Guarded { memory, bytes }
    }

    pub fn span(&self) -> Span<'_> {
        self.memory.span().part(GUARD as u64, self.bytes as u64).unwrap()
    }

    /// The contents, after checking the zones.
    pub fn read<T: cuda::Plain>(&self, stream: &Stream) -> Vec<T> {
        let all: Vec<u8> = self.memory.download(stream, 0, self.memory.bytes()).unwrap();
        let (before, after) = (&all[..GUARD], &all[GUARD + self.bytes..]);
        assert!(before.iter().chain(after).all(|b| *b == FILL), "a guard zone changed");
        self.memory.download(stream, GUARD, self.bytes / size_of::<T>()).unwrap()
    }
}
