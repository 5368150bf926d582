//! What one scored position says about a codec: base model against the same model reading the coded cache.
//! Logits are f32, everything after them f64, over the whole vocabulary.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::model::Logits;

/// Log probabilities of the base model, [position, vocab].
pub struct LogProbs {
    vocab: usize,
    values: Vec<f64>,
}

/// One scored position.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(from = "Packed", into = "Packed")]
pub struct Score {
    /// -ln p(gold) of the base model
    pub base_nll: f64,
    /// ln p_base(gold) - ln p_codec(gold)
    pub gap: f64,
    /// sum of p_base (ln p_base - ln p_codec), nats
    pub kl: f64,
    /// the same sum over the tokens that llama.cpp keeps: base log probability above -16
    pub kl_above_16_nats: f64,
    /// p_codec(gold) - p_base(gold)
    pub gold_change: f64,
    /// both have the same first argmax
    pub same_top: bool,
    /// the base model's best token leads by more than 0.1
    pub confident: bool,
}

impl Score {
    /// Of logits that are not all numbers.
    pub const NONE: Score = Score { base_nll: f64::NAN, gap: f64::NAN, kl: f64::NAN, kl_above_16_nats: f64::NAN, gold_change: f64::NAN, same_top: false, confident: false };
}

/// A score as it stands in the progress of a run.
type Packed = (f64, f64, f64, f64, f64, bool, bool);

impl From<Packed> for Score {
    fn from((base_nll, gap, kl, kl_above_16_nats, gold_change, same_top, confident): Packed) -> Score {
        Score { base_nll, gap, kl, kl_above_16_nats, gold_change, same_top, confident }
    }
}

impl From<Score> for Packed {
    fn from(s: Score) -> Packed {
        (s.base_nll, s.gap, s.kl, s.kl_above_16_nats, s.gold_change, s.same_top, s.confident)
    }
}

impl LogProbs {
    pub fn of(logits: &Logits) -> LogProbs {
        let mut values = vec![0.0; logits.values.len()];
        values.par_chunks_mut(logits.vocab).zip(logits.values.par_chunks(logits.vocab)).for_each(|(out, row)| log_softmax(row, out));
        LogProbs { vocab: logits.vocab, values }
    }

    pub fn is_finite(&self) -> bool {
        self.values.par_iter().all(|v| v.is_finite())
    }

    /// `gold[i]` is the token that position i predicts.
    pub fn compare(&self, logits: &Logits, gold: &[u32]) -> Vec<Score> {
        let rows = self.values.par_chunks(self.vocab).zip(logits.values.par_chunks(self.vocab));
        rows.zip(gold)
            .map(|((base, row), gold)| {
                let mut coded = vec![0.0; row.len()];
                log_softmax(row, &mut coded);
                score(base, &coded, *gold as usize)
            })
            .collect()
    }
}

fn score(base: &[f64], coded: &[f64], gold: usize) -> Score {
    let (mut kl, mut kept) = (0.0, 0.0);
    for (b, c) in base.iter().zip(coded) {
        let term = b.exp() * (b - c);
        kl += term;
        kept += if *b > -16.0 { term } else { 0.0 };
    }
    let (top, second) = best_two(base);
    Score { base_nll: -base[gold], gap: base[gold] - coded[gold], kl, kl_above_16_nats: kept, gold_change: coded[gold].exp() - base[gold].exp(), same_top: top == best_two(coded).0, confident: base[top].exp() - second.exp() > 0.1 }
}

/// First index of the largest value, and the second largest value.
fn best_two(values: &[f64]) -> (usize, f64) {
    let (mut at, mut second) = (0, f64::NEG_INFINITY);
    for (i, v) in values.iter().enumerate().skip(1) {
        if *v > values[at] {
            second = values[at];
            at = i;
        } else if *v > second {
            second = *v;
        }
    }
    (at, second)
}

fn log_softmax(row: &[f32], out: &mut [f64]) {
    let top = f64::from(row.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    let sum: f64 = row.iter().map(|v| (f64::from(*v) - top).exp()).sum();
    let shift = top + sum.ln();
    out.iter_mut().zip(row).for_each(|(o, v)| *o = f64::from(*v) - shift);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logits(values: &[f32]) -> Logits {
        Logits { vocab: 3, values: values.to_vec() }
    }

    #[test]
    fn equal_logits_have_exactly_zero_divergence() {
        let row = logits(&[0.3, -1.2, 4.5, 9.0, 9.0, -20.0]);
        for s in LogProbs::of(&row).compare(&row, &[0, 2]) {
            assert!(s.kl == 0.0 && s.gap == 0.0 && s.gold_change == 0.0 && s.same_top, "{s:?}");
        }
    }

    #[test]
    fn divergence_of_a_known_pair() {
        let ln = |p: [f64; 3]| logits(&p.map(|v| v.ln() as f32));
        let s = LogProbs::of(&ln([0.5, 0.25, 0.25])).compare(&ln([0.25, 0.5, 0.25]), &[1])[0];
        assert!((s.kl - 0.25 * 2.0_f64.ln()).abs() < 1e-7, "{s:?}");
        assert!((s.gap + 2.0_f64.ln()).abs() < 1e-7);
        assert!((s.gold_change - 0.25).abs() < 1e-7);
        assert!(!s.same_top && s.confident);
        assert!((s.base_nll - 4.0_f64.ln()).abs() < 1e-7);
    }

    #[test]
    fn ties_go_to_the_lowest_index() {
        assert_eq!(best_two(&[1.0, 3.0, 3.0]), (1, 3.0));
        assert_eq!(best_two(&[5.0, 3.0, 4.0]), (0, 4.0));
    }
}
