//! A cache that keeps its latest tokens raw, as KIVI does: a query reads codes up to where they reach at its own token, and
//! rows as they are from there on. Round trips and exact attention; no kernel reads the bytes.

use kernels_gen::kivi::{GROUP, Kivi};
use rayon::prelude::*;

use super::{Counted, Distortion, Geometry, History, Own, Sizes, Stream, Tally};
use crate::error::Result;
use crate::model::{Attention, Rows};

pub struct Windowed {
    codec: &'static Kivi,
    geometry: Geometry,
    /// whether keys and values are coded
    halves: [bool; 2],
    own: Own,
    raw: History,
    /// rows as codes give them, as far as they are coded whatever the query; the rest as they are
    coded: History,
    tally: Tally,
    /// of each layer, as it stands
    sizes: Vec<Sizes>,
}

impl Windowed {
    pub fn new(codec: &'static Kivi, geometry: Geometry, halves: [bool; 2], own: Own) -> Windowed {
        let (raw, coded) = (History::default(), History::default());
        Windowed { codec, geometry, halves, own, raw, coded, tally: Tally::default(), sizes: vec![Sizes::default(); geometry.layers] }
    }

    /// Tokens whose keys or values a query reads as codes, when `tokens` are there.
    fn reach(&self, half: Stream, tokens: usize) -> usize {
        match (self.halves[half as usize], half) {
            (false, _) => 0,
            (_, Stream::K) => self.codec.coded_keys(tokens),
            (_, Stream::V) => self.codec.coded_values(tokens),
        }
    }

    /// Codes what has become complete in a layer: whole groups of keys, every value.
    fn code(&mut self, rows: &Rows) {
        let Geometry { kv_heads, d, .. } = self.geometry;
        let (width, codec) = (kv_heads * d, self.codec);
        let [raw_k, _] = self.raw.push(rows.layer, rows.k, rows.v);
        let (first, end) = (rows.start / GROUP * GROUP, (rows.start + rows.tokens) / GROUP * GROUP);
        let keys: Vec<f32> = raw_k[first * width..end.max(first) * width].par_chunks(GROUP * width).flat_map_iter(|rows| codec.keys(rows)).collect();
        let values: Vec<f32> = rows.v.par_chunks(d).flat_map_iter(|row| codec.values(row)).collect();
        let layer = self.tally.layer(rows.layer);
        if self.halves[0] {
            layer.k += Distortion::of_rows(&raw_k[first * width..][..keys.len()], &keys, d);
        }
        if self.halves[1] {
            layer.v += Distortion::of_rows(rows.v, &values, d);
        }
        self.coded.push(rows.layer, rows.k, &values);
        self.coded.put_keys(rows.layer, first * width, &keys);
    }

    fn count(&mut self, layer: usize, tokens: usize) {
        let Geometry { kv_heads, d, .. } = self.geometry;
        let mut sizes = Sizes::default();
        for (half, bits) in [(Stream::K, self.codec.key_bits), (Stream::V, self.codec.value_bits)] {
            if self.halves[half as usize] {
                let coded = self.reach(half, tokens) * kv_heads * d;
                let raw = (tokens * kv_heads * d - coded) as u64;
                sizes += Sizes { coded: coded as u64, bytes: (coded / GROUP * Kivi::group_bytes(bits)) as u64, raw };
            }
        }
        self.sizes[layer] = sizes;
    }

    /// One query row of kv head `head` over `tokens` tokens, coded when there were `stored` of them.
    fn row(&self, layer: usize, head: usize, q: &[f32], [tokens, stored]: [usize; 2], out: &mut [f32]) {
        let Geometry { kv_heads, d, scale, .. } = self.geometry;
        let at = |t: usize| (t * kv_heads + head) * d..(t * kv_heads + head + 1) * d;
        let ([raw_k, raw_v], [coded_k, coded_v]) = (self.raw.layer(layer), self.coded.layer(layer));
        let (keys, values) = (self.reach(Stream::K, stored), self.reach(Stream::V, stored));
        let score = |t: usize| {
            let rows = if t < keys { coded_k } else { raw_k };
            scale * dot(&rows[at(t)], q)
        };
        let mut weights: Vec<f32> = (0..tokens).map(score).collect();
        let top = weights.iter().fold(f32::NEG_INFINITY, |top, x| top.max(*x));
        weights.iter_mut().for_each(|x| *x = (*x - top).exp());
        let total: f32 = weights.iter().sum();
        for (t, weight) in weights.iter().enumerate() {
            let rows = if t < values { coded_v } else { raw_v };
            let share = weight / total;
            out.iter_mut().zip(&rows[at(t)]).for_each(|(o, v)| *o += v * share);
        }
    }
}

/// In eight chains, which fill a vector; the head dim is a multiple of eight.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0_f32; 8];
    for (a, b) in a.as_chunks::<8>().0.iter().zip(b.as_chunks::<8>().0) {
        for i in 0..8 {
            sums[i] += a[i] * b[i];
        }
    }
    sums.iter().sum()
}

impl Attention for Windowed {
    fn attend(&mut self, rows: &Rows) -> Result<Vec<f32>> {
        let Geometry { heads, kv_heads, d, .. } = self.geometry;
        self.code(rows);
        self.count(rows.layer, rows.start + rows.tokens);
        let mut out = vec![0.0; rows.q.len()];
        out.par_chunks_mut(d).zip(rows.q.par_chunks(d)).enumerate().for_each(|(i, (out, q))| {
            let (token, head) = (i / heads, i % heads);
            let seen = rows.start + token + 1;
            let stored = if self.own == Own::Coded { seen } else { rows.start };
            self.row(rows.layer, head / (heads / kv_heads), q, [seen, stored], out);
        });
        Ok(out)
    }
}

impl Counted for Windowed {
    fn tally(&self) -> Tally {
        self.tally.clone().with_sizes(&self.sizes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attention::{Dense, chunks};
    use kernels_gen::kivi::codec;

    const GEOMETRY: Geometry = Geometry { layers: 1, heads: 4, kv_heads: 2, d: 32, scale: 0.2 };
    const TOKENS: usize = 100;

    fn run(attention: &mut dyn Attention, chunks: &[usize]) -> Vec<f32> {
        chunks::run(attention, &GEOMETRY, chunks)
    }

    fn windowed(name: &str, own: Own) -> Windowed {
        Windowed::new(Box::leak(Box::new(codec(name).unwrap())), GEOMETRY, [true; 2], own)
    }

    #[test]
    fn a_query_reads_what_was_stored_at_its_own_token() {
        let whole = run(&mut windowed("kivi_k2v2_r32", Own::Coded), &[TOKENS]);
        assert_eq!(run(&mut windowed("kivi_k2v2_r32", Own::Coded), &[7, 25, 1, 67]), whole);
        let exact = run(&mut Dense::new(GEOMETRY), &[TOKENS]);
        let off = |x: &[f32], from: usize, to: usize| x.iter().zip(&exact).take(to * 128).skip(from * 128).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        // Up to 31 tokens nothing is coded.
        assert!(off(&whole, 0, 31) < 1e-5 && off(&whole, 40, TOKENS) > 1e-3);
        assert!(off(&run(&mut windowed("kivi_k2v2_r128", Own::Coded), &[TOKENS]), 0, TOKENS) < 1e-5);
        assert!(off(&run(&mut windowed("kivi_k8v8_r32", Own::Coded), &[TOKENS]), 0, TOKENS) < 1e-2);
        // A chunk that is raw for its own queries.
        assert!(off(&run(&mut windowed("kivi_k2v2_r32", Own::Raw), &[TOKENS]), 0, TOKENS) < 1e-5);
    }

    #[test]
    fn bytes_are_those_of_the_last_token() {
        let mut attention = windowed("kivi_k2v4_r32", Own::Coded);
        run(&mut attention, &[60, 40]);
        let sizes = attention.tally().sizes;
        let (coded, raw) = ((96 + 68) * 64, (4 + 32) * 64);
        assert_eq!((sizes.coded, sizes.raw), (coded, raw));
        assert_eq!(sizes.bytes, (96 * 64 / 32 * 12 + 68 * 64 / 32 * 20) as u64);
    }
}
