//! From scored positions to one row of the report.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::gates::{self, Gate, Measured, SeedVerdict};
use super::{ReadPath, Score, Subject};
use crate::attention::{Geometry, Sizes, Tally};
use crate::report::number::{nan, nan_list, nan_pair};
use crate::stats::{LEVEL, bootstrap_interval, detectable, mean, mean_with_interval, percentile, standard_error};

/// One passage through one subject.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PassageRow {
    pub scores: Vec<Score>,
    pub tally: Tally,
    pub seconds: f64,
    /// read path `decode`: how far the same passage in one chunk is
    pub agreement: Option<Agreement>,
}

/// Token-by-token against all at once, over the scored positions.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Agreement {
    /// every logit has the same bits
    pub exact: bool,
    pub kl_mean: f64,
    pub kl_max: f64,
}

/// Bytes that a row moved, and what its codec's sizes and the passage lengths ask for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Proof {
    pub bytes_written: u64,
    pub bytes_written_expected: u64,
    pub bytes_read: u64,
    pub bytes_read_expected: u64,
}

/// Change of the true token's probability, codec minus base.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct DeltaP {
    pub mean: f64,
    pub rms: f64,
    pub median: f64,
    pub min: f64,
    pub p0_1: f64,
    pub p1: f64,
    pub p5: f64,
    pub p25: f64,
    pub p75: f64,
    pub p95: f64,
    pub p99: f64,
    pub p99_9: f64,
    pub max: f64,
}

/// Scored positions from..to of all passages.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Bucket {
    pub from: usize,
    pub to: usize,
    pub positions: usize,
    #[serde(deserialize_with = "nan")]
    pub ppl_ratio: f64,
    #[serde(deserialize_with = "nan")]
    pub kl_mean: f64,
    pub top1: f64,
}

/// One layer: stored rows against raw ones, and the attention's output against the exact one.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct LayerRow {
    pub layer: usize,
    pub rel_mse_k: f64,
    pub rel_mse_v: f64,
    pub cosine_k: f64,
    pub cosine_v: f64,
    #[serde(deserialize_with = "nan")]
    pub attention_nmse: f64,
    #[serde(deserialize_with = "nan")]
    pub attention_cosine: f64,
}

/// Not-a-number and infinities become null in the file.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Row {
    pub codec: String,
    pub stored_bits_per_element: f64,
    /// of the whole cache, raw layers and halves included
    pub compression_vs_bf16: f64,
    /// caches really allocated over elements really stored: page slack included
    pub allocated_bits_per_element: Option<f64>,
    /// of a codec whose sizes depend on the rows, over all passages
    #[serde(default)]
    pub sizes: Sizes,
    #[serde(deserialize_with = "nan")]
    pub ppl_ratio: f64,
    #[serde(deserialize_with = "nan_pair")]
    pub ppl_ratio_ci95: [f64; 2],
    #[serde(deserialize_with = "nan_pair")]
    pub ppl_ratio_boot95: [f64; 2],
    /// the smallest true ratio that this run would have found four times in five
    #[serde(deserialize_with = "nan")]
    pub ppl_ratio_detectable: f64,
    #[serde(deserialize_with = "nan")]
    pub se_passage: f64,
    /// as if tokens were independent, which they are not
    #[serde(deserialize_with = "nan")]
    pub se_token_llamacpp: f64,
    #[serde(deserialize_with = "nan")]
    pub kl_mean: f64,
    #[serde(deserialize_with = "nan_pair")]
    pub kl_mean_ci95: [f64; 2],
    #[serde(deserialize_with = "nan_pair")]
    pub kl_mean_boot95: [f64; 2],
    #[serde(deserialize_with = "nan")]
    pub kl_median: f64,
    #[serde(deserialize_with = "nan")]
    pub kl_p90: f64,
    #[serde(deserialize_with = "nan")]
    pub kl_p95: f64,
    #[serde(deserialize_with = "nan")]
    pub kl_p99: f64,
    #[serde(deserialize_with = "nan")]
    pub kl_p999: f64,
    #[serde(deserialize_with = "nan")]
    pub kl_max: f64,
    #[serde(deserialize_with = "nan")]
    pub kl_llamacpp: f64,
    pub top1: f64,
    #[serde(deserialize_with = "nan_pair")]
    pub top1_ci95: [f64; 2],
    #[serde(deserialize_with = "nan")]
    pub top1_confident: f64,
    pub gold_change_rms: f64,
    pub delta_p: DeltaP,
    pub rel_mse_k: f64,
    pub rel_mse_v: f64,
    pub positions: usize,
    pub tokens_stored: u64,
    pub proof: Option<Proof>,
    pub gate: Gate,
    pub seed_verdict: SeedVerdict,
    pub decode_agreement: Option<Agreement>,
    /// eighths of the scored range
    pub by_position: Vec<Bucket>,
    /// 0-1k, 1-4k, 4-16k, from 16k
    pub by_context: Vec<Bucket>,
    pub layers: Vec<LayerRow>,
    pub seconds: f64,
    /// per passage: mean ln-perplexity difference
    #[serde(deserialize_with = "nan_list")]
    pub dlnppl: Vec<f64>,
    #[serde(deserialize_with = "nan_list")]
    pub kl: Vec<f64>,
    #[serde(deserialize_with = "nan_list")]
    pub top1_by_passage: Vec<f64>,
}

/// What a row needs to know of its run.
pub struct Setting<'a> {
    pub path: ReadPath,
    pub geometry: &'a Geometry,
    pub ctx: usize,
    pub score: Range<usize>,
    pub seed: u64,
}

impl Row {
    pub fn of(subject: &Subject, passages: &[PassageRow], run: &Setting) -> Row {
        let all: Vec<Score> = passages.iter().flat_map(|p| p.scores.iter().copied()).collect();
        let kl: Vec<f64> = all.iter().map(|s| s.kl).collect();
        let per_passage =
            |value: fn(&Score) -> f64| passages.iter().map(|p| mean(p.scores.iter().map(value))).collect::<Vec<f64>>();
        let same_top = |s: &Score| f64::from(u8::from(s.same_top));
        let (dlnppl, kl_means, top1s) = (per_passage(|s| s.gap), per_passage(|s| s.kl), per_passage(same_top));
        let (gap, gap_half) = mean_with_interval(&dlnppl, LEVEL);
        let (kl_mean, kl_half) = mean_with_interval(&kl_means, LEVEL);
        let (_, top1_half) = mean_with_interval(&top1s, LEVEL);
        let top1 = mean(all.iter().map(same_top));
        let gaps: Vec<f64> = all.iter().map(|s| s.gap).collect();
        let mut tally = Tally::default();
        passages.iter().for_each(|p| tally += &p.tally);
        let bits = subject.measured_bits(run.geometry, &tally.sizes);
        let measured = Measured {
            bits,
            ratio_upper: (gap + gap_half).exp(),
            kl: kl_mean,
            kl_p999: percentile(&kl, 0.999),
            top1_lower: top1 - top1_half,
        };
        let eighth = |i: usize| run.score.start + run.score.len() * i / 8;
        let eighths = (0..8).map(|i| eighth(i)..eighth(i + 1));
        let contexts = [0..1024, 1024..4096, 4096..16384, 16384..usize::MAX];
        let buckets = |ranges: &mut dyn Iterator<Item = Range<usize>>| {
            ranges.filter_map(|range| bucket(passages, run.score.start, range)).collect::<Vec<Bucket>>()
        };
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
    Some(Bucket {
        from,
        to,
        positions: inside.len(),
        ppl_ratio: mean(inside.iter().map(|s| s.gap)).exp(),
        kl_mean: mean(inside.iter().map(|s| s.kl)),
        top1: mean(inside.iter().map(|s| f64::from(u8::from(s.same_top)))),
    })
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
    let token = passages * run.geometry.kv_heads as u64 * subject.token_bytes(run.path, run.geometry)?;
    let ctx = run.ctx as u64;
    Some(Proof {
        bytes_written: tally.bytes_written,
        bytes_written_expected: ctx * token,
        bytes_read: tally.bytes_read,
        bytes_read_expected: ctx * (ctx + 1) / 2 * token,
    })
}

fn agreement(passages: &[PassageRow]) -> Option<Agreement> {
    let each: Vec<Agreement> = passages.iter().map(|p| p.agreement).collect::<Option<_>>()?;
    Some(Agreement {
        exact: each.iter().all(|a| a.exact),
        kl_mean: mean(each.iter().map(|a| a.kl_mean)),
        kl_max: each.iter().fold(0.0, |top, a| a.kl_max.max(top)),
    })
}

pub fn ppl_base(passages: &[PassageRow]) -> f64 {
    mean(passages.iter().flat_map(|p| p.scores.iter().map(|s| s.base_nll))).exp()
}
