//! The measured read path: K and V of every token are coded into a paged cache, and every query, at position p,
//! attends to the coded rows 0..=p, its own included.

use kernels_gen::layout::{Operand, TILE};
use kernels_gen::registry::CodecInfo;

use super::{Counted, Distortion, Geometry, History, Misread, Pages, Tally};
use crate::backend::{Backend, CodedCache};
use crate::error::{Error, Result};
use crate::model::{Attention, Rows};

/// Tokens of a page.
pub const PAGE_TOKENS: usize = 64;

pub struct Coded {
    codec: &'static CodecInfo,
    geometry: Geometry,
    /// of the whole passage
    tokens: usize,
    pages: Pages,
    cache: Box<dyn CodedCache>,
    /// the layers that have one
    layers: Vec<usize>,
    misread: Misread,
    /// what was given to the cache, to be compared once a layer is complete
    given: History,
    tally: Tally,
}

impl Coded {
    /// For the layers of that list.
    pub fn new(backend: &dyn Backend, codec: &'static CodecInfo, geometry: Geometry, layers: Vec<usize>, tokens: usize) -> Result<Coded> {
        let pages = Pages::new(tokens, PAGE_TOKENS);
        let cache = backend.cache(codec, &Geometry { layers: layers.len(), ..geometry }, &pages)?;
        let tally = Tally { allocated: cache.allocated(), ..Tally::default() };
        Ok(Coded { codec, geometry, tokens, pages, cache, layers, misread: Misread::default(), given: History::default(), tally })
    }

    fn cache_of(&self, layer: usize) -> Result<usize> {
        let none = || Error::Invalid { reasons: vec![format!("layer {layer} has no cache of {}", self.codec.name)] };
        self.layers.iter().position(|own| *own == layer).ok_or_else(none)
    }

    /// A codec that is broken on purpose: decoded coordinates are taken in a wrong order.
    pub fn misreading(self) -> Coded {
        let misread = Misread::of(self.geometry.d);
        Coded { misread, ..self }
    }

    /// Error of all rows of a layer as they lie in the cache, read back from its bytes.
    fn errors(&self, layer: usize) -> Result<[Distortion; 2]> {
        let Geometry { kv_heads, d, .. } = self.geometry;
        let (codec, pages, misread) = (self.codec, &self.pages, &self.misread);
        let bytes = self.cache.bytes(self.cache_of(layer)?)?;
        let [k, v] = self.given.layer(layer);
        let pair = |index: usize| {
            let (token, head) = (index / kv_heads, index % kv_heads);
            [(Operand::K, k), (Operand::V, v)].map(|(operand, x)| {
                let row = pages.row(codec, &bytes, (kv_heads, d), (token, head), operand);
                Distortion::of_row(&x[index * d..][..d], &misread.read(codec.half(operand).decode_row(&row, d)))
            })
        };
        Ok(Distortion::of_pairs(k.len() / d, pair))
    }
}

impl Attention for Coded {
    fn attend(&mut self, rows: &Rows) -> Result<Vec<f32>> {
        let cache = self.cache_of(rows.layer)?;
        self.cache.store(cache, rows.start, rows.k, rows.v, &self.pages)?;
        self.tally.count(rows, self.codec.token_bytes(self.geometry.d) as u64, self.geometry.kv_heads, TILE);
        self.given.push(rows.layer, rows.k, rows.v);
        if rows.start + rows.tokens == self.tokens {
            let [k, v] = self.errors(rows.layer)?;
            let layer = self.tally.layer(rows.layer);
            layer.k += k;
            layer.v += v;
        }
        let lens: Vec<i32> = (1..=rows.tokens).map(|i| (rows.start + i) as i32).collect();
        let out = self.cache.attend(cache, &self.misread.aim(rows.q), &lens, &self.pages)?;
        if !out.iter().all(|v| v.is_finite()) {
            let reasons = vec![format!("attention through {} gave a value that is not finite in layer {}", self.codec.name, rows.layer)];
            return Err(Error::Invalid { reasons });
        }
        Ok(self.misread.read(out))
    }
}

impl Counted for Coded {
    fn tally(&self) -> Tally {
        self.tally.clone()
    }
}
