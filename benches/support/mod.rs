//! Shared by the benches: event timing of a captured graph, cold L2, the measured read ceiling, results as JSON.
#![allow(dead_code)]

use kernel_dsl::prelude::*;
use runtime::{Arg, Device, Event, Graph, Memory, Stream};
use std::io::Write;

/// The layer that is timed.
pub const KV_HEADS: usize = 8;
pub const HEADS: usize = 32;
pub const D: usize = 128;
pub const PAGE: usize = 64;

/// The first GPU and a stream; None, said aloud, without one.
pub fn open(bench: &str) -> Option<(Device, Stream)> {
    let opened = Device::open(0).and_then(|device| device.stream().map(|stream| (device, stream)));
    opened.inspect_err(|why| println!("SKIPPED {bench}: {why}")).ok()
}

/// The words of an environment variable, with commas, or `own`.
pub fn chosen(name: &str, own: &str) -> Vec<String> {
    std::env::var(name).unwrap_or_else(|_| own.into()).split(',').map(String::from).collect()
}

/// Every page once, in no order.
pub fn shuffled(pages: usize) -> Vec<i32> {
    let (mut order, mut seed) = ((0..pages as i32).collect::<Vec<_>>(), 7_u64);
    for i in (1..pages).rev() {
        seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        order.swap(i, (seed >> 33) as usize % (i + 1));
    }
    order
}

/// Median microseconds of one replay of what `enqueue(i)` puts on the stream for i in 0..copies, per copy.
/// Give enough copies of the data that the L2 cache holds none of the next one.
pub fn graph_us(device: &Device, stream: &Stream, copies: usize, enqueue: impl Fn(&Stream, usize) -> runtime::Result<()>) -> f64 {
    enqueue(stream, 0).expect("warm-up");
    let graph = Graph::record(stream, |s| (0..copies).try_for_each(|i| enqueue(s, i))).expect("capture");
    let (a, b) = (Event::new(device).expect("event"), Event::new(device).expect("event"));
    let mut times: Vec<f64> = (0..23)
        .map(|_| {
            a.record(stream).expect("record");
            graph.launch().expect("launch");
            b.record(stream).expect("record");
            stream.synchronise().expect("synchronise");
            a.elapsed_ms(&b).expect("elapsed") as f64 * 1e3 / copies as f64
        })
        .skip(3)
        .collect();
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// Device time of `n` replays.
pub fn replays(device: &Device, stream: &Stream, graph: &Graph, n: u64) -> std::time::Duration {
    let (a, b) = (Event::new(device).expect("event"), Event::new(device).expect("event"));
    a.record(stream).expect("record");
    (0..n).for_each(|_| graph.launch().expect("launch"));
    b.record(stream).expect("record");
    stream.synchronise().expect("synchronise");
    std::time::Duration::from_secs_f64(a.elapsed_ms(&b).expect("elapsed") as f64 * 1e-3)
}

#[derive(Clone, Copy)]
pub struct ReadMeta {
    pub bytes: usize,
}
impl Meta for ReadMeta {
    fn launch(&self) -> Launch {
        Launch { warps: 8, min_blocks: 2 }
    }
}

/// Reads `blocks` blocks of `m.bytes` bytes and does next to nothing with them.
#[kernel]
pub fn read_all(m: ReadMeta, src: &Global<u8>, out: &mut Global<i32>, blocks: i32, step: i32) {
    let ring = ring(3, m.bytes);
    for w in warps(8) {
        let mut top = rows(32, 0_i32);
        for t in stream(block_id(0) * 8_i32 + w, blocks, step, 3) {
            let page = ring.copy(src, t as i64 * m.bytes as i64);
            top = &top + &page.rows::<i32>(0, 128, 32);
        }
        out.put(block_id(0) * 8_i32 + w, (acc(32, 8, 0_i32) + &top).sum_rows().map(odd).any() as i32);
    }
}

#[device]
fn odd(x: i32) -> bool {
    (x & 1_i32) == 1_i32
}

/// Microseconds to read `bytes` bytes, cold: the floor of any kernel that reads as many.
pub fn read_us(device: &Device, stream: &Stream, bytes: usize) -> f64 {
    let meta = ReadMeta { bytes: 4096 };
    let source = kernel_dsl::Source::of(&read_all::build(&meta).expect("build")).expect("lower");
    let kernel = device.kernel(&source).expect("compile");
    let copies = copies(device, bytes);
    let memory = Memory::zeroed(device, bytes * copies).expect("memory");
    memory.fill(stream, 0x5a).expect("fill");
    let grid = device.multiprocessors() * 2;
    let out = Memory::zeroed(device, grid * 32).expect("memory");
    graph_us(device, stream, copies, |s, i| {
        let src = memory.span().part((i * bytes) as u64, bytes as u64)?;
        kernel.launch(s, [grid as u32, 1, 1], &[Arg::Ptr(src), Arg::Ptr(out.span()), Arg::I32((bytes / 4096) as i32), Arg::I32(grid as i32 * 8)])
    })
}

/// Copies of the data that make every read a cold one: several times the L2.
pub fn copies(device: &Device, bytes: usize) -> usize {
    (4 * device.l2_bytes()).div_ceil(bytes.max(1)).clamp(1, 16)
}

/// Appends a line to the results file named by `KVF_RESULTS`, and prints it.
pub fn report(line: &serde_json::Value) {
    println!("{line}");
    if let Some(path) = std::env::var_os("KVF_RESULTS") {
        if let Ok(mut f) = std::fs::OpenOptions::new().create(true).append(true).open(path) {
            let _ = writeln!(f, "{line}");
        }
    }
}

/// Seeded rows, near Gaussian: sums of four uniforms.
pub fn values(n: usize, seed: u64) -> Vec<half::bf16> {
    let mut s = seed;
    (0..n)
        .map(|_| {
            s = s.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let x = s ^ (s >> 29);
            half::bf16::from_f32((0..4).map(|i| (x >> (16 * i) & 0xffff) as f32 / 65536.0 - 0.5).sum::<f32>() * 1.73)
        })
        .collect()
}
