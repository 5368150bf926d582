//! Bits against error: made-up Gaussian rows beside the least error that any code of that rate can have, and the model's rows.

use std::fmt::Write;

use super::{Finding, REAL};
use crate::report::html::{Scale, axes, beside, escaped};

const WIDTH: f64 = 1100.0;
const HEIGHT: f64 = 460.0;

pub fn plot(found: &[Finding]) -> String {
    let of = |f: &Finding, kind: &str| f.rel_mse.iter().find(|(name, _)| name == kind).and_then(|(_, e)| *e);
    let top = found.iter().map(|f| f.stored_bits_per_element).fold(4.0, f64::max);
    let x = Scale::linear(0.0, 1.12 * top, [52.0, WIDTH - 14.0]);
    let all = found.iter().flat_map(|f| f.rel_mse.iter().filter_map(|(_, e)| *e));
    let y = Scale::decades(all, [HEIGHT - 44.0, 34.0]);
    let mut svg = format!("<svg class=\"wide\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"relative squared error against stored bits\">");
    axes(&mut svg, &x, &y, (10, 8), HEIGHT, "stored bits per element, scales included");
    // 2^-2R, where it is inside the drawing
    let bits = |error: f64| -0.5 * error.log2();
    let (first, last) = (bits(y.to).max(0.0), bits(y.from).min(x.to));
    let _ = write!(svg, "<polyline class=\"front\" points=\"{:.1},{:.1} {:.1},{:.1}\"/>", x.at(first), y.at(2_f64.powf(-2.0 * first)), x.at(last), y.at(2_f64.powf(-2.0 * last)));
    let gaussian = super::FAMILIES[0].name();
    let points: Vec<(f64, f64, &str)> = found.iter().filter_map(|f| Some((x.at(f.stored_bits_per_element), y.at(of(f, gaussian)?), f.codec.as_str()))).collect();
    for f in found {
        for (kind, colour) in REAL.into_iter().zip(["c1", "c2"]) {
            let Some(error) = of(f, kind) else { continue };
            let _ = write!(svg, "<g class=\"{colour}\"><circle class=\"dot hollow\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"3.5\"><title>{}, {kind}: {error:.3e}</title></circle></g>", x.at(f.stored_bits_per_element), y.at(error), escaped(&f.codec));
        }
    }
    let labels = beside(&points, [54.0, WIDTH - 4.0], [30.0, HEIGHT - 46.0]);
    for ((cx, cy, name), label) in points.iter().zip(labels) {
        let _ = write!(
            svg,
            "<g class=\"c0\">{}<circle class=\"dot full\" cx=\"{cx:.1}\" cy=\"{cy:.1}\" r=\"4.5\"/><text class=\"own\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"{}\">{}</text></g>",
            label.tie(*cx, *cy),
            label.x,
            label.y,
            label.anchor,
            escaped(name)
        );
    }
    for (at, colour, fill, name) in [(60.0, "c0", "full", "Gaussian rows"), (190.0, "c1", "hollow", "the model's keys"), (330.0, "c2", "hollow", "the model's values")] {
        let _ = write!(svg, "<g class=\"{colour}\"><circle class=\"dot {fill}\" cx=\"{at}\" cy=\"13\" r=\"4\"/></g><text x=\"{}\" y=\"17\">{name}</text>", at + 11.0);
    }
    svg + "<line class=\"front\" x1=\"480\" x2=\"510\" y1=\"13\" y2=\"13\"/><text x=\"518\" y=\"17\">least error of a Gaussian source at that rate</text></svg>"
}
