//! The ways a passage can attend: exactly over plain rows, through a paged f32 cache, through a coded paged
//! cache, or over rows that made a round trip through a codec; and what is counted on the way.

mod again;
mod blocked;
mod blocks;
mod by_layer;
mod calibrated;
#[cfg(test)]
mod chunks;
mod coded;
mod coder;
mod dense;
mod distortion;
mod grouped;
mod history;
mod identity;
mod latent;
mod latent_kernels;
mod misread;
mod pages;
mod probe;
mod published;
mod row_tally;
mod simulated;
mod windowed;

pub use again::Again;
pub use blocked::Blocked;
pub use blocks::{Blocks, Sizes};
pub use by_layer::ByLayer;
pub use calibrated::{Calibrated, Fitted};
pub use coded::{Coded, PAGE_TOKENS};
pub use coder::{Coder, FP8, RAW, RAW_BITS, Stream, Variant};
pub use dense::Dense;
pub use distortion::{Distortion, LayerDistortion};
pub use grouped::Grouped;
pub use history::History;
pub use identity::Identity;
pub use latent::{Kept, Kinds, Latent, Passage, Through};
pub use latent_kernels::{LatentKernels, OnDevice};
pub use misread::Misread;
pub use pages::Pages;
pub use probe::Probe;
pub use published::Published;
pub use row_tally::{KindTally, RowTally, Sum, expected as expected_rows};
pub use simulated::{Own, Simulated};
pub use windowed::Windowed;

use std::ops::{Add, AddAssign};

use serde::{Deserialize, Serialize};

use crate::model::Config;

/// Head counts and the softmax scale of one model.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Geometry {
    pub layers: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub d: usize,
    pub scale: f32,
}

impl Geometry {
    pub fn of(config: &Config) -> Geometry {
        let d = config.head_dim();
        Geometry { layers: config.num_hidden_layers, heads: config.num_attention_heads, kv_heads: config.num_key_value_heads, d, scale: 1.0 / (d as f32).sqrt() }
    }
}

/// Squared error of keys and values against what was stored, pooled over layers, heads and tokens.
#[derive(Clone, Copy, Default, Debug)]
pub struct SquaredError {
    pub error: f64,
    pub energy: f64,
}

impl SquaredError {
    pub fn of_row(x: &[f32], stored: &[f32]) -> SquaredError {
        let square = |v: f64| v * v;
        SquaredError { error: x.iter().zip(stored).map(|(a, b)| square(f64::from(*a) - f64::from(*b))).sum(), energy: x.iter().map(|a| square(f64::from(*a))).sum() }
    }

    /// ||x - x^||^2 / ||x||^2, zero for nothing.
    pub fn relative(self) -> f64 {
        if self.energy == 0.0 { 0.0 } else { self.error / self.energy }
    }
}

impl Add for SquaredError {
    type Output = SquaredError;

    fn add(self, other: SquaredError) -> SquaredError {
        SquaredError { error: self.error + other.error, energy: self.energy + other.energy }
    }
}

/// What an attention has to tell about the passage it has run.
#[derive(Clone, Default, Debug, Serialize, Deserialize)]
pub struct Tally {
    pub layers: Vec<LayerDistortion>,
    /// (layer, token) pairs written to a cache
    pub stored: u64,
    /// coordinates of K and V written to a cache
    pub elements: u64,
    /// bytes of codes and sides that the stored rows took
    pub bytes_written: u64,
    /// bytes of codes and sides that the queries read, one reader a kv head
    pub bytes_read: u64,
    /// where kernels counted those bytes themselves
    #[serde(default)]
    pub seen: Option<Seen>,
    /// bytes of the caches of all layers, page slack included
    pub allocated: u64,
    /// of codecs whose sizes depend on the rows
    #[serde(default)]
    pub sizes: Sizes,
    /// of rows that serve all heads
    #[serde(default)]
    pub rows: Option<RowTally>,
}

/// What the twins of the kernels saw, which count what they move: every store and every attention runs once more through them.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Seen {
    /// bytes that a kernel and its twin both stored, into memories that had nothing in common before
    pub stored_alike: u64,
    /// bytes of attention outputs in which they differ
    pub outputs_apart: u64,
}

impl Tally {
    /// With what the caches of all layers hold as they stand.
    pub(crate) fn with_sizes(mut self, layers: &[Sizes]) -> Tally {
        layers.iter().for_each(|sizes| self.sizes += *sizes);
        self
    }

    pub(crate) fn layer(&mut self, layer: usize) -> &mut LayerDistortion {
        if self.layers.len() <= layer {
            self.layers.resize(layer + 1, LayerDistortion::default());
        }
        &mut self.layers[layer]
    }

    /// Counts rows that were written, each key with its value in `token_bytes`, and all tokens that their queries read, `whole`
    /// tokens at a time.
    pub(crate) fn count(&mut self, rows: &crate::model::Rows, token_bytes: u64, kv_heads: usize, whole: usize) {
        let d = rows.k.len() / (rows.tokens * kv_heads).max(1);
        self.count_rows([rows.start, rows.tokens, whole], token_bytes, kv_heads, d);
    }

    /// The same of `tokens` tokens from position `start` on, of heads of `d` dims.
    pub(crate) fn count_rows(&mut self, [start, tokens, whole]: [usize; 3], token_bytes: u64, kv_heads: usize, d: usize) {
        let token = token_bytes * kv_heads as u64;
        self.stored += tokens as u64;
        self.elements += (2 * tokens * kv_heads * d) as u64;
        self.bytes_written += tokens as u64 * token;
        self.bytes_read += tokens_read(start..start + tokens, whole) * token;
    }

    pub fn total(&self) -> LayerDistortion {
        let mut total = LayerDistortion::default();
        self.layers.iter().for_each(|layer| total += *layer);
        total
    }

    /// Bits allocated for each stored element; None where nothing was stored in a cache.
    pub fn allocated_bits(&self) -> Option<f64> {
        (self.elements > 0).then(|| 8.0 * self.allocated as f64 / self.elements as f64)
    }
}

impl AddAssign<&Tally> for Tally {
    fn add_assign(&mut self, other: &Tally) {
        for (index, layer) in other.layers.iter().enumerate() {
            *self.layer(index) += *layer;
        }
        self.stored += other.stored;
        self.elements += other.elements;
        self.bytes_written += other.bytes_written;
        self.bytes_read += other.bytes_read;
        if let Some(more) = other.seen {
            let seen = self.seen.get_or_insert_default();
            seen.stored_alike += more.stored_alike;
            seen.outputs_apart += more.outputs_apart;
        }
        self.allocated += other.allocated;
        self.sizes += other.sizes;
        if let Some(more) = &other.rows {
            *self.rows.get_or_insert_default() += more;
        }
    }
}

/// Tokens that queries at these positions read, each up to its own, `whole` at a time.
pub fn tokens_read(positions: std::ops::Range<usize>, whole: usize) -> u64 {
    positions.map(|position| ((position + 1).div_ceil(whole) * whole) as u64).sum()
}

/// An attention whose use can be proved: it counts what it stores.
pub trait Counted: crate::model::Attention {
    fn tally(&self) -> Tally;
}

impl<T: Counted + ?Sized> Counted for Box<T> {
    fn tally(&self) -> Tally {
        (**self).tally()
    }
}

impl<T: crate::model::Attention + ?Sized> crate::model::Attention for Box<T> {
    fn attend(&mut self, rows: &crate::model::Rows) -> crate::error::Result<Vec<f32>> {
        (**self).attend(rows)
    }
}
