//! The audit as markdown: every figure beside its Gaussian null.

use std::fmt::Write;

use super::{Audit, Band, GATES, NAMES};

pub fn table(audit: &Audit) -> String {
    let corpus = &audit.corpus;
    let mut text = format!(
        "{}: {} passages of {} tokens; {} rows of {} drawn for each layer, heads pooled, keys after RoPE\n\n| | {} |\n|---|{}\n",
        audit.model.name,
        corpus.passages,
        corpus.ctx,
        audit.rows,
        audit.d,
        NAMES.join(" | "),
        "--:|".repeat(NAMES.len())
    );
    let gates: Vec<String> = GATES.iter().map(|gate| gate.map_or("-".into(), |limit| format!("> {limit}"))).collect();
    let _ = writeln!(text, "| published gate | {} |", gates.join(" | "));
    let gaussian: Vec<String> = audit.gaussian.iter().map(|b| format!("{} [{}, {}]", shown(b.mean), shown(b.low), shown(b.high))).collect();
    let _ = writeln!(text, "| **Gaussian rows** | {} |", gaussian.join(" | "));
    let fires: Vec<&str> = audit
        .gaussian
        .iter()
        .zip(GATES)
        .map(|(band, gate)| match gate {
            Some(limit) if band.mean > limit => "fires on Gaussian rows",
            Some(_) => "quiet",
            None => "-",
        })
        .collect();
    let _ = writeln!(text, "| that gate, on Gaussian rows | {} |", fires.join(" | "));
    for f in &audit.findings {
        let cells: Vec<String> = f.figures.values().iter().zip(&f.shuffled).zip(&audit.gaussian).map(|((value, shuffled), null)| cell(*value, shuffled, null)).collect();
        let _ = writeln!(text, "| {} layer {} | {} |", f.stream, f.layer, cells.join(" | "));
    }
    let _ = writeln!(
        text,
        "\nA cell is the value, then in brackets its range once every coordinate is shuffled over the rows by itself: what is left of it\n\
         has nothing to do with how coordinates depend on each other (the first two figures do not change). A star marks values outside the band of Gaussian rows of this\n\
         number and width, which is the only fair yardstick here: the fewer the rows, the more every figure grows by itself.\n\
         \"W2/sigma\" is no Wasserstein distance: it divides a two-sided quantile by a one-sided one, so a perfect Gaussian scores\n\
         2.576 / 2.326 - 1 = 0.107 and always fires. \"true W2\" is the real one, of unit rows after the rotation. Nothing is gated on these.\n\n\
         `{}`, {}, {:.0} s",
        audit.command, audit.date, audit.seconds
    );
    text
}

fn cell(value: f64, shuffled: &Band, null: &Band) -> String {
    let star = if value < null.low || value > null.high { "*" } else { "" };
    // figures of single coordinates do not change at all
    if (shuffled.high - shuffled.low).abs() <= 1e-9 * value.abs() {
        return format!("{}{star}", shown(value));
    }
    format!("{}{star} [{}, {}]", shown(value), shown(shuffled.low), shown(shuffled.high))
}

fn shown(value: f64) -> String {
    if value >= 1000.0 { format!("{value:.2e}") } else { format!("{value:.3}") }
}
