//! Bits against error for one half of the cache, with what must be reached.

use std::fmt::Write;

use super::Sweep;
use crate::report::html::{Scale, axes, escaped, spread};

const WIDTH: f64 = 540.0;
const HEIGHT: f64 = 340.0;

pub fn plot(sweep: &Sweep, stream: &str) -> String {
    let points: Vec<_> = sweep.points.iter().filter(|p| p.stream == stream).collect();
    let x = Scale::linear(0.0, points.iter().map(|p| p.bits).fold(4.0, f64::max) * 1.06, [52.0, WIDTH - 14.0]);
    let y = Scale::decades(points.iter().map(|p| p.rel_mse), [HEIGHT - 44.0, 14.0]);
    let mut svg = format!(
        "<svg class=\"chart\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"relative squared error against stored bits\">"
    );
    axes(&mut svg, &x, &y, (8, 6), HEIGHT, "stored bits per element, scales included");
    let wishes: Vec<f64> =
        points.iter().map(|p| y.at(p.rel_mse) + if p.codec == sweep.baseline { -8.0 } else { 4.0 }).collect();
    let columns: Vec<f64> = points.iter().map(|p| x.at(p.bits)).collect();
    let labels = spread(&columns, &wishes, 15.0, HEIGHT - 50.0);
    for (point, label) in points.into_iter().zip(labels) {
        let (cx, cy) = (x.at(point.bits), y.at(point.rel_mse));
        let baseline = point.codec == sweep.baseline;
        if baseline {
            let _ =
                write!(svg, "<line class=\"limit\" x1=\"52\" x2=\"{0}\" y1=\"{cy:.1}\" y2=\"{cy:.1}\"/>", WIDTH - 14.0);
        }
        let (text_x, anchor) = if cx < WIDTH * 0.72 { (cx + 9.0, "start") } else { (cx - 9.0, "end") };
        let colour = if baseline { "c1" } else { "c0" };
        let _ = write!(
            svg,
            "<g class=\"{colour}\"><circle class=\"dot full\" cx=\"{cx:.1}\" cy=\"{cy:.1}\" r=\"4.5\"/><text class=\"own\" x=\"{text_x:.1}\" y=\"{label:.1}\" text-anchor=\"{anchor}\">{}</text></g>",
            escaped(&point.codec)
        );
    }
    svg + "</svg>"
}
