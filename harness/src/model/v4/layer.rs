//! One layer: its weights, what it keeps of a passage, and what it does to the residual streams of some tokens.

use rayon::prelude::*;

use super::attention::{Attention, Picks};
use super::checkpoint::{LayerCheckpoint, Matrix};
use super::compressor::{Compressor, Pending};
use super::experts::Experts;
use super::indexer::{IndexKeys, Indexer};
use super::streams::{Connection, unit};
use super::turns::Turns;
use super::{Call, Config, Place, RowCache, RowKind};
use crate::error::Result;
use crate::model::layer::rms_norm;

pub struct Layer {
    index: usize,
    connections: [Connection; 2],
    attention_norm: Vec<f32>,
    experts_norm: Vec<f32>,
    low_queries: Matrix,
    low_norm: Vec<f32>,
    queries: Matrix,
    rows: Matrix,
    rows_norm: Vec<f32>,
    /// of each group of heads
    low_outputs: Vec<Matrix>,
    outputs: Matrix,
    attention: Attention,
    groups: Option<(RowKind, Compressor)>,
    indexer: Option<Indexer>,
    experts: Experts,
}

/// What a layer keeps of one passage on one way through the model.
#[derive(Default)]
pub struct Kept {
    window: Rows,
    groups: Rows,
    pending: Pending,
    index: IndexKeys,
}

/// Rows so far, as they were made and as the next queries read them.
#[derive(Default)]
struct Rows {
    raw: Vec<f32>,
    seen: Vec<f32>,
    later: Option<Vec<f32>>,
}

impl Rows {
    fn push(&mut self, place: Place, rows: Vec<f32>, cache: &mut dyn RowCache) -> Result<()> {
        if rows.is_empty() {
            return Ok(());
        }
        let written = cache.write(place, &rows)?;
        self.raw.extend(rows);
        self.seen.extend(written.now);
        self.later = written.later;
        Ok(())
    }

    /// The call is over.
    fn settle(&mut self) {
        if let Some(later) = self.later.take() {
            let first = self.seen.len() - later.len();
            self.seen[first..].copy_from_slice(&later);
        }
    }
}

impl Layer {
    pub fn read(from: &LayerCheckpoint, config: &Config, index: usize) -> Result<Layer> {
        let (hidden, d, heads) = (config.hidden_size, config.head_dim, config.num_attention_heads);
        let (rank, low, groups) = (config.q_lora_rank, config.o_lora_rank, config.o_groups);
        let norm = |name: &str, width| from.tensor(&format!("{name}.weight"), &[width]);
        let compressed = config.compressed(index);
        let overlaps = |kind| kind == RowKind::Csa;
        let outputs = from.block_diagonal("attn.wo_a", groups, [low, heads / groups * d])?;
        Ok(Layer {
            index,
            connections: [Connection::read(from, "attn", config)?, Connection::read(from, "ffn", config)?],
            attention_norm: norm("attn_norm", hidden)?,
            experts_norm: norm("ffn_norm", hidden)?,
            low_queries: from.matrix("attn.wq_a", [rank, hidden])?,
            low_norm: norm("attn.q_norm", rank)?,
            queries: from.matrix("attn.wq_b", [heads * d, rank])?,
            rows: from.matrix("attn.wkv", [d, hidden])?,
            rows_norm: norm("attn.kv_norm", d)?,
            low_outputs: outputs,
            outputs: from.matrix("attn.wo_b", [hidden, groups * low])?,
            attention: Attention::new(config, compressed.map_or(usize::MAX, |c| c.ratio), from.tensor("attn.attn_sink", &[heads])?),
            groups: match compressed {
                Some(c) => Some((c.kind, Compressor::read(from, "attn.compressor", config, c.ratio, d, overlaps(c.kind))?)),
                None => None,
            },
            indexer: match compressed.filter(|c| overlaps(c.kind)) {
                Some(c) => Some(Indexer::read(from, config, c.ratio)?),
                None => None,
            },
            experts: Experts::read(from, config, index)?,
        })
    }

    /// Streams [token, mult, hidden] of the tokens `ids` at positions `start`.. through the layer.
    pub fn forward(&self, config: &Config, turns: &Turns, (start, ids): (usize, &[u32]), streams: &[f32], kept: &mut Kept, cache: &mut dyn RowCache) -> Result<Vec<f32>> {
        let mult = config.hc_mult;
        let normed = |mut x: Vec<f32>, weight: &[f32]| {
            x.par_chunks_mut(config.hidden_size).for_each(|row| rms_norm(row, weight, config.rms_norm_eps));
            x
        };
        let mut mixed = self.connections[0].open(config, streams)?;
        let x = normed(std::mem::take(&mut mixed.input), &self.attention_norm);
        let streams = mixed.give(mult, &self.attend(config, turns, start, &x, kept, cache)?, streams);
        let mut mixed = self.connections[1].open(config, &streams)?;
        let x = normed(std::mem::take(&mut mixed.input), &self.experts_norm);
        Ok(mixed.give(mult, &self.experts.of(config, &x, ids)?, &streams))
    }

    /// x [token, hidden] to [token, hidden].
    fn attend(&self, config: &Config, turns: &Turns, start: usize, x: &[f32], kept: &mut Kept, cache: &mut dyn RowCache) -> Result<Vec<f32>> {
        let (d, heads, eps) = (config.head_dim, config.num_attention_heads, config.rms_norm_eps);
        let mut low = self.low_queries.of(x)?;
        low.par_chunks_mut(config.q_lora_rank).for_each(|row| rms_norm(row, &self.low_norm, eps));
        let mut q = self.queries.of(&low)?;
        q.par_chunks_mut(d).enumerate().for_each(|(at, q)| {
            unit(q, eps);
            turns.turn(q, start + at / heads);
        });
        let mut rows = self.rows.of(x)?;
        rows.par_chunks_mut(d).enumerate().for_each(|(at, row)| {
            rms_norm(row, &self.rows_norm, eps);
            turns.turn(row, start + at);
        });
        let place = |kind, first| Place { layer: self.index, kind, first };
        kept.window.push(place(RowKind::Window, start), rows, cache)?;
        if let Some((kind, compressor)) = &self.groups {
            let first = kept.groups.raw.len() / d;
            let rows = compressor.of(x, &mut kept.pending, turns, eps)?;
            kept.groups.push(place(*kind, first), rows, cache)?;
        }
        let picks = match &self.indexer {
            Some(indexer) => indexer.picks([x, &low], start, &mut kept.index, turns, eps)?,
            None => Picks::default(),
        };
        let mut reading = self.attention.read(&q, start, [&kept.window.seen, &kept.groups.seen], &picks, cache.block())?;
        let (attention, raw) = (&self.attention, [&kept.window.raw[..], &kept.groups.raw]);
        let tokens = x.len() / config.hidden_size;
        let (layer, picks) = (self.index, &picks);
        if let Some(out) = cache.outputs(&Call { layer, start, tokens, q: &q, raw, attention, picks, reading: &reading })? {
            reading.out = out;
        }
        cache.watch(&Call { layer, start, tokens, q: &q, raw, attention, picks, reading: &reading });
        kept.window.settle();
        kept.groups.settle();
        let mut out = reading.out;
        out.par_chunks_mut(d).enumerate().for_each(|(at, out)| turns.turn_back(out, start + at / heads));
        self.project(config, &out)
    }

    /// Outputs [token, head, d] to [token, hidden]: each group of heads through its own matrix, then all together.
    fn project(&self, config: &Config, out: &[f32]) -> Result<Vec<f32>> {
        let (groups, low) = (config.o_groups, config.o_lora_rank);
        let (width, all) = (config.num_attention_heads / groups * config.head_dim, config.num_attention_heads * config.head_dim);
        let tokens = out.len() / all;
        let mut lows = vec![0.0; tokens * groups * low];
        for (group, matrix) in self.low_outputs.iter().enumerate() {
            let own: Vec<f32> = (0..tokens).flat_map(|t| &out[t * all + group * width..][..width]).copied().collect();
            for (token, row) in matrix.of(&own)?.chunks(low).enumerate() {
                lows[(token * groups + group) * low..][..low].copy_from_slice(row);
            }
        }
        self.outputs.of(&lows)
    }
}
