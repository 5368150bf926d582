//! The PCA codec's cache as its kernels have it: blocks of 512 tokens in pages, the newest tokens raw, the two attention states merged.
//! Computed by the scalar references, whose bits the kernels have; raw rows are bf16. Bases that blocks share are fitted to the blocks that are
//! full when a layer's first one is coded, and their frames are counted. Keys before RoPE are turned back first, and pages say how they turn.

use std::ops::Range;

use kernels_gen::pca::pages::{self, BLOCK, Before, PcaLayout, PcaPages};
use kernels_gen::pca::{self, Settings, Table};
use kernels_gen::reference::{PcaHead, merge};
use rayon::prelude::*;

use super::grouped::window;
use super::{Blocks, Counted, Distortion, Geometry, History, Sizes, Stream, Tally};
use crate::error::Result;
use crate::model::{Attention, Rows};

pub struct Blocked {
    codec: &'static PcaPages,
    /// of keys before RoPE: how they turn
    turns: Option<&'static Blocks>,
    geometry: Geometry,
    raw: History,
    /// of each layer, for each kv head
    blocks: Vec<Vec<PcaHead>>,
    tally: Tally,
    /// of each layer, as it stands
    sizes: Vec<Sizes>,
}

impl Blocked {
    /// Whether the codec has pages, and their kernels serve the model.
    pub fn serves(codec: &pca::Codec, geometry: &Geometry) -> bool {
        let group = geometry.heads / geometry.kv_heads;
        pages::has(&codec.name) && kernels_gen::kernels::pca::HEAD_DIMS.contains(&geometry.d) && group <= kernels_gen::kernels::kivi::GROUPS
    }

    /// Its pages, if so, with the levels that were fitted.
    pub fn pages(codec: &pca::Codec, blocks: Option<&Blocks>, geometry: &Geometry) -> Option<&'static PcaPages> {
        let levels = |half: Stream, settings: &Settings| Some(blocks?.coding(half).levels.as_slice()).filter(|_| settings.table == Table::Fitted);
        let open = || pages::open_fitted(&codec.name, [levels(Stream::K, &codec.k), levels(Stream::V, &codec.v)])?.ok();
        Blocked::serves(codec, geometry).then(open).flatten()
    }

    /// `turns`: of the model, without which only keys after RoPE are coded.
    pub fn new(codec: &'static PcaPages, geometry: Geometry, turns: Option<&'static Blocks>) -> Blocked {
        let turns = turns.filter(|_| codec.k.before_rope);
        let blocks = (0..geometry.layers).map(|_| (0..geometry.kv_heads).map(|_| PcaHead::new(codec, geometry.d)).collect());
        Blocked { codec, turns, geometry, raw: History::default(), blocks: blocks.collect(), tally: Tally::default(), sizes: vec![Sizes::default(); geometry.layers] }
    }

    /// Codes the blocks that have become full in a layer.
    fn code(&mut self, rows: &Rows) -> Result<()> {
        let Geometry { kv_heads, d, .. } = self.geometry;
        let width = kv_heads * d;
        let [k, v] = self.raw.push(rows.layer, rows.k, rows.v);
        let done = self.blocks[rows.layer][0].len();
        let full = k.len() / width / BLOCK * BLOCK;
        let own = |x: &[f32], head: usize, tokens: Range<usize>| x[tokens.start * width..tokens.end * width].chunks_exact(width).flat_map(|row| &row[head * d..][..d]).copied().collect::<Vec<f32>>();
        if done == 0 && full > 0 && self.codec.lead() > 0 {
            let bases = (0..kv_heads).into_par_iter().map(|head| self.codec.fit_bases(&own(k, head, 0..full), &own(v, head, 0..full), d));
            let heads = bases.map(|bases| Ok(PcaHead::new(self.codec, d).under(&bases?))).collect::<Result<_>>()?;
            self.blocks[rows.layer] = heads;
        }
        for first in (done..full).step_by(BLOCK) {
            let coded = self.blocks[rows.layer].par_iter().enumerate().map(|(head, coder)| {
                let (mut k, v) = (own(k, head, first..first + BLOCK), own(v, head, first..first + BLOCK));
                let block = PcaHead::new(self.codec, d);
                let mut block = if let Some(bases) = coder.bases() { block.under(bases) } else { block };
                let page = match self.turns.map(|turns| turns.before(rows.layer, head, first, &mut k)) {
                    Some((speeds, whitening)) => self.codec.encode_before(coder.bases(), &k, &v, d, &Before { speeds: &speeds, whitening })?,
                    None => self.codec.encode(coder.bases(), &k, &v, d)?,
                };
                block.push(&page);
                let [keys, values] = block.numbers().map(|x| x.into_iter().map(|x| x as f32).collect::<Vec<f32>>());
                Ok((page, Distortion::of_rows(&k, &keys, d), Distortion::of_rows(&v, &values, d)))
            });
            let coded = coded.collect::<Result<Vec<_>>>()?;
            let layer = self.tally.layer(rows.layer);
            for (head, (page, k, v)) in self.blocks[rows.layer].iter_mut().zip(coded) {
                head.push(&page);
                layer.k += k;
                layer.v += v;
            }
        }
        let (tokens, coded) = (rows.start + rows.tokens, self.blocks[rows.layer][0].len());
        let layout = PcaLayout::of(self.codec, d);
        let bases: usize = [0, 1].into_iter().filter(|side| self.codec.shared()[*side]).map(|side| layout.frame_bytes(side)).sum();
        let bytes = kv_heads * (coded / BLOCK * layout.page_bytes() + if coded > 0 { bases } else { 0 });
        self.sizes[rows.layer] = Sizes { coded: (2 * coded * width) as u64, bytes: bytes as u64, raw: (2 * (tokens - coded) * width) as u64 };
        Ok(())
    }

    /// One query row of kv head `head` that sees `tokens` tokens.
    fn row(&self, layer: usize, head: usize, q: &[f32], tokens: usize, out: &mut [f32]) {
        let coded = tokens / BLOCK * BLOCK;
        let parts = kernels_gen::kernels::pca::parts(&self.codec, self.geometry.heads / self.geometry.kv_heads);
        let (a, x) = self.blocks[layer][head].attend(q, coded, parts, self.geometry.scale);
        let (b, y) = window(&self.geometry, self.raw.layer(layer), head, q, coded, tokens);
        out.copy_from_slice(&merge((&a, &[x]), (&b, &[y]), self.geometry.d).0);
    }
}

impl Attention for Blocked {
    fn attend(&mut self, rows: &Rows) -> Result<Vec<f32>> {
        let Geometry { heads, kv_heads, d, .. } = self.geometry;
        self.code(rows)?;
        let mut out = vec![0.0; rows.q.len()];
        out.par_chunks_mut(d).zip(rows.q.par_chunks(d)).enumerate().for_each(|(i, (out, q))| {
            let (token, head) = (i / heads, i % heads);
            self.row(rows.layer, head / (heads / kv_heads), q, rows.start + token + 1, out);
        });
        Ok(out)
    }
}

impl Counted for Blocked {
    fn tally(&self) -> Tally {
        self.tally.clone().with_sizes(&self.sizes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attention::{Dense, chunks};

    const GEOMETRY: Geometry = Geometry { layers: 1, heads: 2, kv_heads: 1, d: 64, scale: 0.15 };
    const TOKENS: usize = 600;

    fn blocked(name: &str) -> Blocked {
        let codec = pca::codec(name).unwrap().unwrap();
        Blocked::new(Blocked::pages(&codec, None, &GEOMETRY).unwrap(), GEOMETRY, None)
    }

    #[test]
    fn chunks_change_no_bit_and_the_newest_tokens_are_raw() {
        let whole = chunks::run(&mut blocked("pca_b4_post_vr100"), &GEOMETRY, &[TOKENS]);
        assert_eq!(chunks::run(&mut blocked("pca_b4_post_vr100"), &GEOMETRY, &[7, 505, 31, 57]), whole);
        let exact = chunks::run(&mut Dense::new(GEOMETRY), &GEOMETRY, &[TOKENS]);
        let off = |from: usize, to: usize| whole.iter().zip(&exact).take(to * 128).skip(from * 128).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        // Up to 511 tokens all are raw, as bf16.
        assert!(off(0, 511) < 1e-2 && off(512, TOKENS) > 2.0 * off(0, 511) && off(512, TOKENS) < 0.1, "{} {}", off(0, 511), off(512, TOKENS));
        assert!(Blocked::serves(&pca::codec("pca_b3").unwrap().unwrap(), &GEOMETRY) && !Blocked::serves(&pca::codec("pca_v13").unwrap().unwrap(), &GEOMETRY));
    }

    #[test]
    fn bytes_are_those_of_the_last_token() {
        let mut attention = blocked("pca_b3_post");
        chunks::run(&mut attention, &GEOMETRY, &[60, 540]);
        let sizes = attention.tally().sizes;
        assert_eq!((sizes.coded, sizes.raw), (2 * 512 * 64, 2 * 88 * 64));
        assert_eq!(sizes.bytes as usize, PcaLayout::of(attention.codec, 64).page_bytes());
    }

    #[test]
    fn shared_bases_are_counted_once() {
        let mut attention = blocked("pca_b3_post_t2_vr100/pca_b2_share_vr100");
        let out = chunks::run(&mut attention, &GEOMETRY, &[1100]);
        let exact = chunks::run(&mut Dense::new(GEOMETRY), &GEOMETRY, &[1100]);
        let off = out.iter().zip(&exact).skip(512 * 128).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(off > 1e-3 && off < 0.5, "{off}");
        let layout = PcaLayout::of(attention.codec, 64);
        assert_eq!(attention.tally().sizes.bytes as usize, 2 * layout.page_bytes() + layout.frame_bytes(1));
    }
}
