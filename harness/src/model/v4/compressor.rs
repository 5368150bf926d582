//! Groups of tokens as one row each: every channel takes its own softmax over the tokens of the group, and where groups
//! overlap over those of the group before it as well, which give their first half.

use rayon::prelude::*;

use super::Config;
use super::checkpoint::{LayerCheckpoint, Matrix};
use super::turns::Turns;
use crate::error::Result;
use crate::model::layer::rms_norm;

pub struct Compressor {
    values: Matrix,
    gates: Matrix,
    /// [token of the group, width], added to the gates
    ape: Vec<f32>,
    norm: Vec<f32>,
    ratio: usize,
    /// of a row
    d: usize,
    overlaps: bool,
}

/// Tokens of one compressor that later groups need.
#[derive(Default)]
pub struct Pending {
    /// [token, width]
    values: Vec<f32>,
    gates: Vec<f32>,
    /// of the first of them
    position: usize,
    groups: usize,
}

impl Compressor {
    /// `name` is attn.compressor or attn.indexer.compressor.
    pub fn read(from: &LayerCheckpoint, name: &str, config: &Config, ratio: usize, d: usize, overlaps: bool) -> Result<Compressor> {
        let width = if overlaps { 2 * d } else { d };
        let at = |what: &str| format!("{name}.{what}");
        Ok(Compressor {
            values: from.matrix(&at("wkv"), [width, config.hidden_size])?,
            gates: from.matrix(&at("wgate"), [width, config.hidden_size])?,
            ape: from.tensor(&at("ape"), &[ratio, width])?,
            norm: from.tensor(&at("norm.weight"), &[d])?,
            ratio,
            d,
            overlaps,
        })
    }

    /// Rows [group, d] of the groups that the tokens x [token, hidden] complete, turned to their group's first position.
    pub fn of(&self, x: &[f32], pending: &mut Pending, turns: &Turns, eps: f32) -> Result<Vec<f32>> {
        let (d, ratio, width) = (self.d, self.ratio, self.ape.len() / self.ratio);
        pending.values.extend(self.values.of(x)?);
        pending.gates.extend(self.gates.of(x)?);
        let first = pending.groups;
        let groups = (pending.position + pending.values.len() / width) / ratio;
        let mut rows = vec![0.0; (groups - first) * d];
        rows.par_chunks_mut(d).enumerate().for_each(|(at, row)| {
            let group = first + at;
            self.pool(group, pending, row);
            rms_norm(row, &self.norm, eps);
            turns.turn(row, group * ratio);
        });
        pending.groups = groups;
        let needed = groups.saturating_sub(usize::from(self.overlaps)) * ratio;
        let gone = (needed - pending.position) * width;
        pending.values.drain(..gone);
        pending.gates.drain(..gone);
        pending.position = needed;
        Ok(rows)
    }

    fn pool(&self, group: usize, pending: &Pending, row: &mut [f32]) {
        let (d, ratio, width) = (self.d, self.ratio, self.ape.len() / self.ratio);
        // (token, first channel) of every slot
        let own = (0..ratio).map(|j| (group * ratio + j, width - d));
        let before = (0..ratio).filter(|_| self.overlaps && group > 0).map(|j| ((group - 1) * ratio + j, 0));
        let slots: Vec<(usize, usize)> = before.chain(own).collect();
        let gate = |(token, channel): (usize, usize)| {
            let gates = &pending.gates[(token - pending.position) * width + channel..][..d];
            gates.iter().zip(&self.ape[token % ratio * width + channel..][..d]).map(|(gate, ape)| gate + ape)
        };
        let (mut tops, mut sums) = (vec![f32::NEG_INFINITY; d], vec![0.0_f32; d]);
        for slot in &slots {
            tops.iter_mut().zip(gate(*slot)).for_each(|(top, gate)| *top = top.max(gate));
        }
        for (token, channel) in slots {
            let values = &pending.values[(token - pending.position) * width + channel..][..d];
            let places = row.iter_mut().zip(&mut sums).zip(&tops);
            for (((row, sum), top), (value, gate)) in places.zip(values.iter().zip(gate((token, channel)))) {
                let weight = (gate - top).exp();
                *sum += weight;
                *row += weight * value;
            }
        }
        row.iter_mut().zip(sums).for_each(|(row, sum)| *row /= sum);
    }
}
