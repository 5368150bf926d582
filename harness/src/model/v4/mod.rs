//! A decoder of DeepSeek-V4's architecture in f32 on the CPU. What its layers cache are rows that serve all heads, as
//! keys and as values: one a token for the window, and one a group of tokens in layers that compress.
//! The cache is a trait object, so the same forward pass reads rows as they are or through any format.

mod attention;
mod checkpoint;
mod compressor;
mod config;
mod experts;
mod forward;
mod indexer;
mod layer;
mod names;
mod streams;
mod turns;

pub use attention::{Attention, Picks, Reading};
pub use config::{Compressed, Config};
pub use experts::route;
pub use forward::{Lane, Model};
pub use streams::Connection;

use crate::error::Result;

/// What a row stands for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum RowKind {
    /// one of the latest tokens
    Window,
    /// a group of few tokens and the one before it, chosen by an indexer
    Csa,
    /// a group of many tokens
    Hca,
}

impl RowKind {
    pub const ALL: [RowKind; 3] = [RowKind::Window, RowKind::Csa, RowKind::Hca];

    pub fn name(self) -> &'static str {
        match self {
            RowKind::Window => "window",
            RowKind::Csa => "csa",
            RowKind::Hca => "hca",
        }
    }
}

/// Where rows stand that a layer writes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    pub layer: usize,
    pub kind: RowKind,
    /// number of the first of them among the layer's rows of that kind
    pub first: usize,
}

/// Rows as queries read them.
pub struct Written {
    /// in the call that brings them
    pub now: Vec<f32>,
    /// in later calls, where that differs
    pub later: Option<Vec<f32>>,
}

/// What a layer's queries did in one call.
pub struct Call<'a> {
    pub layer: usize,
    pub start: usize,
    pub tokens: usize,
    /// [token, head, d], turned
    pub q: &'a [f32],
    /// rows as the layer made them, of all tokens so far and of all groups so far
    pub raw: [&'a [f32]; 2],
    pub attention: &'a Attention,
    pub picks: &'a Picks,
    pub reading: &'a Reading,
}

/// Between what a layer makes and what its queries read.
pub trait RowCache {
    /// Rows [row, d], the next ones of their kind.
    fn write(&mut self, place: Place, rows: &[f32]) -> Result<Written>;

    /// Outputs [token, head, d] of a call's queries where the cache attends itself, in the place of `call.reading`'s.
    fn outputs(&mut self, _call: &Call) -> Result<Option<Vec<f32>>> {
        Ok(None)
    }

    /// Hears of every call.
    fn watch(&mut self, _call: &Call) {}

    /// Queries whose scores are made at once; another number is the same mathematics in another order of sums.
    fn block(&self) -> usize {
        64
    }
}

/// Rows as they are.
pub struct Exact;

impl RowCache for Exact {
    fn write(&mut self, _: Place, rows: &[f32]) -> Result<Written> {
        Ok(Written { now: rows.to_vec(), later: None })
    }
}
