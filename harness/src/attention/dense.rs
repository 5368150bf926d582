//! Exact f32 attention over rows that lie in memory, by matrix products over blocks of queries.
//! `segment` splits the keys and merges the parts with a running maximum: the same mathematics in another
//! order of sums, which is how the noise floor of the measurement is found.

use candle_core::{Device, Tensor};
use rayon::prelude::*;

use super::{Geometry, History};
use crate::error::Result;
use crate::model::{Attention, Rows};

pub struct Dense {
    pub geometry: Geometry,
    /// queries per block
    pub block: usize,
    /// keys per part; usize::MAX for one part
    pub segment: usize,
    past: History,
}

impl Dense {
    pub fn new(geometry: Geometry) -> Dense {
        Dense { geometry, block: 256, segment: usize::MAX, past: History::default() }
    }

    /// The same mathematics in another order of sums.
    pub fn reordered(geometry: Geometry) -> Dense {
        Dense { block: 192, segment: 160, ..Dense::new(geometry) }
    }
}

impl Attention for Dense {
    fn attend(&mut self, rows: &Rows) -> Result<Vec<f32>> {
        let mut past = std::mem::take(&mut self.past);
        let [k, v] = past.push(rows.layer, rows.k, rows.v);
        let out = self.over(rows, k, v);
        self.past = past;
        out
    }
}

impl Dense {
    /// The queries of `rows` over keys and values of all tokens so far, [token, kv head, d].
    pub fn over(&self, rows: &Rows, k: &[f32], v: &[f32]) -> Result<Vec<f32>> {
        let Geometry { heads, kv_heads, d, .. } = self.geometry;
        let seen = rows.start + rows.tokens;
        let mut out = vec![0.0; rows.tokens * heads * d];
        for head in 0..kv_heads {
            let k = head_rows(k, seen, kv_heads, head, d)?;
            let v = head_rows(v, seen, kv_heads, head, d)?;
            for first in (0..rows.tokens).step_by(self.block) {
                let last = (first + self.block).min(rows.tokens);
                self.attend_block(rows, &k, &v, head, first..last, &mut out)?;
            }
        }
        Ok(out)
    }

    /// Queries `at` of all heads that share kv head `head`, against the keys up to the last of them.
    fn attend_block(&self, rows: &Rows, k: &Tensor, v: &Tensor, head: usize, at: std::ops::Range<usize>, out: &mut [f32]) -> Result<()> {
        let Geometry { heads, kv_heads, d, scale, .. } = self.geometry;
        let (group, first, seen) = (heads / kv_heads, at.start, rows.start + at.end);
        let width = group * d;
        let start_of = |p: usize| p * heads * d + head * width;
        let queries: Vec<f32> = at.clone().flat_map(|p| rows.q[start_of(p)..][..width].iter().map(|x| x * scale)).collect();
        let queries = Tensor::from_vec(queries, (at.len() * group, d), &Device::Cpu)?;
        let mut states = vec![Softmax { top: f32::NEG_INFINITY, sum: 0.0, shrink: 0.0 }; at.len() * group];
        let mut mixed = vec![0.0_f32; at.len() * width];
        let mut key = 0;
        while key < seen {
            let keys = self.segment.min(seen - key);
            let mut scores: Vec<f32> = queries.matmul(&k.narrow(0, key, keys)?.t()?)?.flatten_all()?.to_vec1()?;
            scores.par_chunks_mut(keys).zip(&mut states).enumerate().for_each(|(row, (scores, state))| {
                let visible = (rows.start + first + row / group + 1).saturating_sub(key).min(keys);
                state.take(scores, visible);
            });
            let scores = Tensor::from_vec(scores, (at.len() * group, keys), &Device::Cpu)?;
            let part: Vec<f32> = scores.matmul(&v.narrow(0, key, keys)?)?.flatten_all()?.to_vec1()?;
            for ((mixed, part), state) in mixed.chunks_mut(d).zip(part.chunks(d)).zip(&states) {
                mixed.iter_mut().zip(part).for_each(|(m, p)| *m = *m * state.shrink + p);
            }
            key += keys;
        }
        for (row, (mixed, state)) in mixed.chunks(d).zip(&states).enumerate() {
            let to = &mut out[start_of(first + row / group) + row % group * d..][..d];
            to.iter_mut().zip(mixed).for_each(|(o, m)| *o = m / state.sum);
        }
        Ok(())
    }
}

/// Running softmax of one query row.
#[derive(Clone)]
struct Softmax {
    top: f32,
    sum: f32,
    /// factor for what was summed before the latest part
    shrink: f32,
}

impl Softmax {
    /// Turns the first `visible` scores into weights relative to the running maximum, and the rest into zero.
    fn take(&mut self, scores: &mut [f32], visible: usize) {
        let top = scores[..visible].iter().fold(self.top, |a, b| a.max(*b));
        self.shrink = if self.top == f32::NEG_INFINITY { 0.0 } else { (self.top - top).exp() };
        self.top = top;
        self.sum *= self.shrink;
        for score in &mut scores[..visible] {
            *score = (*score - top).exp();
            self.sum += *score;
        }
        scores[visible..].fill(0.0);
    }
}

/// The rows of one kv head, [token, d].
fn head_rows(rows: &[f32], tokens: usize, kv_heads: usize, head: usize, d: usize) -> Result<Tensor> {
    let values: Vec<f32> = (0..tokens).flat_map(|t| &rows[(t * kv_heads + head) * d..][..d]).copied().collect();
    Ok(Tensor::from_vec(values, (tokens, d), &Device::Cpu)?)
}
