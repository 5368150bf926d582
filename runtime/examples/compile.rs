//! What each kernel costs a thread: compiles the shipped kernels, no GPU needed, and prints a line each.
//!
//!     cargo run --release -p runtime --example compile -- [arch] [codec] [head dim]

use std::time::Instant;

use kernel_dsl::Source;
use kernels_gen::kernels::{decode_attention, join_splits, store};
use runtime::compile::compile;
use runtime::{Arch, Codec, Elem};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let arch = args.first().map_or(Some(Arch::SM_90A), |a| Arch::parse(a)).ok_or("the first argument is an arch, as sm_90a")?;
    let codecs = match args.get(1) {
        Some(name) => vec![Codec::open(name)?],
        None => kernels_gen::registry::codecs().iter().map(|c| Codec::open(c.name)).collect::<Result<_, _>>()?,
    };
    let d: usize = args.get(2).map_or(Ok(128), |d| d.parse())?;
    println!("{:34} {:>4} {:>5} {:>6} {:>6} {:>7} {:>7} {:>6}", arch, "regs", "stack", "spill", "shared", "threads", "cubin", "ms");
    for codec in codecs {
        let (c, elem) = (codec.info(), Elem::Bf16);
        line(&format!("{} store d={d}", c.name), arch, store(c, d, 64, elem))?;
        for group in [1, 4, 8, 16] {
            line(&format!("{} decode d={d} group={group}", c.name), arch, decode_attention(c, d, group, 64, elem))?;
        }
        line(&format!("{} join d={d}", c.name), arch, join_splits(c, d, 64, elem))?;
    }
    Ok(())
}

fn line(name: &str, arch: Arch, source: Result<Source, kernel_dsl::Report>) -> Result<(), Box<dyn std::error::Error>> {
    let source = source?;
    let start = Instant::now();
    let compiled = compile(&source, arch)?;
    let ms = start.elapsed().as_millis();
    for r in compiled.resources() {
        let (spill, shared) = (r.spill_stores + r.spill_loads, source.shared_bytes + r.shared_bytes);
        let (regs, stack, threads, cubin) = (r.registers, r.stack_bytes, source.threads, compiled.cubin.len());
        println!("{name:34} {regs:4} {stack:5} {spill:6} {shared:6} {threads:7} {cubin:7} {ms:6}");
    }
    Ok(())
}
