//! Every layer and kv head: how many times a figure is what Gaussian rows of that number score.

use std::fmt::Write;

use super::{Audit, Finding, NAMES};
use crate::attention::Stream;
use crate::report::html::escaped;

const WIDTH: f64 = 1100.0;
const LEFT: f64 = 120.0;
const ROW: f64 = 26.0;
/// Cells narrower than this show their value only on hover.
const WRITTEN: f64 = 40.0;
/// At so many times a Gaussian's value a cell has its full colour.
const FULL: f64 = 100.0;

/// Both halves of the cache, for one figure.
pub fn draw(audit: &Audit, figure: usize) -> String {
    let layers = audit.findings.iter().map(|f| f.layer + 1).max().unwrap_or(0);
    let heads = audit.findings.iter().map(|f| f.heads.len()).max().unwrap_or(0);
    let cell = ((WIDTH - LEFT) / layers.max(1) as f64).min(158.0);
    let height = 46.0 + ROW * (2 * heads) as f64;
    let mut svg = format!("<svg class=\"wide\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{0} by layer and head\"><text x=\"0\" y=\"14\" font-weight=\"600\">{0}, times a Gaussian's</text>", escaped(NAMES[figure]));
    for layer in (0..layers).step_by((layers / 24).max(1)) {
        let _ = write!(svg, "<text class=\"soft\" x=\"{:.1}\" y=\"36\" text-anchor=\"middle\">{layer}</text>", LEFT + cell * (layer as f64 + 0.5));
    }
    let _ = write!(svg, "<text class=\"faint\" x=\"{}\" y=\"36\" text-anchor=\"end\">layer</text>", LEFT - 10.0);
    for (half, stream) in Stream::ALL.into_iter().enumerate() {
        for head in 0..heads {
            let y = 44.0 + ROW * (half * heads + head) as f64;
            let name = if stream == Stream::K { "keys" } else { "values" };
            let _ = write!(svg, "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{name}, head {head}</text>", LEFT - 10.0, y + 16.0);
            for f in audit.findings.iter().filter(|f| f.stream == stream.name() && head < f.heads.len()) {
                put(&mut svg, audit, (f, head, figure), (LEFT + cell * f.layer as f64, y), cell);
            }
        }
    }
    svg + "</svg>"
}

fn put(svg: &mut String, audit: &Audit, (f, head, figure): (&Finding, usize, usize), (x, y): (f64, f64), cell: f64) {
    let (value, null) = (f.heads[head].values()[figure], audit.gaussian_head[figure]);
    let times = value / null.mean;
    let inside = (null.low..=null.high).contains(&value);
    let opacity = if inside { 0.0 } else { 0.08 + 0.87 * (times.ln().abs() / FULL.ln()).min(1.0) };
    let text = match times {
        _ if inside => "as one".into(),
        t if t < 10.0 => format!("{t:.1}\u{d7}"),
        t => format!("{t:.0}\u{d7}"),
    };
    let _ = write!(
        svg,
        "<rect class=\"cell\" x=\"{:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{}\" rx=\"3\" fill-opacity=\"{opacity:.2}\"><title>{} layer {} head {head}: {value:.3e}, Gaussian rows {:.3e} to {:.3e}</title></rect>",
        x + 1.0,
        cell - 2.0,
        ROW - 2.0,
        f.stream,
        f.layer,
        null.low,
        null.high
    );
    if cell >= WRITTEN {
        let class = if opacity > 0.45 { "on" } else { "soft" };
        let _ = write!(svg, "<text class=\"{class}\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\" font-size=\"11.5\">{text}</text>", x + cell / 2.0, y + 16.0);
    }
}
