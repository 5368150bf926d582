//! Problems of decode attention: sequences in random pages, and what the reference says of them.

use crate::run::{global, shuffled};
use crate::support::Random;
use kernel_dsl::prelude::*;
use kernels_gen::reference::{self, CacheShape, Decoded};
use kernels_gen::registry::CodecInfo;

pub struct Problem {
    pub d: usize,
    pub group: usize,
    pub page_tokens: usize,
    /// Warps of a block, 0 for what the codec has, and log2 of the leaves of a warp.
    pub share: (usize, usize),
    pub lens: Vec<i32>,
    /// The sequence whose page table has a bad entry.
    pub bad_page: Option<usize>,
}

/// Beside the warps of a share: parts wait away from shared memory.
pub const AWAY: usize = 64;
/// Added to warps: the kernel of a device whose blocks have little shared memory.
pub const SCARCE: usize = 128;
pub const KV_HEADS: usize = 2;
/// Page table entries of a sequence.
pub const STRIDE: usize = 36;

pub struct Data<T> {
    pub q: Global<T>,
    pub cache: Global<u8>,
    pub table: Vec<i32>,
    pub pages: usize,
    pub scale: f32,
    pub want: Decoded,
}

impl Problem {
    /// Sequences in random pages of a cache that is 0xff where no token is.
    pub fn data<T: Float>(&self, c: &CodecInfo) -> Data<T> {
        let mut random = Random((self.d * 100 + self.group) as u64);
        let batch = self.lens.len();
        let pages = batch * STRIDE + 3;
        let shape = CacheShape { pages, page_tokens: self.page_tokens, kv_heads: KV_HEADS, d: self.d };
        let mut table: Vec<i32> = shuffled(pages, &mut random).into_iter().take(batch * STRIDE).map(|p| p as i32).collect();
        let mut slots = vec![-1];
        for (b, len) in self.lens.iter().enumerate() {
            let used = (*len).clamp(0, (STRIDE * self.page_tokens) as i32) as usize;
            slots.extend((0..used).map(|t| i64::from(table[b * STRIDE + t / self.page_tokens]) * self.page_tokens as i64 + (t % self.page_tokens) as i64));
        }
        let n = slots.len() * KV_HEADS * self.d;
        let mut cache = vec![0xff; shape.bytes(c)];
        assert!(reference::store(c, &shape, &mut cache, &random.gaussians(n), &random.gaussians(n), &slots).is_ok());
        if let Some(b) = self.bad_page {
            table[b * STRIDE] = pages as i32;
        }
        let heads = KV_HEADS * self.group;
        let q: Global<T> = global(&random.gaussians(batch * heads * self.d));
        let scale = 1.0 / (self.d as f32).sqrt();
        let rows: Vec<f32> = q.to_vec().into_iter().map(T::to_f32).collect();
        let want = reference::decode(c, &shape, &cache, &rows, heads, &table, STRIDE, &self.lens, scale);
        Data { q, cache: Global::new(&cache), table, pages, scale, want }
    }
}
