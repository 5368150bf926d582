//! What is counted of rows that serve all heads: errors of their two parts, rows written and read, and what else a
//! change of rows moves: the share of the sinks and what the indexer keeps.

use std::ops::AddAssign;

use serde::{Deserialize, Serialize};

use super::Distortion;
use crate::model::v4::{Config, RowKind};

/// Rows of one kind.
#[derive(Clone, Copy, Default, Debug, Serialize, Deserialize)]
pub struct KindTally {
    /// numbers without a position, against what was written
    pub nope: Distortion,
    /// numbers that RoPE turned
    pub rope: Distortion,
    pub whole: Distortion,
    pub coded: bool,
    /// of a row, page slack left out
    pub row_bytes: f64,
    pub written: u64,
    pub read: u64,
    /// rows that the cache holds when a passage ends: of the window only the latest
    pub kept: u64,
}

impl AddAssign for KindTally {
    fn add_assign(&mut self, other: KindTally) {
        self.nope += other.nope;
        self.rope += other.rope;
        self.whole += other.whole;
        self.coded |= other.coded;
        self.row_bytes = self.row_bytes.max(other.row_bytes);
        self.written += other.written;
        self.read += other.read;
        self.kept += other.kept;
    }
}

/// A sum and of how many.
#[derive(Clone, Copy, Default, Debug, Serialize, Deserialize)]
pub struct Sum {
    pub sum: f64,
    pub count: u64,
}

impl Sum {
    pub fn add(&mut self, value: f64) {
        self.sum += value;
        self.count += 1;
    }

    /// None of nothing.
    pub fn mean(self) -> Option<f64> {
        (self.count > 0).then(|| self.sum / self.count as f64)
    }
}

impl AddAssign for Sum {
    fn add_assign(&mut self, other: Sum) {
        self.sum += other.sum;
        self.count += other.count;
    }
}

#[derive(Clone, Default, Debug, Serialize, Deserialize)]
pub struct RowTally {
    /// in the order of `RowKind::ALL`
    pub kinds: [KindTally; 3],
    /// share of attention that the sinks take, over scored queries and heads
    pub sink: Sum,
    /// of queries that see more groups than they read: groups kept here and by the base model, over those kept by either
    pub overlap: Sum,
    /// outputs of a query and head that kernels computed from codes
    #[serde(default)]
    pub by_kernels: u64,
}

impl AddAssign<&RowTally> for RowTally {
    fn add_assign(&mut self, other: &RowTally) {
        self.kinds.iter_mut().zip(other.kinds).for_each(|(kind, other)| *kind += other);
        self.sink += other.sink;
        self.overlap += other.overlap;
        self.by_kernels += other.by_kernels;
    }
}

impl RowTally {
    /// Of a number in the cache as it stands when a passage ends.
    pub fn bits(&self, d: usize) -> f64 {
        let kept: u64 = self.kinds.iter().map(|kind| kind.kept).sum();
        let bytes: f64 = self.kinds.iter().map(|kind| kind.kept as f64 * kind.row_bytes).sum();
        8.0 * bytes / (kept as usize * d) as f64
    }

    /// Bytes of coded rows that were written and read.
    pub fn bytes(&self) -> [u64; 2] {
        let coded = || self.kinds.iter().filter(|kind| kind.coded);
        [coded().map(|k| k.written * k.row_bytes as u64).sum(), coded().map(|k| k.read * k.row_bytes as u64).sum()]
    }
}

/// Rows of each kind that all layers write for a passage of `tokens` tokens and that its queries read, by the schedule
/// alone.
pub fn expected(config: &Config, tokens: usize) -> [[u64; 2]; 3] {
    let mut rows = [[0; 2]; 3];
    for layer in 0..config.num_hidden_layers {
        let window = (1..=tokens).map(|seen| seen.min(config.sliding_window) as u64).sum::<u64>();
        rows[RowKind::Window as usize][0] += tokens as u64;
        rows[RowKind::Window as usize][1] += window;
        let Some(compressed) = config.compressed(layer) else { continue };
        let most = if compressed.kind == RowKind::Csa { config.index_topk } else { usize::MAX };
        rows[compressed.kind as usize][0] += (tokens / compressed.ratio) as u64;
        rows[compressed.kind as usize][1] += (1..=tokens).map(|seen| (seen / compressed.ratio).min(most) as u64).sum::<u64>();
    }
    rows
}
