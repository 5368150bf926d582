//! The ways a passage can attend: exactly over plain rows, through a paged f32 cache, through a coded paged
//! cache, or over rows that made a round trip through a codec.

mod coded;
mod dense;
mod identity;
mod pages;
mod simulated;

pub use coded::Coded;
pub use dense::Dense;
pub use identity::Identity;
pub use pages::Pages;
pub use simulated::Simulated;

use std::ops::Add;

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
        Geometry {
            layers: config.num_hidden_layers,
            heads: config.num_attention_heads,
            kv_heads: config.num_key_value_heads,
            d,
            scale: 1.0 / (d as f32).sqrt(),
        }
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
        SquaredError {
            error: x.iter().zip(stored).map(|(a, b)| square(f64::from(*a) - f64::from(*b))).sum(),
            energy: x.iter().map(|a| square(f64::from(*a))).sum(),
        }
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

/// What an attention has to tell about the passages it has run.
#[derive(Clone, Copy, Default, Debug)]
pub struct Tally {
    pub k: SquaredError,
    pub v: SquaredError,
    /// (layer, token) pairs written to a cache
    pub stored: u64,
    /// coordinates of K and V written to a cache
    pub elements: u64,
    /// bytes of the caches of all layers, page slack included
    pub allocated: u64,
}

impl Tally {
    pub(crate) fn count(&mut self, rows: &crate::model::Rows) {
        self.stored += rows.tokens as u64;
        self.elements += (rows.k.len() + rows.v.len()) as u64;
    }

    /// Bits allocated for each stored element; None where nothing was stored in a cache.
    pub fn allocated_bits(&self) -> Option<f64> {
        (self.elements > 0).then(|| 8.0 * self.allocated as f64 / self.elements as f64)
    }
}

impl Add for Tally {
    type Output = Tally;

    fn add(self, other: Tally) -> Tally {
        Tally {
            k: self.k + other.k,
            v: self.v + other.v,
            stored: self.stored + other.stored,
            elements: self.elements + other.elements,
            allocated: self.allocated + other.allocated,
        }
    }
}

/// An attention whose use can be proved: it counts what it stores.
pub trait Counted: crate::model::Attention {
    fn tally(&self) -> Tally;
}
