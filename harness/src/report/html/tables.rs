//! The numbers behind the drawings, and where they come from.

use std::fmt::Write;

use super::entry::{Entry, Kind};
use super::escaped;
use crate::report::{Report, latent};

pub fn small(value: f64) -> String {
    match value {
        0.0 => "0".into(),
        v if v.is_nan() => "\u{2013}".into(),
        v => format!("{v:.2e}").replace('-', "\u{2212}"),
    }
}

fn table(head: &[&str], rows: impl Iterator<Item = (bool, Vec<String>)>) -> String {
    let mut html = String::from("<table><thead><tr>");
    head.iter().for_each(|cell| html += &format!("<th>{cell}</th>"));
    html += "</tr></thead><tbody>";
    for (aside, cells) in rows {
        html += if aside { "<tr class=\"aside\">" } else { "<tr>" };
        cells.iter().for_each(|cell| html += &format!("<td>{cell}</td>"));
        html += "</tr>";
    }
    html + "</tbody></table>"
}

pub fn results(entries: &[Entry]) -> String {
    let head = ["row", "bits", "vs bf16", "ppl ratio [95 %]", "KL mean", "KL p99.9", "top-1", if entries.iter().any(|e| e.row.latent.is_some()) { "rel-MSE nope / rope" } else { "rel-MSE K / V" }, "limits", "seeds' rule"];
    let rows = entries.iter().map(|e| {
        let row = e.row;
        let ratio = |v: f64| if v < 100.0 { format!("{v:.5}") } else { small(v) };
        let short = |v: f64| if v < 100.0 { format!("{v:.4}") } else { small(v) };
        let [low, high] = row.ppl_ratio_ci95;
        let range = if low.is_nan() { "one passage".into() } else { format!("[{}, {}]", short(low), short(high)) };
        let (class, word) = match row.gate.pass {
            _ if e.kind != Kind::Codec => ("", String::new()),
            Some(true) => ("pass", "passed".into()),
            Some(false) => ("fail", "missed".into()),
            None => ("open", "not gated".into()),
        };
        let verdict = if e.kind == Kind::Codec { row.seed_verdict.strict.clone() } else { String::new() };
        let cells = vec![
            escaped(&e.label),
            format!("{:.3}", row.stored_bits_per_element),
            format!("{:.2}\u{d7}", row.compression_vs_bf16),
            format!("{} <span class=\"range\">{range}</span>", ratio(row.ppl_ratio)),
            small(row.kl_mean),
            small(row.kl_p999),
            format!("{:.2} %", 100.0 * row.top1),
            match &row.latent {
                Some(latent) => format!("{} / {}", small(latent.rel_mse_nope), small(latent.rel_mse_rope)),
                None => format!("{} / {}", small(row.rel_mse_k), small(row.rel_mse_v)),
            },
            format!("<span class=\"pill {class}\" style=\"margin:0\" title=\"{}\">{word}</span>", escaped(&format!("limits of the {} class. {}", row.gate.class, row.gate.why.join("; ")))),
            verdict,
        ];
        (e.kind != Kind::Codec, cells)
    });
    table(&head, rows)
}

pub fn distributions(entries: &[Entry]) -> String {
    let head = ["row", "KL median", "p90", "p95", "p99", "p99.9", "max", "\u{394}p rms", "\u{394}p p1", "median", "p99", "se"];
    let rows = entries.iter().map(|e| {
        let (row, dp) = (e.row, &e.row.delta_p);
        let points = |v: f64| format!("{:.3}", 100.0 * v + 0.0).replace("-0.000", "0.000").replace('-', "\u{2212}");
        let cells = vec![
            escaped(&e.label),
            small(row.kl_median),
            small(row.kl_p90),
            small(row.kl_p95),
            small(row.kl_p99),
            small(row.kl_p999),
            small(row.kl_max),
            points(dp.rms),
            points(dp.p1),
            points(dp.median),
            points(dp.p99),
            small(row.se_passage),
        ];
        (e.kind != Kind::Codec, cells)
    });
    table(&head, rows)
}

/// Rows that serve all heads, kind by kind; nothing where there are none.
pub fn rows(reports: &[Report]) -> String {
    let lines: Vec<[String; 9]> = reports.iter().flat_map(|report| latent::lines(&report.rows)).collect();
    let plain = |codec: &str| !["identity", "self"].contains(&codec) && !codec.starts_with("CONTROL_");
    let cells = |line: [String; 9]| (!plain(&line[0]), line.map(|cell| escaped(&cell)).to_vec());
    if lines.is_empty() { String::new() } else { table(&latent::HEAD, lines.into_iter().map(cells)) }
}

/// Bytes of codes that moved, and who counted them.
pub fn proofs(entries: &[Entry]) -> String {
    let head = ["row", "bytes written", "as sizes ask", "bytes read", "as lengths ask", "counted by"];
    let grouped = |n: u64| {
        let digits = n.to_string();
        let parts: Vec<&str> = digits.as_bytes().rchunks(3).rev().filter_map(|part| std::str::from_utf8(part).ok()).collect();
        parts.join("\u{202f}")
    };
    let equal = |is: u64, wanted: u64| {
        let (class, word) = if is == wanted { ("pass", "equal".into()) } else { ("fail", grouped(wanted)) };
        format!("<span class=\"pill {class}\" style=\"margin:0\">{word}</span>")
    };
    let rows = entries.iter().filter_map(|e| {
        let p = e.row.proof?;
        let by = if p.counted_by_kernels.is_some() { "the kernels" } else { "the host" };
        let cells = vec![escaped(&e.label), grouped(p.bytes_written), equal(p.bytes_written, p.bytes_written_expected), grouped(p.bytes_read), equal(p.bytes_read, p.bytes_read_expected), by.into()];
        Some((e.kind != Kind::Codec, cells))
    });
    table(&head, rows)
}

pub fn provenance(reports: &[Report]) -> String {
    let mut html = String::new();
    for (run, report) in reports.iter().enumerate() {
        if reports.len() > 1 {
            let _ = write!(html, "<h2>Run {}</h2>", run + 1);
        }
        let (model, corpus, here) = (&report.model, &report.corpus, &report.environment);
        let files: String = model.files.iter().map(|f| format!("<code>{} {}</code><br>", f.sha256, escaped(&f.file))).collect();
        let kernels: String = report
            .kernels
            .iter()
            .map(|k| {
                let short = |id: &Option<String>| id.as_deref().map_or("\u{2013}".into(), |id| id.chars().take(16).collect::<String>());
                format!("<code>{}: store {}, decode {}</code><br>", escaped(&k.codec), short(&k.store), short(&k.decode_attention))
            })
            .collect();
        let _ = write!(
            html,
            "<dl class=\"ids\"><dt>model</dt><dd>{} <details><summary>sha256 <code>{}</code></summary>{files}</details></dd>\
             <dt>passages</dt><dd>{}<br>sha256 <code>{}</code></dd>\
             <dt>kernels</dt><dd><details><summary>sha256 of the CUDA texts of {} codecs</summary>{kernels}</details></dd>\
             <dt>machine</dt><dd>{}, {} cores, {}; {}</dd>\
             <dt>program</dt><dd>harness {} ({} build), revision {}, seed {}, {} bootstrap draws</dd>\
             <dt>date</dt><dd>{}, {:.0} s</dd></dl><pre><code>{}</code></pre>",
            escaped(&model.name),
            model.sha256,
            escaped(&corpus.name),
            corpus.sha256,
            report.kernels.len(),
            escaped(&here.cpu),
            here.cores,
            escaped(&here.os),
            escaped(&report.backend),
            here.version,
            here.build,
            escaped(here.revision.as_deref().unwrap_or("unknown")),
            report.seed,
            report.bootstrap_draws,
            escaped(&report.date),
            report.seconds,
            escaped(&report.command)
        );
    }
    html
}
