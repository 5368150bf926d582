//! From scored positions to one row of the report.

use std::ops::Range;

use super::gates::{self, Measured};
use super::latent_row::{self, LatentRow};
use super::row::{Agreement, Bucket, DeltaP, LayerRow, PassageRow, Proof, Row};
use super::{ReadPath, Score, Subject};
use crate::attention::{Geometry, Tally};
use crate::stats::{LEVEL, bootstrap_interval, detectable, mean, mean_with_interval, percentile, standard_error};

/// What a row needs to know of its run.
pub struct Setting<'a> {
    pub path: ReadPath,
    pub geometry: &'a Geometry,
    /// of a model that caches rows
    pub rows: Option<&'a crate::model::v4::Config>,
    pub ctx: usize,
    pub score: Range<usize>,
    pub seed: u64,
}

impl Row {
    pub fn of(subject: &Subject, passages: &[PassageRow], run: &Setting) -> Row {
        let all: Vec<Score> = passages.iter().flat_map(|p| p.scores.iter().copied()).collect();
        let kl: Vec<f64> = all.iter().map(|s| s.kl).collect();
        let per_passage = |value: fn(&Score) -> f64| passages.iter().map(|p| mean(p.scores.iter().map(value))).collect::<Vec<f64>>();
        let same_top = |s: &Score| f64::from(u8::from(s.same_top));
        let (dlnppl, kl_means, top1s) = (per_passage(|s| s.gap), per_passage(|s| s.kl), per_passage(same_top));
        let (gap, gap_half) = mean_with_interval(&dlnppl, LEVEL);
        let (kl_mean, kl_half) = mean_with_interval(&kl_means, LEVEL);
        let (_, top1_half) = mean_with_interval(&top1s, LEVEL);
        let top1 = mean(all.iter().map(same_top));
        let gaps: Vec<f64> = all.iter().map(|s| s.gap).collect();
        let mut tally = Tally::default();
        passages.iter().for_each(|p| tally += &p.tally);
        let counted = match subject {
            Subject::Identity | Subject::Noise => None,
            _ => tally.rows.as_ref(),
        };
        let bits = counted.map_or_else(|| subject.measured_bits(run.geometry, &tally.sizes), |rows| rows.bits(run.geometry.d));
        let measured = Measured { bits, ratio_upper: (gap + gap_half).exp(), kl: kl_mean, kl_p999: percentile(&kl, 0.999), top1_lower: top1 - top1_half };
        let eighth = |i: usize| run.score.start + run.score.len() * i / 8;
        let eighths = (0..8).map(|i| eighth(i)..eighth(i + 1));
        let contexts = [0..1024, 1024..4096, 4096..16384, 16384..usize::MAX];
        let buckets = |ranges: &mut dyn Iterator<Item = Range<usize>>| ranges.filter_map(|range| bucket(passages, run.score.start, range)).collect::<Vec<Bucket>>();
        Row {
            codec: subject.name(),
            stored_bits_per_element: bits,
            compression_vs_bf16: 16.0 / bits,
            allocated_bits_per_element: tally.allocated_bits(),
            sizes: tally.sizes,
            ppl_ratio: gap.exp(),
            ppl_ratio_ci95: [(gap - gap_half).exp(), (gap + gap_half).exp()],
            ppl_ratio_boot95: bootstrap_interval(&dlnppl, LEVEL, run.seed).map(f64::exp),
            ppl_ratio_detectable: detectable(&dlnppl).exp(),
            se_passage: standard_error(&dlnppl),
            se_token_llamacpp: standard_error(&gaps),
            kl_mean,
            kl_mean_ci95: [kl_mean - kl_half, kl_mean + kl_half],
            kl_mean_boot95: bootstrap_interval(&kl_means, LEVEL, run.seed),
            kl_median: percentile(&kl, 0.5),
            kl_p90: percentile(&kl, 0.9),
            kl_p95: percentile(&kl, 0.95),
            kl_p99: percentile(&kl, 0.99),
            kl_p999: percentile(&kl, 0.999),
            kl_max: percentile(&kl, 1.0),
            kl_llamacpp: mean(all.iter().map(|s| s.kl_above_16_nats)),
            top1,
            top1_ci95: [top1 - top1_half, top1 + top1_half],
            top1_confident: mean(all.iter().filter(|s| s.confident).map(same_top)),
            gold_change_rms: mean(all.iter().map(|s| s.gold_change * s.gold_change)).sqrt(),
            delta_p: delta_p(&all),
            rel_mse_k: tally.total().k.relative(),
            rel_mse_v: tally.total().v.relative(),
            positions: all.len(),
            tokens_stored: tally.stored,
            latent: tally.rows.as_ref().map(LatentRow::of),
            proof: proof(subject, &tally, passages.len() as u64, run),
            gate: gates::gate(run.path, &measured),
            seed_verdict: gates::seed_verdict(&dlnppl, top1),
            decode_agreement: agreement(passages),
            by_position: buckets(&mut eighths.into_iter()),
            by_context: buckets(&mut contexts.into_iter()),
            layers: layers(&tally),
            seconds: passages.iter().map(|p| p.seconds).sum(),
            dlnppl,
            kl: kl_means,
            top1_by_passage: top1s,
        }
    }
}

fn bucket(passages: &[PassageRow], first: usize, range: Range<usize>) -> Option<Bucket> {
    let scored = first..first + passages.first()?.scores.len();
    let (from, to) = (range.start.max(scored.start), range.end.min(scored.end));
    let inside: Vec<Score> = match from < to {
        true => passages.iter().flat_map(|p| p.scores[from - first..to - first].iter().copied()).collect(),
        false => return None,
    };
    Some(Bucket { from, to, positions: inside.len(), ppl_ratio: mean(inside.iter().map(|s| s.gap)).exp(), kl_mean: mean(inside.iter().map(|s| s.kl)), top1: mean(inside.iter().map(|s| f64::from(u8::from(s.same_top)))) })
}

fn delta_p(all: &[Score]) -> DeltaP {
    let values: Vec<f64> = all.iter().map(|s| s.gold_change).collect();
    let at = |fraction| percentile(&values, fraction);
    DeltaP {
        mean: mean(values.iter().copied()),
        rms: mean(values.iter().map(|v| v * v)).sqrt(),
        median: at(0.5),
        min: at(0.0),
        p0_1: at(0.001),
        p1: at(0.01),
        p5: at(0.05),
        p25: at(0.25),
        p75: at(0.75),
        p95: at(0.95),
        p99: at(0.99),
        p99_9: at(0.999),
        max: at(1.0),
    }
}

fn layers(tally: &Tally) -> Vec<LayerRow> {
    let row = |(layer, d): (usize, &crate::attention::LayerDistortion)| LayerRow {
        layer,
        rel_mse_k: d.k.relative(),
        rel_mse_v: d.v.relative(),
        cosine_k: d.k.mean_cosine(),
        cosine_v: d.v.mean_cosine(),
        attention_nmse: d.attention.relative(),
        attention_cosine: d.attention.mean_cosine(),
    };
    tally.layers.iter().enumerate().map(row).collect()
}

fn proof(subject: &Subject, tally: &Tally, passages: u64, run: &Setting) -> Option<Proof> {
    if let (Some(config), Some(rows)) = (run.rows, &tally.rows) {
        return latent_row::proof(rows, config, run.ctx, passages);
    }
    let [written, read] = subject.packed_bytes(run.path, run.geometry, run.ctx)?;
    Some(Proof { bytes_written: tally.bytes_written, bytes_written_expected: passages * written, bytes_read: tally.bytes_read, bytes_read_expected: passages * read, counted_by_kernels: tally.seen })
}

fn agreement(passages: &[PassageRow]) -> Option<Agreement> {
    let each: Vec<Agreement> = passages.iter().map(|p| p.agreement).collect::<Option<_>>()?;
    Some(Agreement { exact: each.iter().all(|a| a.exact), kl_mean: mean(each.iter().map(|a| a.kl_mean)), kl_max: each.iter().fold(0.0, |top, a| a.kl_max.max(top)) })
}

pub fn ppl_base(passages: &[PassageRow]) -> f64 {
    mean(passages.iter().flat_map(|p| p.scores.iter().map(|s| s.base_nll))).exp()
}
