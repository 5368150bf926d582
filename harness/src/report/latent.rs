//! Rows that serve all heads, kind by kind: what they take, what they lose, and what that moves in the model.

use std::fmt::Write;

use super::markdown::small;
use crate::ppl::{LatentRow, Row};

/// Of one row of the table, a line for each kind that it codes.
pub const HEAD: [&str; 9] = ["codec", "kind", "bytes a row", "of 584", "rel-MSE nope", "rel-MSE rope", "rows held", "share of sinks", "kept by both"];

/// Bytes of a row as engines store it.
const ENGINES: f64 = 584.0;

pub fn lines(rows: &[Row]) -> Vec<[String; 9]> {
    let of_row = |row: &Row| row.latent.as_ref().map_or_else(Vec::new, |latent| of(&row.codec, latent));
    rows.iter().flat_map(of_row).collect()
}

fn of(codec: &str, latent: &LatentRow) -> Vec<[String; 9]> {
    let share = |value: Option<f64>| value.map_or("–".into(), |value| format!("{:.3} %", 100.0 * value));
    let (sink, both) = (share(latent.sink), share(latent.index_overlap));
    let coded = latent.kinds.iter().filter(|kind| kind.coded).map(|kind| {
        let numbers = [format!("{:.0}", kind.row_bytes), format!("{:.3}", kind.row_bytes / ENGINES)];
        let [bytes, ratio] = numbers;
        let errors = [kind.rel_mse_nope, kind.rel_mse_rope].map(small);
        let [nope, rope] = errors;
        [codec.into(), kind.kind.clone(), bytes, ratio, nope, rope, kind.kept.to_string(), sink.clone(), both.clone()]
    });
    let coded: Vec<_> = coded.collect();
    let none = || ["–"; 6].map(String::from);
    let alone = |[a, b, c, d, e, f]: [String; 6]| vec![[codec.into(), a, b, c, d, e, f, sink.clone(), both.clone()]];
    if coded.is_empty() { alone(none()) } else { coded }
}

/// Nothing where no row of the table has such rows.
pub fn section(rows: &[Row]) -> String {
    let lines = lines(rows);
    if lines.is_empty() {
        return String::new();
    }
    let mut text = String::from("## Rows of the cache\n\n");
    let _ = writeln!(text, "| {} |\n|---|---|{}", HEAD.join(" | "), "--:|".repeat(HEAD.len() - 2));
    for line in lines {
        let _ = writeln!(text, "| {} |", line.join(" | "));
    }
    let queries = rows.iter().filter_map(|row| row.latent.as_ref()).map(|latent| latent.index_queries).max().unwrap_or(0);
    let _ = writeln!(
        text,
        "\nA row is key and value of all heads. Its numbers without a position and those that RoPE turned are compared with what was written; rows held\n\
         are those of the cache when a passage ends, over all passages. The share of sinks is over scored queries and heads. Kept by both: groups\n\
         that the indexer keeps here and in the base model, over those kept by either, of the {queries} queries that see more than they read; the indexer's own keys are not coded.\n"
    );
    let through: Vec<&str> = rows.iter().filter(|row| row.latent.as_ref().is_some_and(|l| l.by_kernels > 0)).map(|row| &row.codec[..]).collect();
    if !through.is_empty() {
        let _ = writeln!(text, "Kernels stored the rows of {} and attended to them; stored bytes, and outputs of two queries a call, were compared with the reference's, bit for bit.\n", through.join(", "));
    }
    text
}
