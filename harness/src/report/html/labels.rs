//! Names beside points, none over another name or another point. Each takes the nearest free place; one that had to
//! move is tied to its point by a line.

/// Where a name goes; `anchor` is svg's.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Label {
    pub x: f64,
    pub y: f64,
    pub anchor: &'static str,
    pub tied: bool,
}

/// Of a letter at the drawings' size.
const LETTER: f64 = 6.8;
const LINE: f64 = 13.0;
const DOT: f64 = 5.5;
/// Between a name and what stands beside it.
const GAP: f64 = 6.0;

#[derive(Clone, Copy)]
struct Area {
    left: f64,
    right: f64,
    top: f64,
    bottom: f64,
}

impl Area {
    fn meets(&self, other: &Area) -> bool {
        self.left < other.right && other.left < self.right && self.top < other.bottom && other.top < self.bottom
    }

    fn holds(&self, inner: &Area) -> bool {
        self.left <= inner.left && inner.right <= self.right && self.top <= inner.top && inner.bottom <= self.bottom
    }
}

pub fn width_of(text: &str) -> f64 {
    LETTER * text.chars().count() as f64
}

/// Labels for `points` (x, y, name) inside `[left, right]` and `[top, bottom]`, in the order of the points.
pub fn beside(points: &[(f64, f64, &str)], [left, right]: [f64; 2], [top, bottom]: [f64; 2]) -> Vec<Label> {
    let frame = Area { left, right, top, bottom };
    let dots: Vec<Area> = points.iter().map(|(x, y, _)| Area { left: x - DOT, right: x + DOT, top: y - DOT, bottom: y + DOT }).collect();
    let mut taken: Vec<Area> = Vec::new();
    let mut labels = Vec::new();
    for (x, y, name) in points {
        let fits = |(_, area): &(Label, Area)| frame.holds(area) && !dots.iter().chain(&taken).any(|other| other.meets(area));
        let found = places(*x, *y, width_of(name)).find(fits);
        // crowded out: on its right, over whatever is there
        let (label, area) = found.unwrap_or_else(|| place(*x, *y, width_of(name), 10.0, 0.0, false));
        taken.push(area);
        labels.push(label);
    }
    labels
}

/// Right and left of the point, then further and further away, up and down.
fn places(x: f64, y: f64, width: f64) -> impl Iterator<Item = (Label, Area)> {
    let heights = (0..28).map(|step| f64::from((step + 1) / 2) * if step % 2 == 0 { -9.0 } else { 9.0 });
    let ways = heights.flat_map(|up| [10.0, 34.0, 64.0].map(|away| (up, away)));
    let mut ways: Vec<(f64, f64)> = ways.collect();
    ways.sort_by(|a, b| (a.0.abs() + 0.5 * a.1).total_cmp(&(b.0.abs() + 0.5 * b.1)));
    ways.into_iter().flat_map(move |(up, away)| {
        let tied = up.abs() > 9.5 || away > 10.5;
        [away, -away].map(|away| place(x, y, width, away, up, tied))
    })
}

fn place(x: f64, y: f64, width: f64, away: f64, up: f64, tied: bool) -> (Label, Area) {
    let (at, middle) = (x + away, y + up);
    let anchor = if away > 0.0 { "start" } else { "end" };
    let left = if away > 0.0 { at } else { at - width };
    let area = Area { left: left - GAP / 2.0, right: left + width + GAP / 2.0, top: middle - LINE / 2.0, bottom: middle + LINE / 2.0 };
    (Label { x: at, y: middle + 4.0, anchor, tied }, area)
}

impl Label {
    /// The line to its point, if it needs one, as svg.
    pub fn tie(&self, x: f64, y: f64) -> String {
        if !self.tied {
            return String::new();
        }
        let end = if self.anchor == "start" { self.x - 2.0 } else { self.x + 2.0 };
        format!("<line class=\"stroke\" stroke-opacity=\".45\" x1=\"{x:.1}\" y1=\"{y:.1}\" x2=\"{end:.1}\" y2=\"{:.1}\"/>", self.y - 4.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn area(label: &Label, name: &str) -> Area {
        let left = if label.anchor == "start" { label.x } else { label.x - width_of(name) };
        Area { left, right: left + width_of(name), top: label.y - 4.0 - LINE / 2.0, bottom: label.y - 4.0 + LINE / 2.0 }
    }

    #[test]
    fn names_do_not_meet() {
        let points: Vec<(f64, f64, &str)> = (0..12).map(|i| (100.0 + 3.0 * f64::from(i % 4), 100.0 + 4.0 * f64::from(i), "turboquant_4bit_nc")).collect();
        let labels = beside(&points, [0.0, 540.0], [0.0, 380.0]);
        let areas: Vec<Area> = labels.iter().map(|label| area(label, "turboquant_4bit_nc")).collect();
        for (i, a) in areas.iter().enumerate() {
            assert!(areas[i + 1..].iter().all(|b| !a.meets(b)), "label {i}");
            assert!(a.left >= 0.0 && a.right <= 540.0 && a.top >= 0.0 && a.bottom <= 380.0, "label {i}");
        }
        assert!(labels.iter().any(|label| label.tied));
    }

    #[test]
    fn a_lone_point_has_its_name_on_its_right_or_inside() {
        let lone = |x| beside(&[(x, 50.0, "int4")], [0.0, 200.0], [0.0, 100.0])[0];
        assert_eq!((lone(50.0), lone(190.0).anchor), (Label { x: 60.0, y: 54.0, anchor: "start", tied: false }, "end"));
    }
}
