//! The block of experts: a token goes to a few of them, chosen by its scores or by a table of tokens, and to a shared one.

use rayon::prelude::*;

use super::Config;
use super::checkpoint::{LayerCheckpoint, Matrix};
use crate::error::{Error, Result};

pub struct Experts {
    gate: Matrix,
    choice: Choice,
    routed: Vec<Expert>,
    shared: Expert,
}

enum Choice {
    /// [token id, expert]
    Table(Vec<u32>),
    /// added to the scores that choose, not to those that weigh
    Bias(Vec<f32>),
}

struct Expert {
    gate: Matrix,
    down: Matrix,
    up: Matrix,
}

impl Experts {
    pub fn read(from: &LayerCheckpoint, config: &Config, layer: usize) -> Result<Experts> {
        let (hidden, inner, experts) = (config.hidden_size, config.moe_intermediate_size, config.n_routed_experts);
        let choice = match config.hashed(layer) {
            true => Choice::Table(from.integers("ffn.gate.tid2eid", &[config.vocab_size, config.num_experts_per_tok])?),
            false => Choice::Bias(from.tensor("ffn.gate.bias", &[experts])?),
        };
        if let Choice::Table(table) = &choice
            && let Some(expert) = table.iter().find(|expert| **expert as usize >= experts)
        {
            return Err(Error::Data(format!("layer {layer} sends tokens to expert {expert} of {experts}; the checkpoint is damaged")));
        }
        let one = |[gate, down, up]: [Matrix; 3]| Expert { gate, down, up };
        let own = |w: &str, shape| from.matrix(&format!("ffn.shared_experts.{w}"), shape);
        Ok(Experts {
            gate: from.matrix("ffn.gate", [experts, hidden])?,
            choice,
            routed: (0..experts).map(|at| Ok(one(from.expert(at, [experts, hidden, inner])?))).collect::<Result<_>>()?,
            shared: one([own("w1", [inner, hidden])?, own("w2", [hidden, inner])?, own("w3", [inner, hidden])?]),
        })
    }

    /// x [token, hidden] of the tokens `ids`.
    pub fn of(&self, config: &Config, x: &[f32], ids: &[u32]) -> Result<Vec<f32>> {
        let (hidden, most) = (config.hidden_size, config.num_experts_per_tok);
        let logits = self.gate.of(x)?;
        let chosen: Vec<Vec<(u32, f32)>> = logits
            .par_chunks(config.n_routed_experts)
            .zip(ids)
            .map(|(logits, id)| match &self.choice {
                Choice::Table(table) => route(logits, None, Some(&table[*id as usize * most..][..most]), config),
                Choice::Bias(bias) => route(logits, Some(bias), None, config),
            })
            .collect();
        let mut out = self.shared.of(x, config.swiglu_limit)?;
        for (at, expert) in self.routed.iter().enumerate() {
            let own = |(token, chosen): (usize, &Vec<(u32, f32)>)| chosen.iter().find(|(expert, _)| *expert as usize == at).map(|(_, weight)| (token, *weight));
            let tokens: Vec<(usize, f32)> = chosen.iter().enumerate().filter_map(own).collect();
            if tokens.is_empty() {
                continue;
            }
            let rows: Vec<f32> = tokens.iter().flat_map(|(token, _)| &x[token * hidden..][..hidden]).copied().collect();
            let made = expert.of(&rows, config.swiglu_limit)?;
            for ((token, weight), row) in tokens.iter().zip(made.chunks(hidden)) {
                out[token * hidden..][..hidden].iter_mut().zip(row).for_each(|(out, y)| *out += weight * y);
            }
        }
        Ok(out)
    }
}

/// A token's experts and their weights, from its logits: those of the table, or the best after `bias` is added.
pub fn route(logits: &[f32], bias: Option<&[f32]>, table: Option<&[u32]>, config: &Config) -> Vec<(u32, f32)> {
    let scores: Vec<f32> = logits.iter().map(|x| softplus(*x).sqrt()).collect();
    let chosen = table.map_or_else(
        || {
            let ranked = |at: &u32| scores[*at as usize] + bias.map_or(0.0, |bias| bias[*at as usize]);
            let mut order: Vec<u32> = (0..scores.len() as u32).collect();
            order.sort_by(|a, b| ranked(b).total_cmp(&ranked(a)).then(a.cmp(b)));
            order.truncate(config.num_experts_per_tok);
            order
        },
        <[u32]>::to_vec,
    );
    let sum = chosen.iter().map(|at| scores[*at as usize]).sum::<f32>() + 1e-20;
    let weight = |at: u32| scores[at as usize] / sum * config.routed_scaling_factor;
    chosen.into_iter().map(|at| (at, weight(at))).collect()
}

fn softplus(x: f32) -> f32 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

impl Expert {
    fn of(&self, x: &[f32], limit: f32) -> Result<Vec<f32>> {
        let (mut gate, up) = (self.gate.of(x)?, self.up.of(x)?);
        gate.par_iter_mut().zip(&up).for_each(|(gate, up)| {
            let held = gate.min(limit);
            *gate = held / (1.0 + (-held).exp()) * up.clamp(-limit, limit);
        });
        self.down.of(&gate)
    }
}
