//! Attention of all heads over the same rows, which are keys and values at once: a window of the latest tokens and rows
//! of groups before it. Each head has a sink, a score without a value.

use candle_core::{Device, Tensor};
use rayon::prelude::*;

use super::Config;
use crate::error::Result;

/// What all calls of a layer share.
#[derive(Clone, Debug)]
pub struct Attention {
    pub d: usize,
    pub window: usize,
    /// tokens of a group; usize::MAX where there are none
    pub ratio: usize,
    /// of each head
    pub sinks: Vec<f32>,
}

/// Which groups queries read, where not all that they see.
#[derive(Clone, Default, Debug)]
pub struct Picks {
    /// queries before this one of the call read all
    pub first: usize,
    /// of each query from there on, in order
    pub chosen: Vec<Vec<u32>>,
}

impl Picks {
    pub fn of(&self, query: usize) -> Option<&[u32]> {
        self.chosen.get(query.checked_sub(self.first)?).map(|chosen| &chosen[..])
    }
}

/// What a call's queries made of their rows.
pub struct Reading {
    /// [token, head, d]
    pub out: Vec<f32>,
    /// [token, head]: share of the sink
    pub sink: Vec<f32>,
    /// rows that were read, of the window and of groups
    pub rows: [u64; 2],
}

impl Attention {
    pub fn new(config: &Config, ratio: usize, sinks: Vec<f32>) -> Attention {
        Attention { d: config.head_dim, window: config.sliding_window, ratio, sinks }
    }

    /// Queries [token, head, d] from position `start` on over all rows so far; `block` queries at once.
    pub fn read(&self, q: &[f32], start: usize, [window, groups]: [&[f32]; 2], picks: &Picks, block: usize) -> Result<Reading> {
        let (d, heads) = (self.d, self.sinks.len());
        let tokens = q.len() / (heads * d);
        let mut reading = Reading { out: Vec::with_capacity(q.len()), sink: Vec::with_capacity(tokens * heads), rows: [0; 2] };
        let rows = |rows: &[f32]| Tensor::from_slice(rows, (rows.len() / d, d), &Device::Cpu);
        let base = (start + 1).saturating_sub(self.window);
        let (window, groups) = (rows(&window[base * d..])?, rows(groups)?);
        for first in (0..tokens).step_by(block) {
            let last = (first + block).min(tokens);
            let oldest = (start + first + 1).saturating_sub(self.window);
            let recent = window.narrow(0, oldest - base, start + last - oldest)?;
            let complete = ((start + last) / self.ratio).min(groups.dim(0)?);
            let groups = groups.narrow(0, 0, complete)?;
            let q = Tensor::from_slice(&q[first * heads * d..last * heads * d], ((last - first) * heads, d), &Device::Cpu)?;
            let mut scores = [self.scores(&q, &recent)?, self.scores(&q, &groups)?];
            let seen: Vec<Seen> = (first..last).map(|at| self.seen(start + at, oldest, picks.of(at))).collect();
            let sinks = self.weigh(&mut scores, &seen);
            let [by_token, by_group] = scores;
            let shape = |rows: &Tensor| ((last - first) * heads, rows.elem_count() / d);
            let mut out = Tensor::from_vec(by_token, shape(&recent), &Device::Cpu)?.matmul(&recent)?;
            if complete > 0 {
                out = (out + Tensor::from_vec(by_group, shape(&groups), &Device::Cpu)?.matmul(&groups)?)?;
            }
            reading.out.extend(out.flatten_all()?.to_vec1::<f32>()?);
            reading.sink.extend(sinks);
            for seen in seen {
                reading.rows[0] += seen.window.len() as u64;
                reading.rows[1] += seen.picked.map_or(seen.groups, <[u32]>::len) as u64;
            }
        }
        Ok(reading)
    }

    /// [query and head, row]
    fn scores(&self, q: &Tensor, rows: &Tensor) -> Result<Vec<f32>> {
        let scale = 1.0 / (self.d as f32).sqrt();
        if rows.elem_count() == 0 {
            return Ok(Vec::new());
        }
        let mut scores: Vec<f32> = q.matmul(&rows.t()?)?.flatten_all()?.to_vec1()?;
        scores.iter_mut().for_each(|score| *score *= scale);
        Ok(scores)
    }

    /// What the query at a position sees, with the window's rows counted from `oldest` on.
    fn seen<'a>(&self, position: usize, oldest: usize, picked: Option<&'a [u32]>) -> Seen<'a> {
        let window = (position + 1).saturating_sub(self.window) - oldest..position + 1 - oldest;
        Seen { window, groups: (position + 1) / self.ratio, picked }
    }

    /// Scores become weights, those of unseen rows 0; returns the shares of the sinks.
    fn weigh(&self, [by_token, by_group]: &mut [Vec<f32>; 2], seen: &[Seen]) -> Vec<f32> {
        let heads = self.sinks.len();
        let rows = seen.len() * heads;
        let (tokens, groups) = (by_token.len() / rows, by_group.len() / rows);
        let mut shares = vec![0.0; rows];
        let weigh = |row: usize, by_token: &mut [f32], by_group: &mut [f32], share: &mut f32| {
            let (seen, sink) = (&seen[row / heads], self.sinks[row % heads]);
            by_token[..seen.window.start].fill(f32::NEG_INFINITY);
            by_token[seen.window.end..].fill(f32::NEG_INFINITY);
            let visible = seen.groups.min(by_group.len());
            by_group[visible..].fill(f32::NEG_INFINITY);
            if let Some(picked) = seen.picked {
                let mut hidden = vec![true; visible];
                picked.iter().for_each(|group| hidden[*group as usize] = false);
                by_group.iter_mut().zip(hidden).filter(|(_, hidden)| *hidden).for_each(|(score, _)| *score = f32::NEG_INFINITY);
            }
            let top = by_token.iter().chain(&*by_group).copied().fold(sink, f32::max);
            let own = (sink - top).exp();
            let mut sum = own;
            by_token.iter_mut().chain(&mut *by_group).for_each(|score| {
                *score = (*score - top).exp();
                sum += *score;
            });
            by_token.iter_mut().chain(by_group).for_each(|weight| *weight /= sum);
            *share = own / sum;
        };
        // without groups there is nothing to cut into chunks
        let mut none: Vec<[f32; 0]> = vec![[]; if groups == 0 { rows } else { 0 }];
        if groups == 0 {
            let all = by_token.par_chunks_mut(tokens).zip(none.par_iter_mut()).zip(&mut shares).enumerate();
            all.for_each(|(row, ((by_token, none), share))| weigh(row, by_token, none, share));
        } else {
            let all = by_token.par_chunks_mut(tokens).zip(by_group.par_chunks_mut(groups)).zip(&mut shares).enumerate();
            all.for_each(|(row, ((by_token, by_group), share))| weigh(row, by_token, by_group, share));
        }
        shares
    }

    /// One head's output of the query at a position, alone and in f64. `q` is [d].
    pub fn alone(&self, q: &[f32], head: usize, position: usize, [window, groups]: [&[f32]; 2], picked: Option<&[u32]>) -> Vec<f32> {
        let d = self.d;
        let tokens = (position + 1).saturating_sub(self.window)..position + 1;
        let row = |rows: &'_ [f32], at: usize| -> std::ops::Range<usize> {
            debug_assert!(rows.len() >= (at + 1) * d);
            at * d..(at + 1) * d
        };
        let all = || (0..(position + 1) / self.ratio).collect::<Vec<_>>();
        let picked = picked.map_or_else(all, |picked| picked.iter().map(|group| *group as usize).collect());
        let recent = tokens.map(|at| &window[row(window, at)]);
        let rows: Vec<&[f32]> = recent.chain(picked.into_iter().map(|at| &groups[row(groups, at)])).collect();
        let dot = |row: &&[f32]| row.iter().zip(q).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>() / (d as f64).sqrt();
        let scores: Vec<f64> = rows.iter().map(dot).collect();
        let sink = f64::from(self.sinks[head]);
        let top = scores.iter().copied().fold(sink, f64::max);
        let sum = scores.iter().map(|score| (score - top).exp()).sum::<f64>() + (sink - top).exp();
        let mut out = vec![0.0_f64; d];
        for (row, score) in rows.iter().zip(scores) {
            let weight = (score - top).exp() / sum;
            out.iter_mut().zip(*row).for_each(|(out, value)| *out += weight * f64::from(*value));
        }
        out.into_iter().map(|value| value as f32).collect()
    }
}

/// What one query sees.
struct Seen<'a> {
    window: std::ops::Range<usize>,
    groups: usize,
    picked: Option<&'a [u32]>,
}
