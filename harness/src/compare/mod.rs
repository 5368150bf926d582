//! `compare`: two rows, passage by passage. Two intervals that overlap prove nothing; the difference has an interval
//! of its own, and it is the only fair one.

mod plot;

use std::fmt::Write;
use std::path::PathBuf;

use serde::Serialize;
use serde_json::json;

use crate::error::{Error, Result};
use crate::ppl::Row;
use crate::report::{Report, html, write_files};
use crate::run::Output;
use crate::stats::{LEVEL, bootstrap_interval, detectable, mean_with_interval};

#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// a report of `ppl` and a row of it, as PATH:CODEC; without :CODEC every row that both reports have
    pub a: String,
    /// what it is compared with, written the same way
    pub b: String,
    #[command(flatten)]
    pub output: Output,
}

/// Differences are A minus B, so below zero A is better.
#[derive(Clone, Debug, Serialize)]
pub struct Pair {
    pub a: String,
    pub b: String,
    pub bits: [f64; 2],
    /// mean difference of ln perplexity, as a ratio of perplexities
    pub ppl_ratio: f64,
    pub ppl_ratio_ci95: [f64; 2],
    pub ppl_ratio_boot95: [f64; 2],
    pub ppl_ratio_detectable: f64,
    pub kl_difference: f64,
    pub kl_difference_ci95: [f64; 2],
    pub kl_difference_boot95: [f64; 2],
    pub top1_difference: f64,
    pub top1_difference_ci95: [f64; 2],
    /// passage by passage
    pub kl_differences: Vec<f64>,
    /// passages in which A diverges less
    pub passages_better: usize,
    pub passages: usize,
    pub verdict: String,
}

#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
    pub kind: &'static str,
    pub read_path: String,
    pub model: String,
    pub corpus: String,
    pub seed: u64,
    pub pairs: Vec<Pair>,
}

pub fn run(options: &Options) -> Result<Comparison> {
    let (path_a, row_a) = split(&options.a);
    let (path_b, row_b) = split(&options.b);
    let (one, two) = (Report::read(&path_a)?, Report::read(&path_b)?);
    same_measurement(&one, &two)?;
    let row = |report: &Report, path: &PathBuf, name: &str| -> Result<Row> {
        report.rows.iter().find(|r| r.codec == name).cloned().ok_or_else(|| {
            let names: Vec<&str> = report.rows.iter().map(|r| r.codec.as_str()).collect();
            Error::Usage(format!("{} has no row {name}; it has {}", path.display(), names.join(", ")))
        })
    };
    let pairs: Vec<(Row, Row)> = match (row_a, row_b) {
        (Some(a), Some(b)) => vec![(row(&one, &path_a, &a)?, row(&two, &path_b, &b)?)],
        (Some(name), None) | (None, Some(name)) => {
            vec![(row(&one, &path_a, &name)?, row(&two, &path_b, &name)?)]
        }
        (None, None) => {
            let both = one.rows.iter().filter_map(|a| Some((a.clone(), two.rows.iter().find(|b| b.codec == a.codec)?.clone())));
            both.collect()
        }
    };
    if pairs.is_empty() {
        return Err(Error::Usage("the reports have no row in common; name one of each as PATH:CODEC".into()));
    }
    let seed = options.output.seed;
    let found = Comparison { kind: "compare", read_path: one.read_path.clone(), model: one.model.sha256.clone(), corpus: one.corpus.sha256.clone(), seed, pairs: pairs.iter().map(|(a, b)| pair(a, b, seed)).collect() };
    if let (Some(folder), false) = (options.output.folder()?, options.output.dry_run) {
        let drawing = html::Drawing {
            title: "Paired differences".into(),
            note: "Faint dots: passages. Full dot and bar: their mean and its 95 % interval, Student t. Green: A diverges less; orange: B does; grey: not told apart.",
            svg: plot::plot(&found.pairs),
            half: false,
        };
        let page = html::prose("Codecs compared", &found.table(), &[drawing]);
        write_files(folder, "compare", &found.json()?, &found.table(), &page)?;
    }
    Ok(found)
}

/// PATH:CODEC. A codec may have a colon of its own (int4:k), a path that exists may not be cut.
fn split(text: &str) -> (PathBuf, Option<String>) {
    let whole = PathBuf::from(text);
    if whole.exists() {
        return (whole, None);
    }
    let cuts = text.char_indices().filter(|(_, c)| *c == ':').map(|(at, _)| at);
    let found = cuts.into_iter().find(|at| PathBuf::from(&text[..*at]).exists());
    found.map_or((whole, None), |at| (PathBuf::from(&text[..at]), Some(text[at + 1..].to_string())))
}

/// Unlike measurements are refused: their difference would be one of texts, not of codecs.
fn same_measurement(one: &Report, two: &Report) -> Result<()> {
    let wrong = [
        ("models", one.model.sha256 != two.model.sha256),
        ("passages", one.corpus.sha256 != two.corpus.sha256 || one.corpus.passages != two.corpus.passages),
        ("scored positions", one.corpus.score != two.corpus.score || one.corpus.ctx != two.corpus.ctx),
        ("read paths", one.read_path != two.read_path || one.chunk != two.chunk),
    ];
    match wrong.iter().find(|(_, differs)| *differs) {
        Some((what, _)) => Err(Error::Usage(format!("the reports are of different {what}, so their rows cannot be paired; measure both codecs with the same options"))),
        None if !(one.valid && two.valid) => Err(Error::Usage("a run that is not valid cannot be compared".into())),
        None => Ok(()),
    }
}

fn pair(a: &Row, b: &Row, seed: u64) -> Pair {
    let differences = |x: &[f64], y: &[f64]| x.iter().zip(y).map(|(a, b)| a - b).collect::<Vec<f64>>();
    let (gaps, kls, tops) = (differences(&a.dlnppl, &b.dlnppl), differences(&a.kl, &b.kl), differences(&a.top1_by_passage, &b.top1_by_passage));
    let interval = |values: &[f64]| {
        let (mean, half) = mean_with_interval(values, LEVEL);
        (mean, [mean - half, mean + half])
    };
    let ((gap, gap_ci), (kl, kl_ci), (top1, top1_ci)) = (interval(&gaps), interval(&kls), interval(&tops));
    let verdict = match kl_ci {
        [low, _] if low.is_nan() => "one passage decides nothing",
        [low, high] if low == 0.0 && high == 0.0 => "the same",
        [_, high] if high < 0.0 => "A diverges less",
        [low, _] if low > 0.0 => "B diverges less",
        _ => "not told apart",
    };
    Pair {
        a: a.codec.clone(),
        b: b.codec.clone(),
        bits: [a.stored_bits_per_element, b.stored_bits_per_element],
        ppl_ratio: gap.exp(),
        ppl_ratio_ci95: gap_ci.map(f64::exp),
        ppl_ratio_boot95: bootstrap_interval(&gaps, LEVEL, seed).map(f64::exp),
        ppl_ratio_detectable: detectable(&gaps).exp(),
        kl_difference: kl,
        kl_difference_ci95: kl_ci,
        kl_difference_boot95: bootstrap_interval(&kls, LEVEL, seed),
        top1_difference: top1,
        top1_difference_ci95: top1_ci,
        passages_better: kls.iter().filter(|d| **d < 0.0).count(),
        passages: kls.len(),
        kl_differences: kls,
        verdict: verdict.into(),
    }
}

impl Comparison {
    pub fn json(&self) -> Result<String> {
        serde_json::to_string_pretty(&json!(self)).map_err(|e| Error::Data(format!("the comparison cannot be written as json: {e}")))
    }

    pub fn table(&self) -> String {
        let mut text = format!(
            "Paired over passages, read path `{}`; A against B, 95 % Student t [bootstrap].\n\n\
             | A | B | bits A | bits B | ppl A / ppl B | bootstrap | KL A - KL B | top-1 A - B | better in | by KL |\n\
             |---|---|--:|--:|--:|--:|--:|--:|--:|---|\n",
            self.read_path
        );
        for p in &self.pairs {
            let _ = writeln!(
                text,
                "| {} | {} | {:.3} | {:.3} | {:.5} [{:.5}, {:.5}] | [{:.5}, {:.5}] | {:+.2e} [{:+.2e}, {:+.2e}] | {:+.2} % | {} of {} | {} |",
                p.a,
                p.b,
                p.bits[0],
                p.bits[1],
                p.ppl_ratio,
                p.ppl_ratio_ci95[0],
                p.ppl_ratio_ci95[1],
                p.ppl_ratio_boot95[0],
                p.ppl_ratio_boot95[1],
                p.kl_difference,
                p.kl_difference_ci95[0],
                p.kl_difference_ci95[1],
                100.0 * p.top1_difference,
                p.passages_better,
                p.passages,
                p.verdict
            );
        }
        text
    }
}
