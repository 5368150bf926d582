//! KIVI's cache as its kernels have it: whole tiles of codes, the newest tokens raw, the two attention states merged. Computed by
//! the scalar references, whose bits the kernels have; raw rows are bf16.

use kernels_gen::kivi::{GROUP, Kivi, KiviLayout};
use kernels_gen::reference::{CacheShape, KiviHead, merge, store_groups, to_bf16};
use rayon::prelude::*;

use super::{Counted, Distortion, Geometry, History, Sizes, Tally};
use crate::error::Result;
use crate::model::{Attention, Rows};

pub struct Grouped {
    codec: &'static Kivi,
    geometry: Geometry,
    raw: History,
    /// of each layer, for each kv head
    tiles: Vec<Vec<KiviHead>>,
    tally: Tally,
    /// of each layer, as it stands
    sizes: Vec<Sizes>,
}

impl Grouped {
    /// Whether the kernels serve a model.
    pub fn serves(geometry: &Geometry) -> bool {
        kernels_gen::kernels::kivi::HEAD_DIMS.contains(&geometry.d) && geometry.heads / geometry.kv_heads <= kernels_gen::kernels::kivi::GROUPS
    }

    pub fn new(codec: &'static Kivi, geometry: Geometry) -> Grouped {
        let tiles = (0..geometry.layers).map(|_| (0..geometry.kv_heads).map(|_| KiviHead::new(codec, geometry.d)).collect());
        Grouped { codec, geometry, raw: History::default(), tiles: tiles.collect(), tally: Tally::default(), sizes: vec![Sizes::default(); geometry.layers] }
    }

    /// Codes the tiles that have become complete in a layer; queries read them once the window has passed.
    fn code(&mut self, rows: &Rows) {
        let Geometry { kv_heads, d, .. } = self.geometry;
        let (width, bytes) = (kv_heads * d, KiviLayout::of(self.codec, d).tile_bytes());
        let [k, v] = self.raw.push(rows.layer, rows.k, rows.v);
        let shape = CacheShape { pages: 1, page_tokens: GROUP, kv_heads, d };
        for first in (self.tiles[rows.layer][0].len()..k.len() / width / GROUP * GROUP).step_by(GROUP) {
            let own = first * width..(first + GROUP) * width;
            let (k, v) = (&k[own.clone()], &v[own]);
            let mut cache = vec![0; kv_heads * bytes];
            store_groups(self.codec, &shape, &mut cache, k, v, &[0; GROUP]);
            self.tiles[rows.layer].iter_mut().zip(cache.chunks(bytes)).for_each(|(head, tile)| head.push(tile));
            let layer = self.tally.layer(rows.layer);
            layer.k += Distortion::of_rows(k, &self.codec.keys(k), d);
            layer.v += Distortion::of_rows(v, &self.codec.values(v), d);
        }
        let [before, after] = [rows.start, rows.start + rows.tokens].map(|tokens| Self::tile_bytes(self.codec, &self.geometry, tokens));
        self.tally.bytes_written += after[0] - before[0];
        self.tally.bytes_read += after[1] - before[1];
        self.sizes[rows.layer] = Self::sizes(self.codec, &self.geometry, rows.start + rows.tokens);
    }

    /// What `tokens` tokens of a layer take.
    pub fn sizes(codec: &Kivi, geometry: &Geometry, tokens: usize) -> Sizes {
        let Geometry { kv_heads, d, .. } = *geometry;
        let (coded, bytes) = (codec.coded_tiles(tokens), KiviLayout::of(codec, d).tile_bytes());
        Sizes { coded: (2 * coded * kv_heads * d) as u64, bytes: (coded / GROUP * kv_heads * bytes) as u64, raw: (2 * (tokens - coded) * kv_heads * d) as u64 }
    }

    /// Bytes of tiles that are written once so many tokens are there, and those that all their queries read.
    pub fn tile_bytes(codec: &Kivi, geometry: &Geometry, tokens: usize) -> [u64; 2] {
        let tile = (geometry.kv_heads * KiviLayout::of(codec, geometry.d).tile_bytes()) as u64;
        let read: usize = (1..=tokens).map(|seen| codec.coded_tiles(seen) / GROUP).sum();
        [(tokens / GROUP) as u64 * tile, read as u64 * tile]
    }

    /// One query row of kv head `head` that sees `tokens` tokens.
    fn row(&self, layer: usize, head: usize, q: &[f32], tokens: usize, out: &mut [f32]) {
        let Geometry { d, scale, .. } = self.geometry;
        let coded = self.codec.coded_tiles(tokens);
        let (a, x) = self.tiles[layer][head].attend(q, coded, scale);
        let (b, y) = window(&self.geometry, self.raw.layer(layer), head, q, coded, tokens);
        out.copy_from_slice(&merge((&a, &[x]), (&b, &[y]), d).0);
    }
}

/// Output and log-sum-exp of a query row over the raw tokens from `first` to `end`.
pub(super) fn window(geometry: &Geometry, [k, v]: [&[f32]; 2], head: usize, q: &[f32], first: usize, end: usize) -> (Vec<f32>, f32) {
    let Geometry { kv_heads, d, scale, .. } = *geometry;
    let row = |x: &[f32], t: usize| x[(t * kv_heads + head) * d..][..d].iter().map(|x| to_bf16(*x)).collect::<Vec<f32>>();
    let q: Vec<f32> = q.iter().map(|q| to_bf16(*q)).collect();
    let scores: Vec<f32> = (first..end).map(|t| scale * row(k, t).iter().zip(&q).map(|(k, q)| k * q).sum::<f32>()).collect();
    let top = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let total: f32 = scores.iter().map(|s| (s - top).exp()).sum();
    let mut out = vec![0.0; d];
    for (t, score) in (first..end).zip(&scores) {
        let share = (score - top).exp() / total;
        out.iter_mut().zip(row(v, t)).for_each(|(o, v)| *o += v * share);
    }
    (out, top + total.ln())
}

impl Attention for Grouped {
    fn attend(&mut self, rows: &Rows) -> Result<Vec<f32>> {
        let Geometry { heads, kv_heads, d, .. } = self.geometry;
        self.code(rows);
        let mut out = vec![0.0; rows.q.len()];
        out.par_chunks_mut(d).zip(rows.q.par_chunks(d)).enumerate().for_each(|(i, (out, q))| {
            let (token, head) = (i / heads, i % heads);
            self.row(rows.layer, head / (heads / kv_heads), q, rows.start + token + 1, out);
        });
        Ok(out)
    }
}

impl Counted for Grouped {
    fn tally(&self) -> Tally {
        self.tally.clone().with_sizes(&self.sizes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attention::{Dense, chunks};

    const GEOMETRY: Geometry = Geometry { layers: 1, heads: 4, kv_heads: 2, d: 64, scale: 0.15 };
    const TOKENS: usize = 130;

    fn run(attention: &mut dyn Attention, chunks: &[usize]) -> Vec<f32> {
        chunks::run(attention, &GEOMETRY, chunks)
    }

    fn grouped(name: &str) -> Grouped {
        Grouped::new(kernels_gen::kivi::open(name).unwrap(), GEOMETRY)
    }

    #[test]
    fn chunks_change_no_bit_and_eight_bits_next_to_nothing() {
        let whole = run(&mut grouped("kivi_k2v2_r32"), &[TOKENS]);
        assert_eq!(run(&mut grouped("kivi_k2v2_r32"), &[7, 25, 31, 1, 66]), whole);
        let exact = run(&mut Dense::new(GEOMETRY), &[TOKENS]);
        let off = |x: &[f32], from: usize, to: usize| x.iter().zip(&exact).take(to * 256).skip(from * 256).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        // Up to 63 tokens all are raw, as bf16.
        assert!(off(&whole, 0, 63) < 1e-2 && off(&whole, 70, TOKENS) > 1e-2, "{} {}", off(&whole, 0, 63), off(&whole, 70, TOKENS));
        assert!(off(&run(&mut grouped("kivi_k8v8_r32"), &[TOKENS]), 0, TOKENS) < 1e-2);
    }

    #[test]
    fn bytes_are_those_of_the_last_token() {
        let mut attention = grouped("kivi_k2v4_r32");
        run(&mut attention, &[60, 70]);
        let sizes = attention.tally().sizes;
        // 96 of 130 tokens, two kv heads, six bits and two pairs of f16 for 32 numbers of each half.
        assert_eq!((sizes.coded, sizes.raw), (2 * 96 * 128, 2 * 34 * 128));
        assert_eq!(sizes.bytes, 96 * 128 * 6 / 8 + 2 * 96 * 128 / 32 * 4);
    }
}
