//! Where in the model the error arises: one map for keys, one for values, one for the attention's output.

use std::fmt::Write;

use super::entry::Entry;
use super::scale::escaped;
use crate::ppl::LayerRow;

const WIDTH: f64 = 1100.0;
const LEFT: f64 = 150.0;
const ROW: f64 = 26.0;
/// Cells narrower than this show their value only on hover.
const WRITTEN: f64 = 46.0;

/// One map; darker is worse, by powers of ten over all cells.
pub fn draw(entries: &[&Entry], what: &str, value: fn(&LayerRow) -> f64) -> String {
    let layers = entries.iter().map(|e| e.row.layers.len()).max().unwrap_or(0);
    let shown: Vec<&&Entry> = entries.iter().filter(|e| e.row.layers.iter().any(|l| value(l) > 0.0)).collect();
    if layers == 0 || shown.is_empty() {
        return String::new();
    }
    let logs = shown.iter().flat_map(|e| e.row.layers.iter().map(value)).filter(|v| *v > 0.0).map(f64::log10);
    let (low, high) = logs.fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), v| (a.min(v), b.max(v)));
    let cell = ((WIDTH - LEFT) / layers as f64).min(158.0);
    let height = 44.0 + ROW * shown.len() as f64;
    let mut svg = format!("<svg class=\"wide\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{0} by layer\"><text x=\"0\" y=\"14\" font-weight=\"600\">{0}</text>", escaped(what));
    for layer in (0..layers).step_by((layers / 24).max(1)) {
        let _ = write!(svg, "<text class=\"soft\" x=\"{:.1}\" y=\"34\" text-anchor=\"middle\">{layer}</text>", LEFT + cell * (layer as f64 + 0.5));
    }
    let _ = write!(svg, "<text class=\"faint\" x=\"{}\" y=\"34\" text-anchor=\"end\">layer</text>", LEFT - 10.0);
    for (index, entry) in shown.iter().enumerate() {
        let y = 42.0 + ROW * index as f64;
        let _ = write!(svg, "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>", LEFT - 10.0, y + 17.0, escaped(&entry.label));
        for layer in &entry.row.layers {
            let value = value(layer);
            let x = LEFT + cell * layer.layer as f64;
            let share = if value > 0.0 { (value.log10() - low) / (high - low).max(0.3) } else { 0.0 };
            let opacity = if value > 0.0 { 0.10 + 0.85 * share } else { 0.0 };
            let text = if value > 0.0 { format!("{value:.1e}") } else { "raw".into() };
            let _ = write!(
                svg,
                "<rect class=\"cell\" x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{}\" rx=\"3\" fill-opacity=\"{opacity:.2}\"><title>{}, layer {}: {text}</title></rect>",
                x + 1.0,
                y,
                cell - 2.0,
                ROW - 2.0,
                escaped(&entry.label),
                layer.layer
            );
            if cell >= WRITTEN {
                let class = if opacity > 0.45 { "on" } else { "soft" };
                let _ = write!(svg, "<text class=\"{class}\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\" font-size=\"11.5\">{text}</text>", x + cell / 2.0, y + 16.0);
            }
        }
    }
    svg + "</svg>"
}
