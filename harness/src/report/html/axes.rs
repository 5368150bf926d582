//! The frame of a drawing with decades upwards: grid, marks and the line below.

use std::fmt::Write;

use super::scale::{Scale, power};

/// Grid and marks of `y` (about `marks.1` of them), marks of `x` (about `marks.0`), and what `x` says below, for a
/// drawing `height` high whose axis lies 44 above its foot.
pub fn axes(svg: &mut String, x: &Scale, y: &Scale, marks: (usize, usize), height: f64, below: &str) {
    let [left, right] = x.place;
    for tick in y.ticks(marks.1) {
        let at = y.at(tick);
        let _ = write!(
            svg,
            "<line class=\"grid\" x1=\"{left}\" x2=\"{right}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/><text class=\"soft\" x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            left - 8.0,
            at + 4.0,
            power(tick)
        );
    }
    for tick in x.ticks(marks.0) {
        let _ = write!(
            svg,
            "<text class=\"soft\" x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{tick}</text>",
            x.at(tick),
            height - 26.0
        );
    }
    let _ = write!(
        svg,
        "<line class=\"axis\" x1=\"{left}\" x2=\"{right}\" y1=\"{0}\" y2=\"{0}\"/><text class=\"soft\" x=\"{1}\" y=\"{2}\" text-anchor=\"middle\">{below}</text>",
        height - 44.0,
        (left + right) / 2.0,
        height - 6.0
    );
}
