//! Perplexity ratios with their intervals: Student-t as a bar, bootstrap as ticks.

use std::fmt::Write;

use super::axes::foot;
use super::entry::Entry;
use super::labels::width_of;
use super::scale::{Scale, escaped};

const ROW: f64 = 30.0;
/// Ratios beyond this run off the drawing.
const FAR: f64 = 0.12;

pub fn draw(entries: &[&Entry], width: f64) -> String {
    let left = 20.0 + entries.iter().map(|e| width_of(&e.label)).fold(90.0, f64::max).min(width / 2.0);
    let height = 14.0 + ROW * entries.len() as f64 + 44.0;
    let ends = || entries.iter().flat_map(|e| [e.row.ppl_ratio, e.row.ppl_ratio_ci95[0], e.row.ppl_ratio_ci95[1]]);
    let reach = |sign: f64| ends().map(|ratio| sign * (ratio - 1.0)).filter(|away| *away < FAR).fold(0.002, f64::max);
    let (below, above) = (reach(-1.0), reach(1.0));
    // room beside zero on the side where nothing is
    let (below, above) = (below.max(above / 8.0), above.max(below / 8.0));
    let x = Scale::linear(-108.0 * below, 108.0 * above, [left, width - 84.0]);
    let end = height - 44.0;
    let mut svg = format!("<svg class=\"chart\" viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"change of perplexity with 95 % intervals\">");
    let shown = |tick: f64| if tick > 0.0 { format!("+{tick} %") } else { format!("{tick} %").replace('-', "\u{2212}") };
    foot(&mut svg, &x, 5, end, shown, "change of perplexity against the raw cache");
    for (index, entry) in entries.iter().enumerate() {
        svg += &interval(entry, &x, width, 14.0 + ROW * (index as f64 + 0.5));
    }
    svg + "</svg>"
}

fn interval(entry: &Entry, x: &Scale, width: f64, y: f64) -> String {
    let (row, colour) = (entry.row, &entry.colour);
    let percent = |ratio: f64| 100.0 * (ratio - 1.0);
    let [low, high] = row.ppl_ratio_ci95.map(percent);
    let mut svg = format!("<g class=\"{colour}\"><text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>", x.place[0] - 10.0, y + 4.0, escaped(&entry.label));
    if low.is_finite() {
        let _ = write!(svg, "<line class=\"stroke\" stroke-width=\"5\" stroke-opacity=\".32\" stroke-linecap=\"round\" x1=\"{:.1}\" x2=\"{:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>", x.at(low), x.at(high));
        for end in row.ppl_ratio_boot95.map(percent) {
            let at = x.at(end);
            let _ = write!(svg, "<line class=\"stroke\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{:.1}\" y2=\"{:.1}\"/>", y - 6.0, y + 6.0);
        }
    }
    let fill = if row.gate.pass == Some(false) { "hollow" } else { "full" };
    let change = percent(row.ppl_ratio);
    let shown = if change.abs() < 100.0 { format!("{change:+.2} %") } else { format!("{:.3e} times", row.ppl_ratio) };
    let _ = write!(svg, "<circle class=\"dot {fill}\" cx=\"{:.1}\" cy=\"{y:.1}\" r=\"4.5\"/></g><text class=\"soft\" x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>", x.at(change), width - 6.0, y + 4.0, shown.replace('-', "\u{2212}"));
    svg
}
