//! The differences of every pair, passage by passage, with their mean and its interval.

use std::fmt::Write;

use super::Pair;
use crate::report::html::{Scale, escaped, foot, width_of};

const WIDTH: f64 = 1100.0;
const ROW: f64 = 40.0;

/// One row a pair: left of zero A diverges less.
pub fn plot(pairs: &[Pair]) -> String {
    let name = |p: &Pair| if p.a == p.b { p.a.clone() } else { format!("{} \u{2212} {}", p.a, p.b) };
    let left = 20.0 + pairs.iter().map(|p| width_of(&name(p))).fold(90.0, f64::max).min(WIDTH / 2.0);
    let height = 14.0 + ROW * pairs.len() as f64 + 44.0;
    let ends = || pairs.iter().flat_map(|p| p.kl_differences.iter().chain(&p.kl_difference_ci95)).copied().filter(|v| v.is_finite());
    let reach = |sign: f64| ends().map(|v| sign * v).fold(0.0, f64::max);
    let (below, above) = (reach(-1.0), reach(1.0));
    let least = (below.max(above) / 8.0).max(1e-9);
    let x = Scale::linear(-1.06 * below.max(least), 1.06 * above.max(least), [left, WIDTH - 20.0]);
    let end = height - 44.0;
    let mut svg = format!("<svg class=\"wide\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"differences of KL by passage\">");
    let shown = |tick: f64| if tick == 0.0 { "0".into() } else { format!("{tick:+.1e}").replace('-', "\u{2212}") };
    foot(&mut svg, &x, 8, end, shown, "KL of A minus KL of B, nats; left of 0 A diverges less");
    for (index, p) in pairs.iter().enumerate() {
        let y = 14.0 + ROW * (index as f64 + 0.5);
        let colour = match p.kl_difference_ci95 {
            [_, high] if high < 0.0 => "c2",
            [low, _] if low > 0.0 => "c1",
            _ => "c7",
        };
        let _ = write!(svg, "<g class=\"{colour}\"><text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>", left - 10.0, y + 4.0, escaped(&name(p)));
        for (passage, difference) in p.kl_differences.iter().enumerate() {
            let _ = write!(svg, "<circle class=\"dot full\" fill-opacity=\".35\" stroke-opacity=\"0\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"3.5\"><title>passage {}: {difference:+.3e}</title></circle>", x.at(*difference), y - 7.0, passage + 1);
        }
        if p.kl_difference_ci95[0].is_finite() {
            let [low, high] = p.kl_difference_ci95.map(|v| x.at(v));
            let _ = write!(svg, "<line class=\"stroke\" stroke-width=\"5\" stroke-opacity=\".32\" stroke-linecap=\"round\" x1=\"{low:.1}\" x2=\"{high:.1}\" y1=\"{0:.1}\" y2=\"{0:.1}\"/>", y + 6.0);
        }
        let _ = write!(svg, "<circle class=\"dot full\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"4.5\"/></g>", x.at(p.kl_difference), y + 6.0);
    }
    svg + "</svg>"
}
