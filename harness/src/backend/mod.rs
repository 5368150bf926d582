//! Where coded caches live and who reads them: the scalar reference on the CPU, or the fused kernels on a GPU.
//! Both speak the same pages and slots, and with u8 lanes both give the same bits.

mod cpu;
mod gpu;

use kernels_gen::registry::CodecInfo;

use crate::attention::{Fitted, Geometry, Pages};
use crate::error::Result;

/// Which backend a command asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum Choice {
    /// the GPU if one can be used, else the CPU
    Auto,
    Gpu,
    Cpu,
}

pub trait Backend {
    /// One line for the report.
    fn name(&self) -> String;
    /// The device it runs on, where it is one.
    fn device(&self) -> Option<&runtime::Device> {
        None
    }
    /// Empty caches for all layers of a model.
    fn cache(&self, codec: &'static CodecInfo, geometry: &Geometry, pages: &Pages) -> Result<Box<dyn CodedCache>>;
    /// An empty cache of one layer, in the bands and coordinates that a calibrated codec has for that layer of a model.
    fn calibrated(&self, of: (&'static Fitted, usize), geometry: &Geometry, pages: &Pages) -> Result<Box<dyn CodedCache>>;
}

/// One paged cache a layer; a sequence starts at token 0.
pub trait CodedCache {
    /// Codes `k` and `v` [token, kv head, d] of tokens `first`.. into their slots.
    fn store(&mut self, layer: usize, first: usize, k: &[f32], v: &[f32], pages: &Pages) -> Result<()>;
    /// Attends query i of `q` [query, head, d] to the first `lens[i]` tokens; returns [query, head, d].
    fn attend(&mut self, layer: usize, q: &[f32], lens: &[i32], pages: &Pages) -> Result<Vec<f32>>;
    /// The cache of a layer as it lies in memory.
    fn bytes(&self, layer: usize) -> Result<std::borrow::Cow<'_, [u8]>>;
    /// Bytes of all layers.
    fn allocated(&self) -> u64;
}

/// `Auto` says on stderr why it did not take the GPU.
pub fn open(choice: Choice) -> Result<Box<dyn Backend>> {
    match choice {
        Choice::Cpu => Ok(Box::new(cpu::Cpu)),
        Choice::Gpu => gpu::open(),
        Choice::Auto => Ok(gpu::open().unwrap_or_else(|why| {
            eprintln!("using the cpu: {why}");
            Box::new(cpu::Cpu)
        })),
    }
}
