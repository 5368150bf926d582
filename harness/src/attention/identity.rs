//! The identity codec: f32 rows through the same slots and page table, then the base model's own attention.
//! It must give the base model's logits bit for bit; anything else means that the machinery changes the result.

use super::{Counted, Dense, Distortion, Geometry, PAGE_TOKENS, Pages, Tally};
use crate::error::Result;
use crate::model::{Attention, Rows};

pub struct Identity {
    pages: Pages,
    dense: Dense,
    /// [layer][K | V][slot, kv head, d]
    caches: Vec<[Vec<f32>; 2]>,
    tally: Tally,
}

impl Identity {
    pub fn new(geometry: Geometry, tokens: usize) -> Identity {
        let pages = Pages::new(tokens, PAGE_TOKENS);
        let elements = pages.count() * pages.page_tokens * geometry.kv_heads * geometry.d;
        let caches: Vec<_> = (0..geometry.layers).map(|_| [vec![f32::NAN; elements], vec![f32::NAN; elements]]).collect();
        let tally = Tally { allocated: (geometry.layers * 2 * 4 * elements) as u64, ..Tally::default() };
        Identity { pages, dense: Dense::new(geometry), caches, tally }
    }
}

impl Attention for Identity {
    fn attend(&mut self, rows: &Rows) -> Result<Vec<f32>> {
        let width = self.dense.geometry.kv_heads * self.dense.geometry.d;
        let caches = &mut self.caches[rows.layer];
        let mut read = [Vec::new(), Vec::new()];
        for ((cache, read), input) in caches.iter_mut().zip(&mut read).zip([rows.k, rows.v]) {
            for (token, row) in input.chunks_exact(width).enumerate() {
                cache[self.pages.slot(rows.start + token) * width..][..width].copy_from_slice(row);
            }
            let seen = 0..rows.start + rows.tokens;
            *read = seen.flat_map(|t| &cache[self.pages.slot(t) * width..][..width]).copied().collect();
        }
        let [k, v] = read;
        let (d, own) = (self.dense.geometry.d, rows.start * width);
        let layer = self.tally.layer(rows.layer);
        layer.k += Distortion::of_rows(rows.k, &k[own..], d);
        layer.v += Distortion::of_rows(rows.v, &v[own..], d);
        self.tally.count(rows, 8 * d as u64, self.dense.geometry.kv_heads, 1);
        self.dense.over(rows, &k, &v)
    }
}

impl Counted for Identity {
    fn tally(&self) -> Tally {
        self.tally.clone()
    }
}
