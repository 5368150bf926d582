//! The audit drawn: every figure layer by layer, and the least Gaussian channels, each beside what Gaussian rows of the same
//! number and width give.

use std::fmt::Write;

use super::channel::{BINS, STEP, left};
use super::{Audit, Finding, GATES, NAMES};
use crate::attention::Stream;
use crate::report::html::{Scale, escaped, grid};

const WIDTH: f64 = 1100.0;
const PANEL: f64 = WIDTH / NAMES.len() as f64;
const HEIGHT: f64 = 300.0;
/// Colours of keys and of values.
const COLOURS: [&str; 2] = ["c0", "c1"];

/// One panel a figure.
pub fn figures(audit: &Audit) -> String {
    let mut svg = format!("<svg class=\"wide\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"five figures of keys and values by layer, beside Gaussian rows\">{}", legend());
    (0..NAMES.len()).for_each(|figure| panel(&mut svg, audit, figure));
    svg + "</svg>"
}

fn legend() -> String {
    let mut svg = String::new();
    for (x, colour, name) in [(8.0, COLOURS[0], "keys, after RoPE"), (140.0, COLOURS[1], "values")] {
        let _ = write!(svg, "<g class=\"{colour}\"><circle class=\"dot full\" cx=\"{x}\" cy=\"11\" r=\"4\"/></g><text x=\"{}\" y=\"15\">{name}</text>", x + 11.0);
    }
    svg + "<rect class=\"null\" x=\"214\" y=\"5\" width=\"22\" height=\"12\" rx=\"3\"/><text x=\"244\" y=\"15\">95 % of draws of Gaussian rows</text>\
           <line class=\"limit\" x1=\"464\" x2=\"488\" y1=\"11\" y2=\"11\"/><text x=\"496\" y=\"15\">published gate: fires above</text>"
}

fn panel(svg: &mut String, audit: &Audit, figure: usize) {
    let (null, from) = (audit.gaussian[figure], PANEL * figure as f64);
    let values = audit.findings.iter().map(|f| f.figures.values()[figure]);
    let y = Scale::decades(values.chain([null.low, null.high]).chain(GATES[figure]), [HEIGHT - 46.0, 60.0]);
    let last = audit.findings.iter().map(|f| f.layer).max().unwrap_or(0);
    let x = Scale::linear(0.0, last.max(1) as f64, [from + 46.0, from + PANEL - 16.0]);
    let _ = write!(svg, "<text x=\"{:.1}\" y=\"46\" font-weight=\"600\">{}</text>", from + 8.0, escaped(NAMES[figure]));
    let (low, high) = (y.at(null.high), y.at(null.low));
    let _ = write!(
        svg,
        "<rect class=\"null\" x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\" rx=\"2\"><title>Gaussian rows: {:.3e} to {:.3e}</title></rect>",
        x.place[0] - 6.0,
        low - 2.0,
        x.place[1] - x.place[0] + 12.0,
        high - low + 4.0,
        null.low,
        null.high
    );
    grid(svg, [x.place[0] - 6.0, x.place[1] + 6.0], 5.0, &y, y.ticks(5));
    if let Some(gate) = GATES[figure] {
        let at = y.at(gate);
        let _ = write!(svg, "<line class=\"limit\" x1=\"{:.1}\" x2=\"{:.1}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>", x.place[0] - 6.0, x.place[1] + 6.0);
    }
    for (stream, colour) in Stream::ALL.into_iter().zip(COLOURS) {
        curve(svg, audit.findings.iter().filter(|f| f.stream == stream.name()), figure, (&x, &y), colour);
    }
    for layer in (0..=last).step_by((last / 6).max(1)) {
        let _ = write!(svg, "<text class=\"soft\" x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{layer}</text>", x.at(layer as f64), HEIGHT - 26.0);
    }
    let _ = write!(svg, "<text class=\"faint\" x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">layer</text>", 0.5 * (x.place[0] + x.place[1]), HEIGHT - 8.0);
}

fn curve<'a>(svg: &mut String, findings: impl Iterator<Item = &'a Finding>, figure: usize, (x, y): (&Scale, &Scale), colour: &str) {
    let points: Vec<(f64, f64, &Finding)> = findings.map(|f| (x.at(f.layer as f64), y.at(f.figures.values()[figure]), f)).collect();
    let line: Vec<String> = points.iter().map(|(x, y, _)| format!("{x:.1},{y:.1}")).collect();
    let _ = write!(svg, "<g class=\"{colour}\"><polyline class=\"stroke line\" stroke-opacity=\".45\" points=\"{}\"/>", line.join(" "));
    for (x, y, f) in points {
        let _ = write!(svg, "<circle class=\"dot full\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\"><title>{} layer {}: {:.3e}</title></circle>", f.stream, f.layer, f.figures.values()[figure]);
    }
    svg.push_str("</g>");
}

/// The layer of one half of the cache with the least Gaussian channel of all.
pub fn worst(audit: &Audit, stream: Stream) -> Option<&Finding> {
    let excess = |f: &&Finding| f.channels[0].excess.abs();
    audit.findings.iter().filter(|f| f.stream == stream.name()).max_by(|a, b| excess(a).total_cmp(&excess(b)))
}

/// How often that channel falls where, and the least Gaussian one once the rows are rotated.
pub fn channel(audit: &Audit, finding: &Finding) -> String {
    let (width, height) = (540.0, 340.0);
    let x = Scale::linear(left(0), left(BINS), [52.0, width - 14.0]);
    let least = 0.7 / audit.rows as f64;
    let y = Scale { from: least, to: 1.0, place: [height - 44.0, 34.0], log: true };
    let mut svg = format!("<svg class=\"chart\" viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"how often a channel falls where, beside a Gaussian\">");
    let decades = (-6..=0).map(|e| 10_f64.powi(e)).filter(|v| *v > least);
    grid(&mut svg, x.place, 8.0, &y, decades);
    // the interval of each bin; where it reaches down to no row at all it begins at the foot
    for (bin, null) in audit.gaussian_channel.iter().enumerate().filter(|(_, null)| null.high > 0.0) {
        let (top, foot) = (y.at(null.high), y.at(null.low.max(least)));
        let _ = write!(svg, "<rect class=\"null\" x=\"{:.1}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{:.1}\"/>", x.at(left(bin)), x.at(left(bin + 1)) - x.at(left(bin)), (foot - top).max(3.0));
    }
    for (of, colour) in finding.channels.iter().zip(["c0", "c2"]) {
        let mut line = String::new();
        for (bin, share) in of.shares.iter().enumerate() {
            let at = y.at(share.max(least));
            let _ = write!(line, "{:.1},{at:.1} {:.1},{at:.1} ", x.at(left(bin)), x.at(left(bin + 1)));
        }
        let _ = write!(svg, "<g class=\"{colour}\"><polyline class=\"stroke line\" points=\"{}\"/></g>", line.trim_end());
    }
    for (index, (of, colour)) in finding.channels.iter().zip(["c0", "c2"]).enumerate() {
        let name = ["as it is", "after the rotation"][index];
        let at = 60.0 + 240.0 * index as f64;
        let _ = write!(
            svg,
            "<g class=\"{colour}\"><line class=\"stroke\" stroke-width=\"2\" x1=\"{at}\" x2=\"{}\" y1=\"14\" y2=\"14\"/></g><text x=\"{}\" y=\"18\">{name}: {}, excess {}</text>",
            at + 20.0,
            at + 27.0,
            of.coordinate,
            format!("{:.1}", of.excess).replace('-', "\u{2212}")
        );
    }
    for tick in (-6..=6).step_by(2) {
        let _ = write!(svg, "<text class=\"soft\" x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>", x.at(f64::from(tick)), height - 26.0, tick.to_string().replace('-', "\u{2212}"));
    }
    let _ = write!(
        svg,
        "<line class=\"axis\" x1=\"52\" x2=\"{}\" y1=\"{1}\" y2=\"{1}\"/><text class=\"soft\" x=\"{2}\" y=\"{3}\" text-anchor=\"middle\">standard deviations from its mean; share of the rows in bins of {STEP}</text></svg>",
        width - 14.0,
        height - 44.0,
        0.5 * (52.0 + width - 14.0),
        height - 6.0
    );
    svg
}
