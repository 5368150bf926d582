//! The experiment as markdown.

use std::fmt::Write;

use super::{CellRow, Found, Loss, Parts};

pub fn table(found: &Found) -> String {
    let corpus = &found.corpus;
    let [from, to] = corpus.score;
    let mut text = format!("{}: {} passages, tokens 0..{from} coded, {from}..{to} scored, base ppl {:.4}\n\n", found.model.name, corpus.passages, found.ppl_base);
    for reason in &found.invalid {
        let _ = writeln!(text, "**INVALID:** {reason}\n");
    }
    text += "| cell | bits/el | vs bf16 | coded layers alone | snapshot: ppl | KL | top-1 | in-forward: ppl | KL | top-1 | of it the codec's | attention's over codes | the kernel's | codec |\n\
             |---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|---|\n";
    for cell in &found.cells {
        let alone = cell.bits_of_coded.map_or("-".into(), |bits| format!("{:.2} x", 16.0 / bits));
        let _ = writeln!(text, "| {} | {:.2} | {:.2} x | {alone} | {} | {} | {} | `{}` |", name(cell), cell.bits, cell.compression_vs_bf16, cells(&cell.snapshot), cells(&cell.in_forward), parts(&cell.parts, cell.in_forward.kl), cell.codec);
    }
    text += "\n`snapshot` codes a cache that was filled exactly; `in-forward` codes while the model runs. ppl is the mean change over passages,\n\
             KL with half its 95 % interval (Student t over passages). bits/el and vs bf16 count the layers and halves that a cell leaves raw.\n\n\
             The last three columns take the in-forward KL apart. The codec's: decoded rows under exact attention. Attention's over codes: what\n\
             the arithmetic adds that the scalar reference defines. The kernel's: the fused kernel on the GPU minus that reference, both within the same forward pass\n\
             over the first tokens of the same passages.\n\
             `exact`: `pca_*` rows and all of `snapshot` are round trips of rows under exact attention, with no kernel in them.\n";
    text
}

/// The switch of a cell of the recipe; what else is there, by its name too.
fn name(cell: &CellRow) -> String {
    match cell.codec.starts_with("pca_") && !cell.codec.starts_with("pca_static") {
        true => cell.what.into(),
        false => format!("{}: `{}`", cell.what, cell.codec),
    }
}

fn parts(parts: &Parts, kl: f64) -> String {
    let Parts::Apart(apart) = parts else {
        return (if matches!(parts, Parts::CodecAlone) { "100.0 % | exact | none" } else { "not taken apart | | " }).into();
    };
    let share = |part: f64| 100.0 * part / kl;
    let kernel = match &apart.kernel {
        Some(kernel) if kernel.equal => "0, every digit of every passage".into(),
        Some(kernel) => format!("{:+.1e}", kernel.difference),
        None => "no GPU here".to_string(),
    };
    format!("{:.1} % | {:+.1} % | {kernel}", share(apart.codec_kl), share(apart.attention_kl))
}

fn cells(loss: &Loss) -> String {
    let half = 0.5 * (loss.kl_ci95[1] - loss.kl_ci95[0]);
    let half = if half.is_finite() { format!(" ± {half:.1e}") } else { String::new() };
    format!("{:+.2} % | {:.2e}{half} | {:.1} %", 100.0 * loss.ppl_change, loss.kl, 100.0 * loss.top1)
}
