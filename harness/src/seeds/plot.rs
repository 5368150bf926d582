//! Bits against divergence of all cells: coded while the model runs, and what remains of it where a cache is coded once.

use std::fmt::Write;

use super::{CellRow, Found};
use crate::report::html::{Scale, axes, beside, escaped};

const WIDTH: f64 = 1100.0;
const HEIGHT: f64 = 520.0;

pub fn plot(found: &Found) -> String {
    let top = found.cells.iter().map(|cell| cell.bits).fold(4.0, f64::max);
    let x = Scale::linear(0.0, top * 1.12, [52.0, WIDTH - 14.0]);
    let both = found.cells.iter().flat_map(|cell| [cell.snapshot.kl, cell.in_forward.kl]);
    let y = Scale::decades(both, [HEIGHT - 44.0, 14.0]);
    let mut svg = format!("<svg class=\"wide\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"mean KL divergence against stored bits per element\">");
    axes(&mut svg, &x, &y, (10, 8), HEIGHT, "stored bits per element, layers and halves that stay raw included");
    let named: Vec<(f64, f64, &str)> = found.cells.iter().map(|cell| (x.at(cell.bits), y.at(cell.in_forward.kl), name(cell))).collect();
    let labels = beside(&named, [54.0, WIDTH - 4.0], [8.0, HEIGHT - 46.0]);
    for ((cell, (cx, cy, text)), label) in found.cells.iter().zip(&named).zip(labels) {
        let colour = match cell.codec.as_str() {
            codec if codec.starts_with("kvfuse") => "c0",
            codec if codec.starts_with("pca_") && !codec.starts_with("pca_static") => "c1",
            _ => "c7",
        };
        let low = y.at(cell.snapshot.kl);
        let _ = write!(
            svg,
            "<g class=\"{colour}\"><line class=\"stroke\" stroke-opacity=\".3\" x1=\"{cx:.1}\" x2=\"{cx:.1}\" y1=\"{cy:.1}\" y2=\"{low:.1}\"/>{tie}\
             <circle class=\"dot hollow\" cx=\"{cx:.1}\" cy=\"{low:.1}\" r=\"3\"/><circle class=\"dot full\" cx=\"{cx:.1}\" cy=\"{cy:.1}\" r=\"4.5\"><title>{0}: {1:.2} bits, KL {2:.2e}, snapshot {3:.2e}</title></circle>\
             <text class=\"own\" x=\"{4:.1}\" y=\"{5:.1}\" text-anchor=\"{6}\">{7}</text></g>",
            escaped(&cell.codec),
            cell.bits,
            cell.in_forward.kl,
            cell.snapshot.kl,
            label.x,
            label.y,
            label.anchor,
            escaped(text),
            tie = label.tie(*cx, *cy)
        );
    }
    svg + "</svg>"
}

/// What a reader looks for: the switch of a pca cell, the name of another codec.
fn name(cell: &CellRow) -> &str {
    if cell.codec.starts_with("pca_") { cell.what } else { &cell.codec }
}
