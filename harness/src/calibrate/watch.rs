//! The base model's own attention, and what is noted of its rows on the way: mean and covariance of keys in the frame
//! of their segment and of values, and second moments of the queries that will meet the keys.

use kernels_gen::preset::Turns;
use kernels_gen::reference::SEGMENT;
use rayon::prelude::*;

use super::moments::{Moments, gram};
use crate::attention::{Dense, Geometry};
use crate::error::Result;
use crate::model::{Attention, Rows};

/// One kv head of one layer.
pub struct HeadNotes {
    pub keys: Moments,
    pub values: Moments,
    /// Sum of outer products of the queries in each segment of positions. `[segment][d, d]`
    queries: Vec<Vec<f64>>,
}

pub struct Watch {
    dense: Dense,
    pub geometry: Geometry,
    turns: Turns,
    /// `[layer][kv head]`
    pub notes: Vec<Vec<HeadNotes>>,
}

impl Watch {
    /// For windows of `tokens` tokens.
    pub fn new(geometry: Geometry, speeds: &[f32], tokens: usize) -> Watch {
        let d = geometry.d;
        let head = |_| HeadNotes { keys: Moments::new(d), values: Moments::new(d), queries: vec![vec![0.0; d * d]; tokens.div_ceil(SEGMENT)] };
        let notes = (0..geometry.layers).map(|_| (0..geometry.kv_heads).map(head).collect()).collect();
        Watch { dense: Dense::new(geometry), geometry, turns: Turns::new(speeds, tokens), notes }
    }

    /// The next rows begin a new sequence.
    pub fn next_window(&mut self) {
        self.dense = Dense::new(self.geometry);
    }

    /// Sum of `(R(-p0) q)(R(-p0) q)^T` over all queries q and all segment starts p0 at or before them: the metric in
    /// which an error of a key costs squared error of the scores. `[d, d]`
    pub fn query_metric(&self, layer: usize, head: usize) -> Vec<f64> {
        let d = self.geometry.d;
        let queries = &self.notes[layer][head].queries;
        let (mut later, mut sum) = (vec![0.0; d * d], vec![0.0; d * d]);
        for (segment, own) in queries.iter().enumerate().rev() {
            later.iter_mut().zip(own).for_each(|(later, own)| *later += own);
            // R S R^T: all rows, then all columns.
            let turned = transposed(&self.turned(&transposed(&self.turned(&later, segment), d), segment), d);
            sum.iter_mut().zip(turned).for_each(|(sum, x)| *sum += x);
        }
        sum
    }

    /// Every row of `m` `[d, d]` turned back by a segment's start.
    fn turned(&self, m: &[f64], segment: usize) -> Vec<f64> {
        let (d, half) = (self.geometry.d, self.geometry.d / 2);
        let pairs = &self.turns.pairs[segment * half..][..half];
        let mut out = m.to_vec();
        for row in out.chunks_exact_mut(d) {
            let (low, high) = row.split_at_mut(half);
            for ((a, b), (cos, sin)) in low.iter_mut().zip(high).zip(pairs) {
                let (cos, sin) = (f64::from(*cos), f64::from(*sin));
                (*a, *b) = (*a * cos + *b * sin, *b * cos - *a * sin);
            }
        }
        out
    }
}

fn transposed(m: &[f64], d: usize) -> Vec<f64> {
    (0..d * d).map(|i| m[i % d * d + i / d]).collect()
}

impl Attention for Watch {
    fn attend(&mut self, rows: &Rows) -> Result<Vec<f32>> {
        let Geometry { heads, kv_heads, d, .. } = self.geometry;
        let group = heads / kv_heads;
        let turns = &self.turns;
        let note = |(head, notes): (usize, &mut HeadNotes)| -> Result<()> {
            let of = |x: &[f32], t: usize| x[(t * kv_heads + head) * d..][..d].to_vec();
            let keys = (0..rows.tokens).flat_map(|t| {
                let mut row = of(rows.k, t);
                turns.back(&mut row, (rows.start + t) / SEGMENT);
                row
            });
            notes.keys.add(&keys.collect::<Vec<f32>>())?;
            notes.values.add(&(0..rows.tokens).flat_map(|t| of(rows.v, t)).collect::<Vec<f32>>())?;
            for (segment, sum) in notes.queries.iter_mut().enumerate() {
                let own = (segment * SEGMENT).max(rows.start)..((segment + 1) * SEGMENT).min(rows.start + rows.tokens);
                let of_token = |p: usize| &rows.q[((p - rows.start) * heads + head * group) * d..][..group * d];
                let queries: Vec<f32> = own.flat_map(of_token).copied().collect();
                if !queries.is_empty() {
                    sum.iter_mut().zip(gram(&queries, d)?).for_each(|(sum, x)| *sum += x);
                }
            }
            Ok(())
        };
        self.notes[rows.layer].par_iter_mut().enumerate().try_for_each(note)?;
        self.dense.attend(rows)
    }
}
