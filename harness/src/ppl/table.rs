//! From scored positions to one row of the report.

use serde::{Serialize, Serializer};

use super::{Score, Subject};
use crate::attention::Tally;
use crate::stats::{mean, mean_with_interval, percentile};

/// One passage through one subject.
pub struct PassageRow {
    pub scores: Vec<Score>,
    pub tally: Tally,
    pub seconds: f64,
}

/// Not-a-number and infinities become null in the file.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    pub codec: String,
    pub stored_bits_per_element: f64,
    /// caches really allocated over elements really stored: page slack included
    pub allocated_bits_per_element: Option<f64>,
    pub ppl_ratio: f64,
    pub ppl_ratio_ci95: [f64; 2],
    pub kl_mean: f64,
    pub kl_mean_ci95: [f64; 2],
    pub kl_median: f64,
    pub kl_p99: f64,
    pub kl_p999: f64,
    pub kl_max: f64,
    pub top1: f64,
    pub top1_confident: f64,
    pub gold_change_rms: f64,
    pub rel_mse_k: f64,
    pub rel_mse_v: f64,
    pub positions: usize,
    pub tokens_stored: u64,
    pub seconds: f64,
    /// per passage: mean ln-perplexity difference
    #[serde(serialize_with = "list")]
    pub dlnppl: Vec<f64>,
    #[serde(serialize_with = "list")]
    pub kl: Vec<f64>,
}

fn list<S: Serializer>(values: &[f64], to: S) -> Result<S::Ok, S::Error> {
    to.collect_seq(values)
}

impl Row {
    pub fn of(subject: &Subject, passages: &[PassageRow], d: usize) -> Row {
        let all: Vec<Score> = passages.iter().flat_map(|p| p.scores.iter().copied()).collect();
        let kl: Vec<f64> = all.iter().map(|s| s.kl).collect();
        let per_passage =
            |value: fn(&Score) -> f64| passages.iter().map(|p| mean(p.scores.iter().map(value))).collect::<Vec<f64>>();
        let (dlnppl, kl_means) = (per_passage(|s| s.gap), per_passage(|s| s.kl));
        let (gap, gap_half) = mean_with_interval(&dlnppl, 0.95);
        let (kl_mean, kl_half) = mean_with_interval(&kl_means, 0.95);
        let share = |scores: &mut dyn Iterator<Item = &Score>| mean(scores.map(|s| f64::from(u8::from(s.same_top))));
        let tally = passages.iter().fold(Tally::default(), |sum, p| sum + p.tally);
        Row {
            codec: subject.name(),
            stored_bits_per_element: subject.stored_bits(d),
            allocated_bits_per_element: tally.allocated_bits(),
            ppl_ratio: gap.exp(),
            ppl_ratio_ci95: [(gap - gap_half).exp(), (gap + gap_half).exp()],
            kl_mean,
            kl_mean_ci95: [kl_mean - kl_half, kl_mean + kl_half],
            kl_median: percentile(&kl, 0.5),
            kl_p99: percentile(&kl, 0.99),
            kl_p999: percentile(&kl, 0.999),
            kl_max: percentile(&kl, 1.0),
            top1: share(&mut all.iter()),
            top1_confident: share(&mut all.iter().filter(|s| s.confident)),
            gold_change_rms: mean(all.iter().map(|s| s.gold_change * s.gold_change)).sqrt(),
            rel_mse_k: tally.k.relative(),
            rel_mse_v: tally.v.relative(),
            positions: all.len(),
            tokens_stored: tally.stored,
            seconds: passages.iter().map(|p| p.seconds).sum(),
            dlnppl,
            kl: kl_means,
        }
    }
}

pub fn ppl_base(passages: &[PassageRow]) -> f64 {
    mean(passages.iter().flat_map(|p| p.scores.iter().map(|s| s.base_nll))).exp()
}
