//! Prints a kernel at one of its stages: the block program over tiles, the program of one lane, the CUDA text,
//! or what the compiler made of it.

use std::fmt::Write;
use std::path::PathBuf;

use kernel_dsl::{Source, ir, passes};
use kernels_gen::kernels::chunk::{chunk_ir, chunk_meta, serves};
use kernels_gen::kernels::{Elem, decode_ir, decode_meta, join_ir, join_meta, store_ir, store_meta};
use kernels_gen::registry::{CodecInfo, codec};
use runtime::{Arch, Codec};

use crate::error::{Error, Result};

#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum Kernel {
    /// codes new tokens into the cache
    Store,
    /// attends to the coded cache
    DecodeAttention,
    /// attends to the coded cache with a long chunk of query tokens
    ChunkAttention,
    /// joins the partial results of a sequence
    JoinSplits,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum Stage {
    /// the block program as it was written
    Tile,
    /// after all passes: what one lane does
    Thread,
    /// the text that NVRTC gets
    Cuda,
    /// compiled: sizes and registers, or the machine code with --out
    Cubin,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum Number {
    Bf16,
    F32,
}

#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    #[arg(long, value_enum)]
    pub kernel: Kernel,
    #[arg(long)]
    pub codec: String,
    #[arg(long, value_enum, default_value = "cuda")]
    pub stage: Stage,
    /// head dim: 64, 128 or 256; store also 512
    #[arg(long, default_value_t = 128)]
    pub d: usize,
    /// query heads that share a kv head: 1 to 8, or 16
    #[arg(long, default_value_t = 4)]
    pub group: usize,
    /// tokens of a page, a multiple of 32
    #[arg(long, default_value_t = 64)]
    pub page_tokens: usize,
    /// numbers in memory around the cache
    #[arg(long, value_enum, default_value = "bf16")]
    pub elem: Number,
    /// what to compile for; only the cubin depends on it
    #[arg(long, default_value = "sm_90a")]
    pub arch: String,
    /// file to write instead of printing
    #[arg(long)]
    pub out: Option<PathBuf>,
}

/// The text of the stage, or one line about the file that was written.
pub fn run(options: &Options) -> Result<String> {
    let codec = codec(&options.codec)?;
    let shape = Codec::open(codec.name)?;
    match options.kernel {
        Kernel::Store => shape.check_store(options.d, options.page_tokens)?,
        Kernel::DecodeAttention => shape.check_decode(options.d, options.group, options.page_tokens)?,
        Kernel::ChunkAttention if !serves(codec, options.d, options.group) => {
            return Err(Error::Usage(format!("--kernel chunk_attention does not serve {} at head dim {} and group {}", codec.name, options.d, options.group)));
        }
        Kernel::ChunkAttention => shape.check_decode(options.d, options.group, options.page_tokens)?,
        Kernel::JoinSplits => shape.check_decode(options.d, 1, options.page_tokens)?,
    }
    let Some(arch) = Arch::parse(&options.arch) else {
        return Err(Error::Usage(format!("--arch {}: write it as NVRTC does, for example sm_80, sm_89 or sm_90a", options.arch)));
    };
    let program = build(options, codec, arch)?;
    let text = match options.stage {
        Stage::Tile => ir::print::print(&program),
        Stage::Thread => ir::print::print(&passes::run(&program)?),
        Stage::Cuda => Source::of(&program)?.within(arch.shared_bytes()).into_owned().cuda,
        Stage::Cubin => return cubin(&Source::of(&program)?.within(arch.shared_bytes()), arch, options),
    };
    match &options.out {
        Some(path) => std::fs::write(path, &text).map(|()| format!("wrote {}", path.display())).map_err(Error::writing(path)),
        None => Ok(text),
    }
}

fn build(options: &Options, codec: &CodecInfo, arch: Arch) -> Result<ir::Program> {
    let elem = match options.elem {
        Number::Bf16 => Elem::Bf16,
        Number::F32 => Elem::F32,
    };
    Ok(match options.kernel {
        Kernel::Store => store_ir(codec, &store_meta(codec, options.d, options.page_tokens, elem), elem),
        Kernel::DecodeAttention => decode_ir(codec, &decode_meta(codec, options.d, options.group, options.page_tokens).within(arch.shared_bytes()), elem),
        Kernel::ChunkAttention => chunk_ir(codec, &chunk_meta(codec, options.d, options.group, options.page_tokens), elem),
        Kernel::JoinSplits => join_ir(codec, &join_meta(options.d, options.page_tokens), elem),
    }?)
}

fn cubin(source: &Source, arch: Arch, options: &Options) -> Result<String> {
    let compiled = runtime::compile::compile(source, arch)?;
    let (major, minor) = compiled.nvrtc;
    let mut text = format!("{} for {arch}: {} bytes of machine code, NVRTC {major}.{minor}, {:?}\n", source.name, compiled.cubin.len(), compiled.origin);
    let _ = writeln!(text, "{} threads, {} bytes of dynamic shared memory", source.threads, source.shared_bytes);
    for kernel in compiled.resources() {
        let spilled = kernel.spill_stores + kernel.spill_loads;
        let _ = writeln!(text, "{} registers, {} bytes of stack, {spilled} bytes spilled", kernel.registers, kernel.stack_bytes);
    }
    if let Some(path) = &options.out {
        std::fs::write(path, &compiled.cubin).map_err(Error::writing(path))?;
        let _ = writeln!(text, "wrote {}", path.display());
    }
    Ok(text)
}
