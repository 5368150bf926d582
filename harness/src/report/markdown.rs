//! The table that is printed, and report.md around it.

use std::fmt::Write;

use super::{Report, latent};
use crate::ppl::Row;

const HEAD: [&str; 9] = ["codec", "bits/el", "ppl ratio [95 % CI]", "KL mean", "KL p99.9", "top-1", "rel-MSE K", "rel-MSE V", "s"];

/// The result table with columns padded, so that it reads in a terminal too.
pub fn table(rows: &[Row]) -> String {
    let mut head = HEAD.map(String::from);
    if rows.iter().any(|row| row.latent.is_some()) {
        head[6..8].clone_from_slice(&["rel-MSE nope".into(), "rel-MSE rope".into()]);
    }
    let cells: Vec<[String; 9]> = std::iter::once(head).chain(rows.iter().map(cells)).collect();
    let width = |column: usize| cells.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; 9] = std::array::from_fn(width);
    let mut text = String::new();
    for (index, row) in cells.iter().enumerate() {
        for (column, (cell, width)) in row.iter().zip(widths).enumerate() {
            let _ = if column == 0 { write!(text, "| {cell:width$} ") } else { write!(text, "| {cell:>width$} ") };
        }
        text.push_str("|\n");
        if index == 0 {
            let rule = |(column, width): (usize, usize)| format!("|{}{}", "-".repeat(width + 1), if column == 0 { '-' } else { ':' });
            let _ = writeln!(text, "{}|", widths.into_iter().enumerate().map(rule).collect::<String>());
        }
    }
    text
}

fn cells(row: &Row) -> [String; 9] {
    let [low, high] = row.ppl_ratio_ci95;
    let interval = if low.is_nan() { "[one passage]".to_string() } else { format!("[{}, {}]", ratio(low), ratio(high)) };
    // a row that is key and value at once has two other parts
    let parts = row.latent.as_ref().map_or([row.rel_mse_k, row.rel_mse_v], |latent| [latent.rel_mse_nope, latent.rel_mse_rope]);
    let [first, second] = parts.map(small);
    [
        row.codec.clone(),
        format!("{:.3}", row.stored_bits_per_element),
        format!("{} {interval}", ratio(row.ppl_ratio)),
        small(row.kl_mean),
        small(row.kl_p999),
        format!("{:.2} %", 100.0 * row.top1),
        first,
        second,
        format!("{:.1}", row.seconds),
    ]
}

fn ratio(value: f64) -> String {
    if value < 100.0 { format!("{value:.5}") } else { format!("{value:.4e}") }
}

pub fn small(value: f64) -> String {
    if value == 0.0 { "0".into() } else { format!("{value:.2e}") }
}

pub fn document(report: &Report) -> String {
    let (model, corpus, here) = (&report.model, &report.corpus, &report.environment);
    let mut text = String::from("# delta-ppl of KV cache codecs\n\n");
    for reason in &report.invalid {
        let _ = writeln!(text, "**INVALID:** {reason}\n");
    }
    let _ = writeln!(text, "{}", facts(report));
    let _ = writeln!(text, "{}", table(&report.rows));
    let _ = writeln!(
        text,
        "The ratio is exp of the mean difference of log probabilities of the true next token, codec against base; its interval is Student t over passages.\n\
         KL is base against codec over the whole vocabulary, in nats. `identity` sends f32 rows through the pages and must change nothing;\n\
         `self` is the base model in other chunks and another order of sums, the noise floor; `CONTROL` reads coordinates in a wrong order and must look bad.\n\
         Rows with `:k`, `:v` or `:sim` are round trips without the packed cache. What stays raw counts 16 bits.\n\
         `pca_*` rows whose blocks have pages read these, `kivi_*` rows the tiles of their kernels, by the scalar references, and newer tokens as bf16;\n\
         `:sim` has KIVI's own window. The bits of both are those of what was stored.\n"
    );
    text += &latent::section(&report.rows);
    let _ = writeln!(text, "## Verdicts\n\n{}", verdicts(&report.rows));
    let _ = writeln!(text, "## Distributions\n\n{}", distributions(&report.rows));
    let _ = writeln!(text, "## Layers\n\n{}", layers(&report.rows));
    let _ = writeln!(text, "## Proof of use\n\n{}", proofs(&report.rows));
    let _ = writeln!(text, "## Provenance\n");
    let _ = writeln!(text, "* model `{}`: {} layers, {} query and {} kv heads of {}, sha256 `{}`", model.name, model.layers, model.heads, model.kv_heads, model.head_dim, model.sha256);
    let _ = writeln!(text, "* corpus `{}`, sha256 `{}`", corpus.name, corpus.sha256);
    if let Some(c) = &report.calibration {
        let _ = writeln!(text, "* calibration `{}`, sha256 `{}`, from {} tokens of the text with sha256 `{}`; its maps take {} bytes beside the stored bits, whatever the context", c.file, c.sha256, c.tokens, c.text_sha256, c.static_bytes);
    }
    if let Some(f) = &report.fitted {
        for (codec, bytes) in &f.static_bytes {
            let _ = writeln!(text, "* `{codec}`: {bytes} bytes of tables and whitenings beside the stored bits, whatever the context");
        }
        if let (Some(file), Some(sha256)) = (&f.text, &f.text_sha256) {
            let _ = writeln!(text, "* pca codecs fitted on {} tokens of `{file}`, sha256 `{sha256}`", f.tokens);
        }
    }
    let _ = writeln!(text, "* machine: {}, {} cores, {}; harness {} ({} build, revision {}); {}", here.cpu, here.cores, here.os, here.version, here.build, here.revision.as_deref().unwrap_or("unknown"), report.date);
    let _ = writeln!(text, "* seed {}, {} bootstrap draws", report.seed, report.bootstrap_draws);
    let _ = writeln!(text, "* command: `{}`, {:.0} s", report.command, report.seconds);
    text
}

fn is_codec(row: &&Row) -> bool {
    !["identity", "self"].contains(&row.codec.as_str()) && !row.codec.starts_with("CONTROL_")
}

/// Ours and the seeds', side by side.
fn verdicts(rows: &[Row]) -> String {
    let mut text = String::from("| codec | vs bf16 | class | limits | why | bootstrap 95 % | detectable | seeds' rule | relaxed |\n|---|--:|---|---|---|---|--:|---|---|\n");
    for row in rows.iter().filter(is_codec) {
        let verdict = match row.gate.pass {
            Some(true) => "passed",
            Some(false) => "missed",
            None => "not gated",
        };
        let [low, high] = row.ppl_ratio_boot95;
        let _ = writeln!(
            text,
            "| {} | {:.2} x | {} | {verdict} | {} | [{}, {}] | {:+.3} % | {} | {} |",
            row.codec,
            row.compression_vs_bf16,
            row.gate.class,
            row.gate.why.join("; "),
            ratio(low),
            ratio(high),
            100.0 * (row.ppl_ratio_detectable - 1.0),
            row.seed_verdict.strict,
            row.seed_verdict.relaxed
        );
    }
    text + "\n`detectable` is the smallest change of perplexity that this run would have found four times in five.\n"
}

fn distributions(rows: &[Row]) -> String {
    let mut text = String::from("| codec | KL median | p90 | p95 | p99 | p99.9 | max | llama.cpp's KL | delta-p rms | p1 | p99 | top-1 [95 % CI] |\n|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n");
    for row in rows.iter().filter(is_codec) {
        let kl = [row.kl_median, row.kl_p90, row.kl_p95, row.kl_p99, row.kl_p999, row.kl_max, row.kl_llamacpp].map(small);
        let dp = [row.delta_p.rms, row.delta_p.p1, row.delta_p.p99].map(|v| format!("{:.3} %", 100.0 * v));
        let [low, high] = row.top1_ci95.map(|v| format!("{:.2}", 100.0 * v));
        let _ = writeln!(text, "| {} | {} | {} | {:.2} % [{low}, {high}] |", row.codec, kl.join(" | "), dp.join(" | "), 100.0 * row.top1);
    }
    text
}

fn layers(rows: &[Row]) -> String {
    let mut text = String::from("| codec | layer | rel-MSE K | rel-MSE V | cosine K | cosine V | attention NMSE |\n|---|--:|--:|--:|--:|--:|--:|\n");
    for row in rows.iter().filter(is_codec) {
        for l in &row.layers {
            let _ = writeln!(text, "| {} | {} | {} | {} | {:.6} | {:.6} | {} |", row.codec, l.layer, small(l.rel_mse_k), small(l.rel_mse_v), l.cosine_k, l.cosine_v, small(l.attention_nmse));
        }
    }
    text
}

/// Bytes of codes that moved.
fn proofs(rows: &[Row]) -> String {
    let mut text = String::from("| row | bytes written | expected | bytes read | expected | counted by |\n|---|--:|--:|--:|--:|---|\n");
    for row in rows {
        let Some(p) = row.proof else { continue };
        let by = if p.counted_by_kernels.is_some() { "the kernels" } else { "the host" };
        let _ = writeln!(text, "| {} | {} | {} | {} | {} | {by} |", row.codec, p.bytes_written, p.bytes_written_expected, p.bytes_read, p.bytes_read_expected);
    }
    text + "\nKernels count in twins of their own, through which every store and every attention runs once more; both must leave the same bytes.\n"
}

/// What was measured, in one line; printed above the table too.
pub fn facts(report: &Report) -> String {
    let corpus = &report.corpus;
    format!(
        "{}: {} passages of {} tokens, positions {}..{} scored ({} in all), read path `{}`, backend {}, base ppl {:.4}\n",
        report.model.name,
        corpus.passages,
        corpus.ctx,
        corpus.score[0],
        corpus.score[1],
        corpus.passages * (corpus.score[1] - corpus.score[0]),
        report.read_path,
        report.backend,
        report.ppl_base
    )
}
