//! What every lesson does after its kernel: some numbers to work on, a run on the GPU, a verdict.
#![allow(dead_code)]

use kvfuse::kernel_dsl::Source;
use kvfuse::kernel_dsl::prelude::*;
use kvfuse::runtime::{Arch, Arg, Device, Error, Memory, compile};
use std::process::ExitCode;

/// Numbers around 0 that look random and are the same on every run.
pub fn numbers(n: usize, seed: u32) -> Vec<f32> {
    let mut x = seed.wrapping_mul(2_654_435_761).wrapping_add(1);
    let mut next = || {
        x = x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (x >> 8) as f32 / 8_388_608.0 - 1.0
    };
    (0..n).map(|_| next()).collect()
}

/// Rounded to bf16.
pub fn halves(x: &[f32]) -> Vec<bf16> {
    x.iter().map(|v| bf16::from_f32(*v)).collect()
}

/// Runs a kernel on GPU 0 and brings its buffers back, or says why there is none and still compiles the
/// kernel where NVRTC is found. `buffers` are its first arguments, `scalars` the ones that follow.
pub fn gpu(source: &Source, grid: [u32; 3], buffers: &[&[u8]], scalars: &[Arg<'static>]) -> Result<Option<Vec<Vec<u8>>>, Failure> {
    let device = match Device::open(0) {
        Ok(device) => device,
        Err(why) => {
            println!("GPU: none ({why})");
            return compiled(source).map(|()| None);
        }
    };
    let (kernel, stream) = (device.kernel(source)?, device.stream()?);
    let memory = buffers.iter().map(|b| Memory::from_slice(&device, b)).collect::<Result<Vec<_>, _>>()?;
    let args: Vec<Arg> = memory.iter().map(|m| Arg::Ptr(m.span())).chain(scalars.iter().copied()).collect();
    kernel.launch(&stream, grid, &args)?;
    let back = memory.iter().map(|m| m.download(&stream, 0, m.bytes())).collect::<Result<Vec<Vec<u8>>, _>>()?;
    println!("GPU: {}, `{}` ran over {grid:?} blocks of {} threads", device.name(), source.name, source.threads);
    Ok(Some(back))
}

/// Compiles for Hopper without a GPU, where NVRTC is found.
pub fn compiled(source: &Source) -> Result<(), Failure> {
    match compile::compile(source, Arch::SM_90A) {
        Ok(c) => println!("NVRTC: `{}` compiled for {}, {} bytes", source.name, Arch::SM_90A, c.cubin.len()),
        Err(why @ (Error::NoNvrtc(_) | Error::NvrtcLoad { .. })) => println!("NVRTC: none ({why})"),
        Err(why) => return Err(why.into()),
    }
    Ok(())
}

/// A lesson fails with an error's text.
pub type Failure = Box<dyn std::error::Error>;

/// Passes if both have the same bits.
pub fn same_bits(what: &str, got: &[u8], want: &[u8]) -> Result<(), Failure> {
    let bad = want.iter().zip(got).filter(|(a, b)| a != b).count();
    if bad > 0 || got.len() != want.len() {
        return Err(format!("{what}: {bad} of {} bytes differ", want.len()).into());
    }
    println!("{what}: the same bits, {} bytes", want.len());
    Ok(())
}

/// Passes if no element is further than `bound` from what is wanted.
pub fn within(what: &str, got: &[f32], want: &[f32], bound: f32) -> Result<(), Failure> {
    let worst = got.iter().zip(want).map(|(a, b)| (a - b).abs()).fold(0.0, |a: f32, e| if e <= a { a } else { e });
    if !(worst <= bound) || got.len() != want.len() {
        return Err(format!("{what}: off by {worst:e}, allowed {bound:e}").into());
    }
    println!("{what}: off by {worst:e} at most, allowed {bound:e}");
    Ok(())
}

/// The f32 values of a buffer's bytes.
pub fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
}

/// Exit code 1 and the reason, if the lesson failed.
pub fn verdict(result: Result<(), Failure>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            println!("FAILED: {why}");
            ExitCode::FAILURE
        }
    }
}
