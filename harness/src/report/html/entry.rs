//! A row as the page shows it: with the run it belongs to, if there are several, and a colour of its own.

use crate::ppl::Row;
use crate::report::Report;

pub struct Entry<'a> {
    pub label: String,
    pub row: &'a Row,
    /// css class of its colour
    pub colour: String,
    pub kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Codec,
    /// identity and self
    Floor,
    /// broken on purpose
    Control,
}

const COLOURS: usize = 8;

/// All rows of all runs, in order.
pub fn entries(reports: &[Report]) -> Vec<Entry<'_>> {
    // a codec keeps its colour over runs
    let mut seen: Vec<&str> = Vec::new();
    let mut entries = Vec::new();
    for (run, report) in reports.iter().enumerate() {
        for row in &report.rows {
            let kind = match row.codec.as_str() {
                "identity" | "self" => Kind::Floor,
                name if name.starts_with("CONTROL_") => Kind::Control,
                _ => Kind::Codec,
            };
            if kind == Kind::Codec && !seen.contains(&row.codec.as_str()) {
                seen.push(&row.codec);
            }
            let colour = seen.iter().position(|name| *name == row.codec).unwrap_or(COLOURS - 1);
            let label = if reports.len() > 1 { format!("{} \u{b7} {}", row.codec, run + 1) } else { row.codec.clone() };
            entries.push(Entry { label, row, colour: format!("c{}", colour % COLOURS), kind });
        }
    }
    entries
}

pub fn codecs<'a, 'b>(entries: &'b [Entry<'a>]) -> Vec<&'b Entry<'a>> {
    entries.iter().filter(|e| e.kind == Kind::Codec).collect()
}

/// Heights for labels in a column that would lie on each other: at least `gap` apart, in order of their wishes, and none
/// below `last`.
pub fn spread(wishes: &[f64], gap: f64, last: f64) -> Vec<f64> {
    let mut order: Vec<usize> = (0..wishes.len()).collect();
    order.sort_by(|a, b| wishes[*a].total_cmp(&wishes[*b]));
    let mut places = wishes.to_vec();
    for pair in order.windows(2) {
        places[pair[1]] = places[pair[1]].max(places[pair[0]] + gap);
    }
    // what ran over the end is pushed back up
    let mut end = last;
    for i in order.into_iter().rev() {
        places[i] = places[i].min(end);
        end = places[i] - gap;
    }
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_keep_their_distance() {
        assert_eq!(spread(&[10.0, 11.0, 50.0], 15.0, 100.0), [10.0, 25.0, 50.0]);
        assert_eq!(spread(&[98.0, 99.0], 15.0, 100.0), [85.0, 100.0]);
    }
}
