//! What a row of the table says beside the usual, where rows of the cache serve all heads.

use serde::{Deserialize, Serialize};

use super::row::Proof;
use crate::attention::{KindTally, RowTally, expected_rows};
use crate::model::v4::{Config, RowKind};

/// Rows of one kind: what they take and how far they are from what was written.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct KindRow {
    pub kind: String,
    pub coded: bool,
    pub row_bytes: f64,
    /// numbers without a position
    pub rel_mse_nope: f64,
    /// numbers that RoPE turned
    pub rel_mse_rope: f64,
    pub rel_mse: f64,
    pub written: u64,
    pub read: u64,
    /// rows that the cache holds when a passage ends, over all passages
    pub kept: u64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LatentRow {
    /// of coded rows; None where none is, or they differ
    pub row_bytes: Option<f64>,
    /// of all coded kinds together
    pub rel_mse_nope: f64,
    pub rel_mse_rope: f64,
    /// mean share of attention that the sinks take
    pub sink: Option<f64>,
    /// groups that the indexer keeps here and in the base model, over those kept by either; None where it keeps all
    pub index_overlap: Option<f64>,
    pub index_queries: u64,
    /// outputs of a query and head that kernels computed from codes; 0: on the host, from what became of the numbers
    #[serde(default)]
    pub by_kernels: u64,
    pub kinds: Vec<KindRow>,
}

impl LatentRow {
    pub fn of(tally: &RowTally) -> LatentRow {
        let coded: Vec<&KindTally> = tally.kinds.iter().filter(|kind| kind.coded).collect();
        let mut total = KindTally::default();
        coded.iter().for_each(|kind| total += **kind);
        let kind = |(kind, t): (RowKind, &KindTally)| KindRow {
            kind: kind.name().into(),
            coded: t.coded,
            row_bytes: t.row_bytes,
            rel_mse_nope: t.nope.relative(),
            rel_mse_rope: t.rope.relative(),
            rel_mse: t.whole.relative(),
            written: t.written,
            read: t.read,
            kept: t.kept,
        };
        LatentRow {
            row_bytes: coded.first().map(|kind| kind.row_bytes),
            rel_mse_nope: total.nope.relative(),
            rel_mse_rope: total.rope.relative(),
            sink: tally.sink.mean(),
            index_overlap: tally.overlap.mean(),
            index_queries: tally.overlap.count,
            by_kernels: tally.by_kernels,
            kinds: RowKind::ALL.into_iter().zip(&tally.kinds).map(kind).collect(),
        }
    }
}

/// Bytes of coded rows that moved, and those that the schedule of the layers asks for.
pub fn proof(tally: &RowTally, config: &Config, tokens: usize, passages: u64) -> Option<Proof> {
    if tally.kinds.iter().all(|kind| !kind.coded) {
        return None;
    }
    let [bytes_written, bytes_read] = tally.bytes();
    let wanted = |what: usize| {
        let kinds = expected_rows(config, tokens).into_iter().zip(&tally.kinds).filter(|(_, kind)| kind.coded);
        passages * kinds.map(|(rows, kind)| rows[what] * kind.row_bytes as u64).sum::<u64>()
    };
    Some(Proof { bytes_written, bytes_written_expected: wanted(0), bytes_read, bytes_read_expected: wanted(1), counted_by_kernels: None })
}
