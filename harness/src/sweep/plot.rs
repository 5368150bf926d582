//! Bits against error for one half of the cache, with what must be reached.

use std::fmt::Write;

use super::Sweep;
use crate::report::html::{Scale, axes, beside, escaped};

const WIDTH: f64 = 540.0;
const HEIGHT: f64 = 340.0;

pub fn plot(sweep: &Sweep, stream: &str) -> String {
    let points: Vec<_> = sweep.points.iter().filter(|p| p.stream == stream).collect();
    let x = Scale::linear(0.0, points.iter().map(|p| p.bits).fold(4.0, f64::max) * 1.06, [52.0, WIDTH - 14.0]);
    let y = Scale::decades(points.iter().map(|p| p.rel_mse), [HEIGHT - 44.0, 14.0]);
    let mut svg = format!("<svg class=\"chart\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"relative squared error against stored bits\">");
    axes(&mut svg, &x, &y, (8, 6), HEIGHT, "stored bits per element, scales included");
    let named: Vec<(f64, f64, &str)> = points.iter().map(|p| (x.at(p.bits), y.at(p.rel_mse), p.codec.as_str())).collect();
    let labels = beside(&named, [54.0, WIDTH - 4.0], [8.0, HEIGHT - 46.0]);
    for (point, label) in points.into_iter().zip(labels) {
        let (cx, cy) = (x.at(point.bits), y.at(point.rel_mse));
        let baseline = point.codec == sweep.baseline;
        if baseline {
            let _ = write!(svg, "<line class=\"limit\" x1=\"52\" x2=\"{0}\" y1=\"{cy:.1}\" y2=\"{cy:.1}\"/>", WIDTH - 14.0);
        }
        let colour = if baseline { "c1" } else { "c0" };
        let _ = write!(
            svg,
            "<g class=\"{colour}\">{}<circle class=\"dot full\" cx=\"{cx:.1}\" cy=\"{cy:.1}\" r=\"4.5\"/><text class=\"own\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"{}\">{}</text></g>",
            label.tie(cx, cy),
            label.x,
            label.y,
            label.anchor,
            escaped(&point.codec)
        );
    }
    svg + "</svg>"
}
