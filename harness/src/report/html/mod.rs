//! The report as one page that needs nothing else: style, drawings and numbers are inside it.

mod axes;
mod entry;
mod forest;
mod heat;
mod labels;
mod page;
mod pareto;
mod position;
mod prose;
mod scale;
mod tables;
mod takes;

use std::fmt::Write;

pub use axes::{axes, foot, grid};
use entry::{codecs, entries};
pub use labels::{beside, width_of};
pub use page::page;
pub use prose::{Drawing, prose};
pub use scale::{Scale, escaped};

use super::Report;

/// So many rows fit beside each other in half the width.
const FEW: usize = 8;

/// One run, or several joined; `warnings` are about what must not be compared.
pub fn document(reports: &[Report], warnings: &[String]) -> String {
    let Some(first) = reports.first() else { return page("no runs", "") };
    let entries = entries(reports);
    let codecs = codecs(&entries);
    let title = format!("KV cache codecs on {}", first.model.name);
    let mut body = head(reports, &title);
    for (run, reason) in reports.iter().enumerate().flat_map(|(i, r)| r.invalid.iter().map(move |why| (i + 1, why))) {
        let _ = write!(body, "<section class=\"card wrong\"><h2>Run {run} may not be believed</h2>{}</section>", escaped(reason));
    }
    for warning in warnings {
        let _ = write!(body, "<section class=\"card\">{}.</section>", escaped(warning));
    }
    body += &facts(reports);
    let takes: String = takes::sentences(reports).iter().map(|t| format!("<li>{}</li>", escaped(t))).collect();
    let _ = write!(body, "<section class=\"card\"><h2>In short</h2><ul class=\"takes\">{takes}</ul></section>");
    // many names need the whole width
    let (width, class) = if codecs.len() > FEW { (1100.0, "stack") } else { (540.0, "pair") };
    let _ = write!(
        body,
        "<div class=\"{class}\">{}{}</div>",
        card("Rate and divergence", "Mean KL from the raw model, with its 95 % interval over passages. Along the dotted line nothing is better at fewer bits. Hollow: misses the limits of its class.", &pareto::draw(&codecs, width)),
        card("Perplexity, paired", "Bar: Student t over passages. Ticks: bootstrap over passages. An interval that contains 0 proves no harm and no innocence: read it with KL.", &forest::draw(&codecs, width))
    );
    body += &card("All rows", "<code>identity</code> must change nothing, <code>self</code> is the noise floor, <code>CONTROL</code> is broken on purpose and must look bad.", &tables::results(&entries));
    body += &card("Divergence by position", "Mean KL in eighths of the scored range. Lines that rise warn of longer contexts.", &position::draw(&codecs));
    let rows = tables::rows(reports);
    let mut maps = match rows.is_empty() {
        true => vec![heat::draw(&codecs, "keys, relative squared error", |l| l.rel_mse_k), heat::draw(&codecs, "values, relative squared error", |l| l.rel_mse_v)],
        false => vec![heat::draw(&codecs, "rows, relative squared error", |l| l.rel_mse_k)],
    };
    maps.push(heat::draw(&codecs, "attention output, relative squared error", |l| l.attention_nmse));
    if !rows.is_empty() {
        body += &card(
            "Rows of the cache",
            "A row is key and value of all heads: numbers without a position, and numbers that RoPE turned. Share of sinks: of attention, over scored queries and heads. Kept by both: groups that the indexer keeps here and in the base model, over those kept by either.",
            &rows,
        );
    }
    body += &card(
        "Where the error arises",
        "Darker is worse, by powers of ten. The attention's output is compared with exact attention over the raw rows of the same layer, so earlier layers do not count.",
        &maps.join("<div style=\"height:18px\"></div>"),
    );
    body += &card("Distributions", "KL over all scored positions, and the change of the true token's probability in points; <code>se</code> is of the mean ln ratio, over passages.", &tables::distributions(&entries));
    body += &card("Proof of use", "Bytes of codes that were written and read. Kernels count in twins of their own, through which every store and every attention runs once more; both must leave the same bytes.", &tables::proofs(&entries));
    body += &card("Where the numbers come from", "Two runs with the same command and seed give the same numbers.", &tables::provenance(reports));
    page(&title, &body)
}

fn head(reports: &[Report], title: &str) -> String {
    let valid = reports.iter().all(|r| r.valid);
    let (class, word) = if valid { ("pass", "valid") } else { ("fail", "INVALID") };
    let what: Vec<String> = reports
        .iter()
        .enumerate()
        .map(|(run, report)| {
            let number = if reports.len() > 1 { format!("Run {}: ", run + 1) } else { String::new() };
            format!(
                "<p>{number}read path <strong>{}</strong>: {}. {} passages of {} tokens, positions {} to {} scored; {}.</p>",
                escaped(&report.read_path),
                escaped(&report.read_path_meaning),
                report.corpus.passages,
                report.corpus.ctx,
                report.corpus.score[0],
                report.corpus.score[1],
                escaped(&report.backend)
            )
        })
        .collect();
    format!("<header><h1>{}<span class=\"pill {class}\">{word}</span></h1>{}</header>", escaped(title), what.concat())
}

fn facts(reports: &[Report]) -> String {
    let first = &reports[0];
    let scored: usize = first.rows.first().map_or(0, |r| r.positions);
    let noise = first.rows.iter().find(|r| r.codec == "self").map_or(f64::NAN, |r| r.kl_mean);
    let detectable = first.rows.iter().filter(|r| !["identity", "self"].contains(&r.codec.as_str()) && !r.codec.starts_with("CONTROL_")).map(|r| r.ppl_ratio_detectable).fold(f64::NAN, f64::max);
    let found = match detectable.is_nan() {
        true => "\u{2013} <small>one passage</small>".to_string(),
        false => format!("{:.2} % <small>worst row</small>", 100.0 * (detectable - 1.0)),
    };
    let items = [
        ("perplexity, raw cache", format!("{:.3}", first.ppl_base)),
        ("scored positions", scored.to_string()),
        ("model", format!("{} layers <small>{} / {} heads of {}</small>", first.model.layers, first.model.heads, first.model.kv_heads, first.model.head_dim)),
        ("noise floor, KL", tables::small(noise)),
        ("smallest change found 4 times in 5", found),
        ("took", format!("{:.0} s", reports.iter().map(|r| r.seconds).sum::<f64>())),
    ];
    let items: String = items.iter().map(|(what, is)| format!("<div><dt>{what}</dt><dd>{is}</dd></div>")).collect();
    format!("<dl class=\"facts\">{items}</dl>")
}

/// `text` and `inside` are html.
fn card(title: &str, text: &str, inside: &str) -> String {
    format!("<section class=\"card\"><h2>{title}</h2><p>{text}</p><div class=\"scroll\">{inside}</div></section>")
}
