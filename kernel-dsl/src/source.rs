//! What a kernel becomes for a host: CUDA text and how to launch it.

use std::borrow::Cow;

use crate::ir::Program;
use crate::report::Report;
use crate::{emit, passes};

/// One kernel, ready for NVRTC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    pub name: String,
    pub cuda: String,
    pub threads: u32,
    /// Bytes of dynamic shared memory.
    pub shared_bytes: u32,
    /// Blocks an SM is meant to hold.
    pub min_blocks: u32,
}

impl Source {
    /// Whether it waits for the launch before it by itself, see [`crate::ops::after_previous`].
    pub fn waits(&self) -> bool {
        self.cuda.contains("\n  after_previous();")
    }

    /// Runs all passes on tile IR and prints it.
    pub fn of(tile: &Program) -> Result<Source, Report> {
        Ok(Source::printed(&passes::run(tile)?))
    }

    /// The same kernel with one argument more, in which it counts the bytes that it moves of a buffer: see [`passes::count`].
    pub fn counted(tile: &Program, buffer: &str) -> Result<Source, Report> {
        Ok(Source::printed(&passes::count::run(&passes::run(tile)?, buffer)))
    }

    /// The same kernel for a device where a block may have `shared` bytes: bounds on registers ask for no more blocks an SM than shared
    /// memory lets in.
    pub fn within(&self, shared: usize) -> Cow<'_, Source> {
        // Of an SM's memory a kibibyte of every block is the driver's.
        let most = (shared + 1024) / (self.shared_bytes as usize + 1024);
        if most == 0 || most >= self.min_blocks as usize {
            return Cow::Borrowed(self);
        }
        Cow::Owned(self.bounded(most as u32))
    }

    /// The same kernel with registers for one block an SM less, if it asks for four or more: a quarter of its warps at most.
    pub fn roomier(&self) -> Option<Source> {
        (self.min_blocks >= 4).then(|| self.bounded(self.min_blocks - 1))
    }

    fn bounded(&self, blocks: u32) -> Source {
        let bounds = |blocks| emit::bounds(self.threads as usize, blocks as usize);
        Source { cuda: self.cuda.replacen(&bounds(self.min_blocks), &bounds(blocks), 1), min_blocks: blocks, ..self.clone() }
    }

    fn printed(p: &Program) -> Source {
        Source { name: p.name.clone(), cuda: emit::cuda(p), threads: p.threads() as u32, shared_bytes: p.shared_bytes as u32, min_blocks: p.min_blocks.max(1) as u32 }
    }
}

/// The shape of a block, from a kernel's meta value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Launch {
    pub warps: usize,
    /// Blocks an SM should hold at least: bounds the registers of a thread.
    pub min_blocks: usize,
}

/// A kernel's meta value: sizes and choices known when it is built.
pub trait Meta {
    fn launch(&self) -> Launch;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_as_many_as_shared_memory_lets_in() {
        let written = |min_blocks: u32| Source { name: "k".into(), cuda: format!("void {} k() {{}}", emit::bounds(128, min_blocks as usize)), threads: 128, shared_bytes: 31 * 1024, min_blocks };
        let seven = written(7);
        assert!(matches!(seven.within(227 * 1024), Cow::Borrowed(same) if *same == seven));
        assert_eq!(*seven.within(163 * 1024), written(5));
        assert_eq!(*seven.within(99 * 1024), written(3));
        // Where none fits, loading it says so.
        assert_eq!(*seven.within(16 * 1024), seven);
    }
}
