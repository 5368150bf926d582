//! The experiment as markdown.

use std::fmt::Write;

use super::{Found, Loss};

pub fn table(found: &Found) -> String {
    let corpus = &found.corpus;
    let [from, to] = corpus.score;
    let mut text = format!(
        "{}: {} passages, tokens 0..{from} coded, {from}..{to} scored, base ppl {:.4}\n\n",
        found.model.name, corpus.passages, found.ppl_base
    );
    for reason in &found.invalid {
        let _ = writeln!(text, "**INVALID:** {reason}\n");
    }
    text += "| cell | codec | bits/el | vs bf16 | coded layers alone | snapshot: ppl | KL | top-1 | in-forward: ppl | KL | top-1 |\n\
             |---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n";
    for cell in &found.cells {
        let alone = cell.bits_of_coded.map_or("-".into(), |bits| format!("{:.2} x", 16.0 / bits));
        let _ = writeln!(
            text,
            "| {} | `{}` | {:.2} | {:.2} x | {alone} | {} | {} |",
            cell.what,
            cell.codec,
            cell.bits,
            cell.compression_vs_bf16,
            cells(&cell.snapshot),
            cells(&cell.in_forward)
        );
    }
    text += "\n`snapshot` codes a cache that was filled exactly; `in-forward` codes while the model runs. ppl is the mean change over passages,\n\
             KL with half its 95 % interval (Student t over passages). `pca_*` rows and all of `snapshot` are round trips of rows under exact\n\
             attention: no kernel is in them.\n\n";
    text += "| fused codec | KL of the codec: decoded rows, exact attention | + arithmetic of attention over codes | scalar reference, same forward | fused kernel on the GPU minus it |\n\
             |---|--:|--:|--:|--:|\n";
    for share in &found.shares {
        let (reference, kernel) = match &share.kernel {
            Some(kernel) if kernel.equal => (format!("{:.6e}", kernel.reference_kl), "0, every digit of every passage equal".into()),
            Some(kernel) => (format!("{:.6e}", kernel.reference_kl), format!("{:+.1e}", kernel.difference)),
            None => ("-".into(), "no GPU here".to_string()),
        };
        let _ = writeln!(
            text,
            "| `{}` | {:.3e} | {:+.1e} ({:+.1} %) | {reference} | {kernel} |",
            share.codec,
            share.codec_kl,
            share.attention_kl,
            100.0 * share.attention_kl / share.codec_kl
        );
    }
    text
}

fn cells(loss: &Loss) -> String {
    let half = 0.5 * (loss.kl_ci95[1] - loss.kl_ci95[0]);
    let half = if half.is_finite() { format!(" ± {half:.1e}") } else { String::new() };
    format!("{:+.2} % | {:.2e}{half} | {:.1} %", 100.0 * loss.ppl_change, loss.kl, 100.0 * loss.top1)
}
