//! Attention over rows of one head, DeepSeek-V4's, at the shapes of FlashMLA's own test of sparse decode: 64 heads; a window of 128 rows
//! and 512 others, one or two query tokens a sequence; and one list of 2048 or 16384. Rows are scattered over a pool of 2^20, lists differ from
//! run to run, so the L2 is cold. Times are device events around a replayed graph, join included.
//!
//! FLOP are 2 x heads x 1024 a row, as FlashMLA counts them. `KVF_FORMATS=v4_e8w4_int8` chooses formats, `KVF_SHARES=640,1024` shares,
//! `KVF_RESULTS=FILE` appends JSON. Without a GPU it prints SKIPPED.

#[path = "support/mod.rs"]
mod support;

use kernels_gen::latent::{DIM, format};
use runtime::{DecodeLatent, Device, LatentList, LatentPlan, LatentRows, Memory, Result, StoreLatent, Stream};
use support::chosen;

const HEADS: usize = 64;
const POOL: usize = 1 << 20;
/// Lists that a graph goes through.
const LISTS: usize = 4;
/// Rows that are coded; the pool repeats them.
const CODED: usize = 8192;

/// Sequences, query tokens of each, window, others.
fn shapes() -> Vec<[usize; 4]> {
    let csa = [2, 64, 74, 128, 148, 256].into_iter().flat_map(|b| [1, 2].map(|queries| [b, queries, 128, 512]));
    [[64, 1, 0, 2048], [64, 1, 0, 16384]].into_iter().chain(csa).collect()
}

fn random(n: usize, below: usize, seed: u64) -> Vec<i32> {
    let mut s = seed;
    let next = |_| {
        s = s.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        ((s >> 33) as usize % below) as i32
    };
    (0..n).map(next).collect()
}

/// A pool of coded rows.
fn pool(device: &Device, stream: &Stream, plan: &LatentPlan) -> Result<Memory> {
    let bytes = plan.format().row_bytes();
    let pool = Memory::zeroed(device, POOL * bytes)?;
    let x: Vec<f32> = support::values(CODED * DIM, 5).iter().map(|x| x.to_f32()).collect();
    let (x, status) = (Memory::from_slice(device, &x)?, Memory::zeroed(device, 16)?);
    let slots = Memory::from_slice(device, &(0..CODED as i64).collect::<Vec<i64>>())?;
    for at in 0..POOL / CODED {
        let base = pool.span().part((at * CODED * bytes) as u64, (CODED * bytes) as u64)?;
        plan.store(stream, &StoreLatent { rows: CODED, x: x.span(), slots: slots.span(), cache: LatentRows { base, rows: CODED }, status: status.span() })?;
    }
    Ok(pool)
}

fn time(device: &Device, stream: &Stream, plan: &LatentPlan, pool: &Memory, [batch, queries, window, extra]: [usize; 4], share: usize) -> Result<f64> {
    let tokens = batch * queries;
    let q = Memory::from_slice(device, &support::values(tokens * HEADS * DIM, 3))?;
    let lists = [window, extra].map(|n| Memory::from_slice(device, &random((LISTS * tokens * n).max(1), POOL, 11 + n as u64)));
    let [window_at, extra_at] = lists;
    let (window_at, extra_at) = (window_at?, extra_at?);
    let lens = Memory::from_slice(device, &[window as i32, extra as i32].repeat(tokens))?;
    let sinks = Memory::from_slice(device, &[0.0_f32; HEADS])?;
    let (out, lse) = (Memory::zeroed(device, tokens * HEADS * DIM * 2)?, Memory::zeroed(device, tokens * HEADS * 4)?);
    let cache = LatentRows { base: pool.span(), rows: POOL };
    let call = |i: usize, workspace| {
        let part = |at, n: usize| Memory::span(at).part((4 * i * tokens * n) as u64, (4 * tokens * n).max(4) as u64);
        let (window_at, extra_at) = (part(&window_at, window)?, part(&extra_at, extra)?);
        let (window, extra) = (LatentList { cache, at: window_at, capacity: window }, LatentList { cache, at: extra_at, capacity: extra });
        let scale = (DIM as f32).sqrt().recip();
        Ok::<_, runtime::Error>(DecodeLatent { tokens, heads: HEADS, q: q.span(), window, extra, lens: lens.span(), sinks: sinks.span(), out: out.span(), lse: lse.span(), scale, share, workspace })
    };
    let workspace = Memory::zeroed(device, plan.workspace_bytes(&call(0, lse.span())?)?.max(16) as usize)?;
    Ok(support::graph_us(device, stream, LISTS, |s, i| plan.decode(s, &call(i, workspace.span())?)))
}

fn main() -> Result<()> {
    let Some((device, stream)) = support::open("latent") else { return Ok(()) };
    for name in chosen("KVF_FORMATS", "v4_int4_int8,v4_e8w4_int8,v4_int8_int8") {
        let f = format(&name).unwrap_or_else(|why| panic!("{why}"));
        let plan = LatentPlan::prepare(&device, &f)?;
        let pool = pool(&device, &stream, &plan)?;
        for shape in shapes() {
            let [batch, queries, window, extra] = shape;
            let (tokens, rows) = (batch * queries, window + extra);
            let own = if rows > 1024 { "1024,2048,4096,8192" } else { "128,256,384,640" };
            for share in chosen("KVF_SHARES", own) {
                let share: usize = share.parse().unwrap_or_else(|_| panic!("KVF_SHARES are numbers of rows"));
                let us = time(&device, &stream, &plan, &pool, shape, share)?;
                let tflops = (tokens * rows * HEADS * 2 * 1024) as f64 / us * 1e-6;
                let bytes = tokens * rows * f.row_bytes();
                support::report(&serde_json::json!({
                    "bench": "latent", "format": name, "row_bytes": f.row_bytes(), "batch": batch, "queries": queries, "window": window, "extra": extra,
                    "heads": HEADS, "share": share, "us": us, "tflops": tflops, "kv_bytes": bytes, "device": device.name(),
                }));
            }
        }
    }
    Ok(())
}
