//! Divergence along the passage: a codec whose error grows with context shows here first.

use std::fmt::Write;

use super::axes::axes;
use super::entry::{Entry, spread};
use super::scale::{Scale, escaped};

const WIDTH: f64 = 1100.0;
const HEIGHT: f64 = 340.0;
const RIGHT: f64 = 940.0;

pub fn draw(entries: &[&Entry]) -> String {
    let buckets = || entries.iter().flat_map(|e| &e.row.by_position);
    let first = buckets().map(|b| b.from).min().unwrap_or(0) as f64;
    let last = buckets().map(|b| b.to).max().unwrap_or(1) as f64;
    let x = Scale::linear(first, last, [58.0, RIGHT]);
    let y = Scale::decades(buckets().map(|b| b.kl_mean), [HEIGHT - 44.0, 14.0]);
    let mut svg = format!("<svg class=\"wide\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"mean KL divergence by position in the passage\">");
    axes(&mut svg, &x, &y, (9, 6), HEIGHT, "position in the passage");
    let shown: Vec<&&Entry> = entries.iter().filter(|e| e.row.by_position.iter().any(|b| b.kl_mean > 0.0)).collect();
    let ends = shown.iter().map(|e| y.at(e.row.by_position.last().map_or(0.0, |b| b.kl_mean)) + 4.0);
    let ends: Vec<f64> = ends.collect();
    let places = spread(&ends, 16.0, HEIGHT - 44.0);
    for (entry, label) in shown.iter().zip(places) {
        let points: Vec<String> = entry.row.by_position.iter().map(|b| format!("{:.1} {:.1}", x.at((b.from + b.to) as f64 / 2.0), y.at(b.kl_mean))).collect();
        let dots: String = points.iter().filter_map(|p| p.split_once(' ')).map(|(cx, cy)| format!("<circle class=\"full\" cx=\"{cx}\" cy=\"{cy}\" r=\"2.6\"/>")).collect();
        let _ = write!(svg, "<g class=\"{}\"><path class=\"line stroke\" d=\"M{}\"/>{dots}<text class=\"own\" x=\"{}\" y=\"{label:.1}\">{}</text></g>", entry.colour, points.join(" L"), RIGHT + 10.0, escaped(&entry.label));
    }
    svg + "</svg>"
}
