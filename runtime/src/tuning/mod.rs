//! How decode kernels are cut into warps, stages and blocks on one device, as measured there.
//!
//! `search` measures and `harness tune` writes what it found; a plan reads it when it is prepared and never measures.
//! No choice changes a bit of a result. A file of another version, for another device or for kernels that have changed since
//! is left aside: plans then go by their own rules, and [`crate::DecodePlan::tuning`] says why.

mod file;
mod in_use;
mod problem;
mod search;

pub(crate) use in_use::{Found, find};
pub use in_use::{forget, load};
pub use search::{Size, kernel_of, search};

use std::fmt;

use crate::compile;
use kernel_dsl::Source;
use kernels_gen::kernels::decode_attention::DecodeMeta;

/// How one kernel is cut for one size of call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// Warps of a block.
    pub warps: usize,
    /// Tiles of a warp's ring.
    pub stages: usize,
    /// Blocks that a multiprocessor shall hold at least.
    pub min_blocks: usize,
    /// Tokens that a warp takes at most, 256 times a power of two; 0: the plan's own rule.
    pub tokens: usize,
}

impl Choice {
    /// How a kernel is cut, with the plan's own rule for shares.
    fn of(m: &DecodeMeta) -> Choice {
        Choice { warps: m.warps, stages: m.stages, min_blocks: m.min_blocks, tokens: 0 }
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Choice { warps, stages, min_blocks, tokens } = self;
        let share = if *tokens == 0 { "own share".to_string() } else { format!("{tokens} tokens a warp") };
        write!(f, "{warps} warps, {stages} stages, {min_blocks} blocks, {share}")
    }
}

/// What a call's size is: neighbours are looked for on a logarithmic scale.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Point {
    /// Sequences times kv heads.
    pub rows: usize,
    /// Tokens that a row of the page table can name.
    pub tokens: usize,
}

impl Point {
    /// Doublings between two points, if there is at most one in each direction.
    fn distance(self, other: Point) -> Option<f64> {
        let doublings = |a: usize, b: usize| (a.max(1) as f64 / b.max(1) as f64).log2().abs();
        let (rows, tokens) = (doublings(self.rows, other.rows), doublings(self.tokens, other.tokens));
        (rows <= 1.0 && tokens <= 1.0).then_some(rows + tokens)
    }
}

/// A measured choice.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The kernel, its codec and shape in words, and a hash of its text.
    pub kernel: String,
    /// See [`hash`].
    pub hash: String,
    /// Where it was measured.
    pub at: Point,
    /// What was best there.
    pub choice: Choice,
    /// Its microseconds, and those of the plan's own rule.
    pub us: f64,
    /// See `us`.
    pub own_us: f64,
}

/// The choices of one device.
#[derive(Clone, Debug, PartialEq)]
pub struct Tuning {
    /// The device's name, as its driver gives it.
    pub device: String,
    /// In the order in which they were measured.
    pub entries: Vec<Entry>,
}

impl Tuning {
    /// Takes over the entries of `newer`; kernels that it measured lose their old ones.
    pub fn merge(&mut self, newer: Tuning) {
        self.entries.retain(|old| newer.entries.iter().all(|new| new.kernel != old.kernel));
        self.entries.extend(newer.entries);
    }
}

/// The meta value of a choice; none where so many blocks do not fit a multiprocessor, one of which may have `shared` bytes.
pub(crate) fn cut(own: DecodeMeta, c: Choice, shared: usize) -> Option<DecodeMeta> {
    if Choice::of(&own) == (Choice { tokens: 0, ..c }) {
        return Some(own);
    }
    let meta = DecodeMeta { warps: c.warps, stages: c.stages, min_blocks: c.min_blocks, ..own }.within(shared);
    // A kibibyte of every block is the driver's. `within` takes fewer warps or blocks where they do not fit, but not less than one.
    let fits = meta.min_blocks * (meta.shared() + 1024) <= shared + 1024;
    ((meta.warps, meta.stages, meta.min_blocks) == (c.warps, c.stages, c.min_blocks) && fits).then_some(meta)
}

/// Identifies a kernel's text, wherever its sources lie.
pub(crate) fn hash(source: &Source) -> String {
    compile::text_key(source).to_string()[..16].to_string()
}

/// The entry that was measured nearest to `at`, at most a doubling away in rows and in tokens.
pub(crate) fn nearest<T>(entries: &[(Point, T)], at: Point) -> Option<&(Point, T)> {
    let near = entries.iter().filter_map(|e| Some((e.0.distance(at)?, e)));
    near.min_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, e)| e)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_point_counts_within_a_doubling() {
        let points: Vec<(Point, usize)> = [(8, 32768), (256, 8192), (512, 4096)].into_iter().enumerate().map(|(i, (rows, tokens))| (Point { rows, tokens }, i)).collect();
        let found = |rows, tokens| nearest(&points, Point { rows, tokens }).map(|e| e.1);
        assert_eq!(found(256, 8192), Some(1));
        assert_eq!(found(300, 8100), Some(1));
        assert_eq!(found(500, 5000), Some(2));
        assert_eq!(found(16, 65536), Some(0));
        assert_eq!(found(17, 65536), None);
        assert_eq!(found(256, 131072), None);
        assert_eq!(found(0, 0), None);
    }
}
