//! The frame of a drawing with decades upwards: grid, marks and the line below.

use std::fmt::Write;

use super::scale::{Scale, power};

/// Grid and marks of `y` (about `marks.1` of them), marks of `x` (about `marks.0`), and what `x` says below, for a
/// drawing `height` high whose axis lies 44 above its foot.
pub fn axes(svg: &mut String, x: &Scale, y: &Scale, marks: (usize, usize), height: f64, below: &str) {
    let [left, right] = x.place;
    grid(svg, [left, right], 8.0, y, y.ticks(marks.1));
    for tick in x.ticks(marks.0) {
        let _ = write!(svg, "<text class=\"soft\" x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{tick}</text>", x.at(tick), height - 26.0);
    }
    let _ = write!(svg, "<line class=\"axis\" x1=\"{left}\" x2=\"{right}\" y1=\"{0}\" y2=\"{0}\"/><text class=\"soft\" x=\"{1}\" y=\"{2}\" text-anchor=\"middle\">{below}</text>", height - 44.0, (left + right) / 2.0, height - 6.0);
}

/// A line across at each of these powers of ten, from left to right, and what it stands for so far to its left.
pub fn grid(svg: &mut String, [left, right]: [f64; 2], gap: f64, y: &Scale, ticks: impl IntoIterator<Item = f64>) {
    for tick in ticks {
        let at = y.at(tick);
        let _ = write!(svg, "<line class=\"grid\" x1=\"{left}\" x2=\"{right}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/><text class=\"soft\" x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>", left - gap, at + 4.0, power(tick));
    }
}

/// Lines down to `end` at about `count` marks of `x`, zero's its own, with `shown` of each below them, and what `x` says.
pub fn foot(svg: &mut String, x: &Scale, count: usize, end: f64, shown: impl Fn(f64) -> String, says: &str) {
    for tick in x.ticks(count) {
        let (at, class) = (x.at(tick), if tick == 0.0 { "zero" } else { "grid" });
        let _ = write!(svg, "<line class=\"{class}\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"6\" y2=\"{end:.1}\"/><text class=\"soft\" x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>", end + 18.0, shown(tick));
    }
    let _ = write!(svg, "<text class=\"soft\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{says}</text>", (x.place[0] + x.place[1]) / 2.0, end + 38.0);
}
