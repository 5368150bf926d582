//! The lightning indexer: small keys of the same groups say which of them a query reads once it sees too many.

use rayon::prelude::*;

use super::Config;
use super::attention::Picks;
use super::checkpoint::{LayerCheckpoint, Matrix};
use super::compressor::{Compressor, Pending};
use super::turns::Turns;
use crate::error::Result;

pub struct Indexer {
    queries: Matrix,
    weights: Matrix,
    compressor: Compressor,
    ratio: usize,
    heads: usize,
    d: usize,
    most: usize,
}

/// Keys so far, and what the next ones need.
#[derive(Default)]
pub struct IndexKeys {
    pending: Pending,
    /// [group, d]
    keys: Vec<f32>,
}

impl Indexer {
    pub fn read(from: &LayerCheckpoint, config: &Config, ratio: usize) -> Result<Indexer> {
        let (heads, d) = (config.index_n_heads, config.index_head_dim);
        Ok(Indexer {
            queries: from.matrix("attn.indexer.wq_b", [heads * d, config.q_lora_rank])?,
            weights: from.matrix("attn.indexer.weights_proj", [heads, config.hidden_size])?,
            compressor: Compressor::read(from, "attn.indexer.compressor", config, ratio, d, true)?,
            ratio,
            heads,
            d,
            most: config.index_topk,
        })
    }

    /// What the queries at `start`.. read, from their inputs [token, hidden] and low-rank queries [token, rank].
    pub fn picks(&self, [x, low]: [&[f32]; 2], start: usize, keys: &mut IndexKeys, turns: &Turns, eps: f32) -> Result<Picks> {
        keys.keys.extend(self.compressor.of(x, &mut keys.pending, turns, eps)?);
        let visible = |at: usize| (start + at + 1) / self.ratio;
        let tokens = x.len() / self.weights.input();
        let Some(first) = (0..tokens).find(|at| visible(*at) > self.most) else { return Ok(Picks::default()) };
        let scores = self.scores([x, low].map(|all| &all[first * all.len() / tokens..]), start + first, &keys.keys, turns)?;
        let groups = keys.keys.len() / self.d;
        let of = |(at, scores): (usize, &[f32])| top(&scores[..visible(first + at)], self.most);
        Ok(Picks { first, chosen: scores.par_chunks(groups).enumerate().map(of).collect() })
    }

    /// [token, group]: sum over heads of weight times the positive part of query times key.
    fn scores(&self, [x, low]: [&[f32]; 2], start: usize, keys: &[f32], turns: &Turns) -> Result<Vec<f32>> {
        let (heads, d) = (self.heads, self.d);
        let mut q = self.queries.of(low)?;
        q.par_chunks_mut(d).enumerate().for_each(|(at, q)| turns.turn(q, start + at / heads));
        let groups = keys.len() / d;
        let products = Matrix::new(keys.to_vec(), [groups, d])?.of(&q)?;
        let weights = self.weights.of(x)?;
        let (by_head, by_dim) = (1.0 / (heads as f32).sqrt(), 1.0 / (d as f32).sqrt());
        let mut scores = vec![0.0; x.len() / self.weights.input() * groups];
        scores.par_chunks_mut(groups).zip(products.par_chunks(heads * groups)).zip(weights.par_chunks(heads)).for_each(|((scores, products), weights)| {
            for (products, weight) in products.chunks(groups).zip(weights) {
                let add = |(score, product): (&mut f32, &f32)| *score += weight * by_head * (product.max(0.0) * by_dim);
                scores.iter_mut().zip(products).for_each(add);
            }
        });
        Ok(scores)
    }
}

/// Indices of the `most` largest, in order of index; of equal ones the first.
fn top(scores: &[f32], most: usize) -> Vec<u32> {
    let mut order: Vec<u32> = (0..scores.len() as u32).collect();
    order.sort_by(|a, b| scores[*b as usize].total_cmp(&scores[*a as usize]).then(a.cmp(b)));
    order.truncate(most);
    order.sort_unstable();
    order
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_largest_are_picked_and_ties_go_to_the_first() {
        assert_eq!(super::top(&[1.0, 3.0, 2.0, 3.0, 2.0], 3), [1, 2, 3]);
        assert_eq!(super::top(&[0.0, 0.0, 0.0], 2), [0, 1]);
    }
}
