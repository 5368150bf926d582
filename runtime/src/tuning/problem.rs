//! What a search times: calls of one size over a cache of made-up rows, as cold as an engine finds it.

use half::bf16;

use super::Size;
use crate::cuda::{Device, Event, Graph, Memory, Stream};
use crate::error::Result;
use crate::page::PagedCache;
use crate::plan::{Decode, DecodePlan, DecodeSpec, Rows, Store, StorePlan, StoreSpec, size_of_elem, status};
use kernels_gen::kernels::Elem;

const REPLAYS: usize = 11;

/// A cache filled with made-up rows, several times over, and the buffers of a call.
pub(super) struct Problem<'a> {
    device: &'a Device,
    stream: &'a Stream,
    spec: &'a DecodeSpec,
    kv_heads: usize,
    size: Size,
    cache: Memory,
    bytes: usize,
    copies: usize,
    buffers: [Memory; 5],
}

impl<'a> Problem<'a> {
    pub fn new(device: &'a Device, stream: &'a Stream, spec: &'a DecodeSpec, kv_heads: usize, size: Size) -> Result<Self> {
        let DecodeSpec { codec, head_dim: d, group, page_tokens: page, elem, .. } = *spec;
        let stride = size.tokens.div_ceil(page);
        let pages = size.batch * stride;
        let bytes = codec.cache_bytes(pages, page, kv_heads, d)? as usize;
        // Four times the L2, so that it holds nothing of the next turn.
        let copies = (4 * device.l2_bytes()).div_ceil(bytes.max(1)).clamp(1, 16);
        let cache = Memory::zeroed(device, bytes * copies)?;
        let report = Memory::zeroed(device, status::BYTES as usize)?;
        let store = StorePlan::prepare(device, &StoreSpec { codec, head_dim: d, page_tokens: page, elem: Elem::Bf16 })?;
        let chunk = (pages * page).min(8192);
        let (k, v) = (values(chunk * kv_heads * d, 1), values(chunk * kv_heads * d, 2));
        let (k, v) = (Memory::from_slice(device, &k)?, Memory::from_slice(device, &v)?);
        for copy in 0..copies {
            let base = cache.span().part((copy * bytes) as u64, bytes as u64)?;
            let paged = PagedCache { base, pages, page_tokens: page, kv_heads, head_dim: d };
            for first in (0..pages * page).step_by(chunk) {
                let slots: Vec<i64> = (first as i64..(first + chunk).min(pages * page) as i64).collect();
                let own = Memory::from_slice(device, &slots)?;
                let side = |base| Rows { base, token_stride: (kv_heads * d) as i64, head_stride: d as i64 };
                store.launch(stream, &Store { tokens: slots.len(), k: side(k.span()), v: side(v.span()), slots: own.span(), cache: paged, status: report.span() })?;
                stream.synchronise()?;
            }
        }
        let heads = kv_heads * group;
        let q = values(size.batch * heads * d, 3);
        let q = if elem == Elem::Bf16 { Memory::from_slice(device, &q)? } else { Memory::from_slice(device, &q.iter().map(|x| x.to_f32()).collect::<Vec<_>>())? };
        let buffers = [q, Memory::from_slice(device, &shuffled(pages))?, Memory::from_slice(device, &vec![size.tokens as i32; size.batch])?, Memory::zeroed(device, size.batch * heads * d * size_of_elem(elem))?, report];
        Ok(Problem { device, stream, spec, kv_heads, size, cache, bytes, copies, buffers })
    }

    /// The median of replays, per call.
    pub fn us(&self, plan: &DecodePlan) -> Result<f64> {
        let (stride, page, d) = (self.size.tokens.div_ceil(self.spec.page_tokens), self.spec.page_tokens, self.spec.head_dim);
        let workspace = Memory::zeroed(self.device, plan.workspace_bytes(self.size.batch, self.kv_heads * self.spec.group, stride)? as usize)?;
        let [q, table, lens, out, status] = self.buffers.each_ref().map(Memory::span);
        let turns = self.copies.max(4);
        let run = |stream: &Stream, i: usize| {
            let base = self.cache.span().part((i % self.copies * self.bytes) as u64, self.bytes as u64)?;
            let cache = PagedCache { base, pages: self.size.batch * stride, page_tokens: page, kv_heads: self.kv_heads, head_dim: d };
            let scale = (d as f32).sqrt().recip();
            plan.launch(stream, &Decode { batch: self.size.batch, q, cache, table, table_stride: stride, lens, out, lse: None, scale, workspace: workspace.span(), status })
        };
        run(self.stream, 0)?;
        let graph = Graph::record(self.stream, |s| (0..turns).try_for_each(|i| run(s, i)))?;
        let (begin, end) = (Event::new(self.device)?, Event::new(self.device)?);
        let mut times = vec![];
        for _ in 0..REPLAYS {
            begin.record(self.stream)?;
            graph.launch()?;
            end.record(self.stream)?;
            self.stream.synchronise()?;
            times.push(f64::from(begin.elapsed_ms(&end)?) * 1e3 / turns as f64);
        }
        // The first replays warm up.
        times.drain(..2);
        times.sort_by(f64::total_cmp);
        Ok(times[times.len() / 2])
    }
}

fn next(seed: &mut u64) -> u64 {
    *seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
    *seed >> 33
}

/// Sums of four uniforms.
fn values(count: usize, mut seed: u64) -> Vec<bf16> {
    let mut one = || (0..4).map(|_| next(&mut seed) as f32 / (1_u64 << 31) as f32 - 0.5).sum::<f32>();
    (0..count).map(|_| bf16::from_f32(one() * 1.73)).collect()
}

/// Pages in no order.
fn shuffled(pages: usize) -> Vec<i32> {
    let (mut order, mut seed) = ((0..pages as i32).collect::<Vec<_>>(), 7);
    (1..pages).rev().for_each(|i| order.swap(i, next(&mut seed) as usize % (i + 1)));
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_name_every_page_once() {
        let mut pages = shuffled(50);
        assert_ne!(pages, (0..50).collect::<Vec<_>>());
        pages.sort_unstable();
        assert_eq!(pages, (0..50).collect::<Vec<_>>());
        assert!(values(1000, 1).iter().all(|x| x.to_f32().abs() <= 3.47));
    }
}
