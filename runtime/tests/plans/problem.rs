//! One problem on the host, and what the scalar reference makes of it.

use half::bf16;
use kernels_gen::reference::{self, CacheShape, Decoded};
use runtime::*;

pub fn random(state: &mut u64) -> u32 {
    *state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
    (*state >> 33) as u32
}

/// bf16 values of about unit size, with an outlier here and there.
pub fn rows(count: usize, state: &mut u64) -> Vec<f32> {
    let one = |state: &mut u64| {
        let x = random(state) as f32 / (1_u32 << 30) as f32 - 1.0;
        bf16::from_f32(if random(state).is_multiple_of(97) { 20.0 * x } else { x }).to_f32()
    };
    (0..count).map(|_| one(state)).collect()
}

/// One problem: what goes in, on the host.
pub struct Problem {
    pub codec: Codec,
    pub shape: CacheShape,
    pub elem: Elem,
    pub heads: usize,
    pub table_stride: usize,
    pub k: Vec<f32>,
    pub v: Vec<f32>,
    pub q: Vec<f32>,
    pub slots: Vec<i64>,
    pub table: Vec<i32>,
    pub lens: Vec<i32>,
}

impl Problem {
    /// Sequences of these lengths on shuffled pages; every 13th token is padding in between.
    pub fn new(name: &str, d: usize, group: usize, page_tokens: usize, elem: Elem, lens: &[i32], seed: u64) -> Self {
        let (mut state, kv_heads, batch) = (seed, 2, lens.len());
        let table_stride = lens.iter().map(|l| (*l as usize).div_ceil(page_tokens)).max().unwrap().max(1) + 1;
        let pages = batch * table_stride + 3;
        let mut free: Vec<i32> = (0..pages as i32).collect();
        (1..pages).rev().for_each(|i| free.swap(i, random(&mut state) as usize % (i + 1)));
        let table = free[..batch * table_stride].to_vec();
        let mut slots = Vec::new();
        for (b, len) in lens.iter().enumerate() {
            for i in 0..*len as usize {
                let page = table[b * table_stride + i / page_tokens] as usize;
                slots.push((page * page_tokens + i % page_tokens) as i64);
                if slots.len() % 13 == 0 {
                    slots.push(-1 - (random(&mut state) as i64));
                }
            }
        }
        let shape = CacheShape { pages, page_tokens, kv_heads, d };
        let (tokens, heads) = (slots.len(), kv_heads * group);
        let [k, v] = [0, 1].map(|_| rows(tokens * kv_heads * d, &mut state));
        let q = rows(batch * heads * d, &mut state);
        let codec = Codec::open(name).unwrap();
        Problem { codec, shape, elem, heads, table_stride, k, v, q, slots, table, lens: lens.to_vec() }
    }

    pub fn scale(&self) -> f32 {
        (self.shape.d as f32).sqrt().recip()
    }

    /// The cache (from a pattern, so that a stray write shows) and the output by the reference.
    pub fn reference(&self) -> (Vec<u8>, Decoded, u32) {
        let mut cache = vec![0xc3; self.shape.bytes(self.codec.info())];
        let stored = reference::store(self.codec.info(), &self.shape, &mut cache, &self.k, &self.v, &self.slots);
        let (heads, stride) = (self.heads, self.table_stride);
        let info = self.codec.info();
        let out = reference::decode(info, &self.shape, &cache, &self.q, heads, &self.table, stride, &self.lens, self.scale());
        let status = stored.0 | out.status.0;
        (cache, out, status)
    }
}
