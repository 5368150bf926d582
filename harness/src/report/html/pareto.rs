//! What a bit buys: stored bits against divergence, and the codecs that nothing beats on both.

use std::fmt::Write;

use super::axes::axes;
use super::entry::Entry;
use super::labels::{Label, beside};
use super::scale::{Scale, escaped};

const HEIGHT: f64 = 400.0;
const LOSSLESS: f64 = 1e-3;

pub fn draw(entries: &[&Entry], width: f64) -> String {
    let top_bits = entries.iter().map(|e| e.row.stored_bits_per_element).fold(4.0, f64::max);
    let x = Scale::linear(0.0, top_bits * 1.06, [52.0, width - 14.0]);
    let spans = entries.iter().flat_map(|e| [e.row.kl_mean, e.row.kl_mean_ci95[1]]);
    let y = Scale::decades(spans.chain([LOSSLESS]), [HEIGHT - 44.0, 16.0]);
    let mut svg = format!("<svg class=\"chart\" viewBox=\"0 0 {width} {HEIGHT}\" role=\"img\" aria-label=\"mean KL divergence against stored bits per element\">");
    axes(&mut svg, &x, &y, (8, 7), HEIGHT, "stored bits per element, scales included");
    let lossless = y.at(LOSSLESS);
    let _ = write!(svg, "<line class=\"limit\" x1=\"52\" x2=\"{0}\" y1=\"{lossless:.1}\" y2=\"{lossless:.1}\"/><text class=\"limit-text\" x=\"58\" y=\"{1:.1}\">KL 0.001: what 8 bits usually cost</text>", width - 14.0, lossless - 5.0);
    svg += &front(entries, &x, &y);
    let shown: Vec<&&Entry> = entries.iter().filter(|e| e.row.kl_mean.is_finite()).collect();
    let at = |e: &Entry| (x.at(e.row.stored_bits_per_element), y.at(e.row.kl_mean));
    let points: Vec<(f64, f64, &str)> = shown.iter().map(|e| (at(e).0, at(e).1, e.label.as_str())).collect();
    let labels = beside(&points, [54.0, width - 4.0], [8.0, HEIGHT - 46.0]);
    for (entry, label) in shown.iter().zip(labels) {
        svg += &point(entry, &x, &y, label);
    }
    svg + "</svg>"
}

fn point(entry: &Entry, x: &Scale, y: &Scale, label: Label) -> String {
    let (row, colour) = (entry.row, &entry.colour);
    let (cx, cy) = (x.at(row.stored_bits_per_element), y.at(row.kl_mean));
    let fill = if row.gate.pass == Some(false) { "hollow" } else { "full" };
    let [low, high] = row.kl_mean_ci95;
    let bar = match low.is_finite() {
        true => format!("<line class=\"stroke\" x1=\"{cx:.1}\" x2=\"{cx:.1}\" y1=\"{:.1}\" y2=\"{:.1}\" stroke-opacity=\".5\"/>", y.at(low), y.at(high)),
        false => String::new(),
    };
    format!(
        "<g class=\"{colour}\">{bar}{tie}<circle class=\"dot {fill}\" cx=\"{cx:.1}\" cy=\"{cy:.1}\" r=\"4.5\"><title>{0}: {1:.3} bits, KL {2:.3e}</title></circle><text class=\"own\" x=\"{3:.1}\" y=\"{4:.1}\" text-anchor=\"{5}\">{0}</text></g>",
        escaped(&entry.label),
        row.stored_bits_per_element,
        row.kl_mean,
        label.x,
        label.y,
        label.anchor,
        tie = label.tie(cx, cy)
    )
}

/// Steps through the rows that no other row beats in bits and divergence.
fn front(entries: &[&Entry], x: &Scale, y: &Scale) -> String {
    let mut rows: Vec<(f64, f64)> = entries.iter().map(|e| (e.row.stored_bits_per_element, e.row.kl_mean)).filter(|(_, kl)| kl.is_finite()).collect();
    rows.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
    let (mut best, mut path) = (f64::INFINITY, String::new());
    for (bits, kl) in rows {
        if kl < best {
            let (px, py) = (x.at(bits), y.at(kl));
            let _ = match path.is_empty() {
                true => write!(path, "M{px:.1} {py:.1}"),
                false => write!(path, "H{px:.1} V{py:.1}"),
            };
            best = kl;
        }
    }
    format!("<path class=\"front\" d=\"{path}\"/>")
}
