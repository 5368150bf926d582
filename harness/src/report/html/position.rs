//! Divergence along the passage: a codec whose error grows with context shows here first.

use std::fmt::Write;

use super::entry::{Entry, spread};
use super::scale::{Scale, escaped, power};

const WIDTH: f64 = 1100.0;
const HEIGHT: f64 = 340.0;
const RIGHT: f64 = 940.0;

pub fn draw(entries: &[&Entry]) -> String {
    let buckets = || entries.iter().flat_map(|e| &e.row.by_position);
    let first = buckets().map(|b| b.from).min().unwrap_or(0) as f64;
    let last = buckets().map(|b| b.to).max().unwrap_or(1) as f64;
    let x = Scale::linear(first, last, [58.0, RIGHT]);
    let y = Scale::decades(buckets().map(|b| b.kl_mean), [HEIGHT - 44.0, 14.0]);
    let mut svg = format!(
        "<svg class=\"wide\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"mean KL divergence by position in the passage\">"
    );
    for tick in y.ticks(6) {
        let at = y.at(tick);
        let _ = write!(
            svg,
            "<line class=\"grid\" x1=\"58\" x2=\"{RIGHT}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/><text class=\"soft\" x=\"50\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            at + 4.0,
            power(tick)
        );
    }
    for tick in x.ticks(9) {
        let _ = write!(
            svg,
            "<text class=\"soft\" x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{tick}</text>",
            x.at(tick),
            HEIGHT - 26.0
        );
    }
    let _ = write!(
        svg,
        "<line class=\"axis\" x1=\"58\" x2=\"{RIGHT}\" y1=\"{0}\" y2=\"{0}\"/><text class=\"soft\" x=\"{1}\" y=\"{2}\" text-anchor=\"middle\">position in the passage</text>",
        HEIGHT - 44.0,
        (58.0 + RIGHT) / 2.0,
        HEIGHT - 6.0
    );
    let shown: Vec<&&Entry> = entries.iter().filter(|e| e.row.by_position.iter().any(|b| b.kl_mean > 0.0)).collect();
    let ends = shown.iter().map(|e| y.at(e.row.by_position.last().map_or(0.0, |b| b.kl_mean)) + 4.0);
    let ends: Vec<f64> = ends.collect();
    let places = spread(&vec![0.0; ends.len()], &ends, 16.0, HEIGHT - 44.0);
    for (entry, label) in shown.iter().zip(places) {
        let points: Vec<String> = entry
            .row
            .by_position
            .iter()
            .map(|b| format!("{:.1} {:.1}", x.at((b.from + b.to) as f64 / 2.0), y.at(b.kl_mean)))
            .collect();
        let dots: String = points
            .iter()
            .filter_map(|p| p.split_once(' '))
            .map(|(cx, cy)| format!("<circle class=\"full\" cx=\"{cx}\" cy=\"{cy}\" r=\"2.6\"/>"))
            .collect();
        let _ = write!(
            svg,
            "<g class=\"{}\"><path class=\"line stroke\" d=\"M{}\"/>{dots}<text class=\"own\" x=\"{}\" y=\"{label:.1}\">{}</text></g>",
            entry.colour,
            points.join(" L"),
            RIGHT + 10.0,
            escaped(&entry.label)
        );
    }
    svg + "</svg>"
}
