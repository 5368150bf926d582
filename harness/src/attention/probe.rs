//! Watches an attention: the outputs of some queries against exact attention over the raw rows of the same layer.
//! Both see the same queries, so this is what the layer itself adds, not what earlier layers did.

use rayon::prelude::*;

use super::{Counted, Distortion, Geometry, History, Tally};
use crate::error::Result;
use crate::model::{Attention, Rows};

pub struct Probe<A> {
    inner: A,
    geometry: Geometry,
    /// positions whose outputs are compared, in order
    sampled: Vec<usize>,
    raw: History,
    errors: Tally,
}

impl<A: Counted> Probe<A> {
    pub fn new(inner: A, geometry: Geometry, sampled: Vec<usize>) -> Probe<A> {
        Probe { inner, geometry, sampled, raw: History::default(), errors: Tally::default() }
    }
}

impl<A: Counted> Attention for Probe<A> {
    fn attend(&mut self, rows: &Rows) -> Result<Vec<f32>> {
        let out = self.inner.attend(rows)?;
        let Geometry { heads, d, .. } = self.geometry;
        let [k, v] = self.raw.push(rows.layer, rows.k, rows.v);
        let here = self.sampled.iter().filter(|p| (rows.start..rows.start + rows.tokens).contains(p));
        let at: Vec<(usize, usize)> = here.flat_map(|p| (0..heads).map(|head| (*p, head))).collect();
        let compared = |&(position, head): &(usize, usize)| {
            let from = ((position - rows.start) * heads + head) * d;
            let exact = exact(&self.geometry, &rows.q[from..][..d], [k, v], position, head);
            Distortion::of_row(&exact, &out[from..][..d])
        };
        let pairs: Vec<Distortion> = at.par_iter().map(compared).collect();
        pairs.into_iter().for_each(|pair| self.errors.layer(rows.layer).attention += pair);
        Ok(out)
    }
}

impl<A: Counted> Counted for Probe<A> {
    fn tally(&self) -> Tally {
        let mut tally = self.inner.tally();
        tally += &self.errors;
        tally
    }
}

/// One query over keys 0..=position, in f64.
fn exact(geometry: &Geometry, q: &[f32], [k, v]: [&[f32]; 2], position: usize, head: usize) -> Vec<f32> {
    let Geometry { heads, kv_heads, d, scale, .. } = *geometry;
    let kv_head = head / (heads / kv_heads);
    let row = |rows: &'_ [f32], t: usize| -> std::ops::Range<usize> {
        debug_assert!(rows.len() >= (t * kv_heads + kv_head + 1) * d);
        (t * kv_heads + kv_head) * d..(t * kv_heads + kv_head + 1) * d
    };
    let dot = |t: usize| k[row(k, t)].iter().zip(q).map(|(a, b)| a * b).sum::<f32>() * scale;
    let scores: Vec<f32> = (0..=position).map(dot).collect();
    let top = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let weights: Vec<f64> = scores.iter().map(|s| f64::from(s - top).exp()).collect();
    let sum: f64 = weights.iter().sum();
    let mut out = vec![0.0_f64; d];
    for (t, weight) in weights.iter().enumerate() {
        out.iter_mut().zip(&v[row(v, t)]).for_each(|(o, v)| *o += weight * f64::from(*v));
    }
    out.into_iter().map(|o| (o / sum) as f32).collect()
}
