//! The sweep as markdown.

use std::fmt::Write;

use super::Sweep;
use super::threshold::Choice;

pub fn table(sweep: &Sweep) -> String {
    let corpus = &sweep.corpus;
    let mut text = format!(
        "{}: {} passages of {} tokens; baseline {}\n\n{}\n\n\
         | codec | half | bits | rel-MSE +- 95 % | over baseline | centred | cosine | worst layer |\n|---|---|--:|--:|--:|--:|--:|--:|\n",
        sweep.model.name, corpus.passages, corpus.ctx, sweep.baseline, sweep.definition
    );
    for stream in ["k", "v"] {
        let points = || sweep.points.iter().filter(|p| p.stream == stream);
        let base = points().find(|p| p.codec == sweep.baseline).map_or(f64::NAN, |p| p.rel_mse);
        for p in points() {
            let worst = p.by_layer.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
            let _ = writeln!(
                text,
                "| {} | {} | {:.3} | {:.3e} +- {:.1e} | {:.3} | {:.3e} | {:.6} | {} |",
                p.codec,
                p.stream,
                p.bits,
                p.rel_mse,
                p.rel_mse_halfwidth,
                p.rel_mse / base,
                p.rel_mse_centred,
                p.cosine,
                worst.map_or("-".into(), |(layer, error)| format!("{layer} ({error:.1e})"))
            );
        }
    }
    let _ =
        writeln!(text, "\nThe fewest bits whose error is within a multiple of {}'s, and so the most that can be saved:\n\n| half | threshold | by the means | interval included | paired per passage |\n|---|---|---|---|---|", sweep.baseline);
    let shown = |choice: &Option<Choice>| match choice {
        Some(c) => {
            format!("{}: {:.3} bits, {:.2} x bf16, error x {:.3}", c.codec, c.bits, c.compression_vs_bf16, c.ratio)
        }
        None => "none".into(),
    };
    for a in &sweep.answers {
        let _ = writeln!(text, "| {} | {} (x {:.2}) | {} | {} | {} |", a.stream, a.threshold, a.times, shown(&a.point), shown(&a.ci_safe), shown(&a.paired));
    }
    let _ = writeln!(text, "\n`{}`, {}, {:.0} s", sweep.command, sweep.date, sweep.seconds);
    text
}
