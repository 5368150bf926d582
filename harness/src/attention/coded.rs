//! The measured read path: K and V of every token are coded into a paged cache, and every query, at position p,
//! attends to the coded rows 0..=p, its own included.

use kernels_gen::layout::Operand;
use kernels_gen::registry::CodecInfo;
use rayon::prelude::*;

use super::{Counted, Geometry, Pages, SquaredError, Tally};
use crate::backend::{Backend, CodedCache};
use crate::error::{Error, Result};
use crate::model::{Attention, Rows};

pub struct Coded {
    codec: &'static CodecInfo,
    geometry: Geometry,
    pages: Pages,
    cache: Box<dyn CodedCache>,
    misread: Misread,
    tally: Tally,
}

impl Coded {
    pub fn new(backend: &dyn Backend, codec: &'static CodecInfo, geometry: Geometry, pages: Pages) -> Result<Coded> {
        let cache = backend.cache(codec, &geometry, &pages)?;
        let tally = Tally { allocated: cache.allocated(), ..Tally::default() };
        Ok(Coded { codec, geometry, pages, cache, misread: Misread(None), tally })
    }

    /// A codec that is broken on purpose: decoded coordinates are taken in a wrong order.
    pub fn misreading(self) -> Coded {
        let d = self.geometry.d;
        Coded { misread: Misread(Some((0..d).map(|i| (37 * i + 11) % d).collect())), ..self }
    }

    /// Error of the rows as they lie in the cache, read back from its bytes.
    fn add_error(&mut self, rows: &Rows) -> Result<()> {
        let Geometry { kv_heads, d, .. } = self.geometry;
        let (codec, pages, misread) = (self.codec, &self.pages, &self.misread);
        let bytes = self.cache.bytes(rows.layer)?;
        let pair = |index: usize| {
            let (token, head) = (index / kv_heads, index % kv_heads);
            [(Operand::K, rows.k), (Operand::V, rows.v)].map(|(operand, x)| {
                let row = pages.row(codec, &bytes, (kv_heads, d), (token, head), operand);
                SquaredError::of_row(&x[index * d..][..d], &misread.read(&codec.half(operand).decode_row(&row, d)))
            })
        };
        // summed in order, so that a report repeats digit for digit
        let pairs: Vec<_> = (0..rows.tokens * kv_heads).into_par_iter().map(pair).collect();
        for [k, v] in pairs {
            self.tally.k = self.tally.k + k;
            self.tally.v = self.tally.v + v;
        }
        Ok(())
    }
}

/// The coordinate that is read in the place of each coordinate; None reads correctly.
struct Misread(Option<Vec<usize>>);

impl Misread {
    /// Rows as this run reads them.
    fn read(&self, rows: &[f32]) -> Vec<f32> {
        match &self.0 {
            Some(from) => rows.chunks(from.len()).flat_map(|row| from.iter().map(|i| row[*i])).collect(),
            None => rows.to_vec(),
        }
    }

    /// Queries that meet correctly read keys as the given ones meet misread keys: q . read(k) = aim(q) . k.
    fn aim(&self, queries: &[f32]) -> Vec<f32> {
        let Some(from) = &self.0 else { return queries.to_vec() };
        let mut aimed = vec![0.0; queries.len()];
        for (aimed, row) in aimed.chunks_mut(from.len()).zip(queries.chunks(from.len())) {
            from.iter().zip(row).for_each(|(i, value)| aimed[*i] = *value);
        }
        aimed
    }
}

impl Attention for Coded {
    fn attend(&mut self, rows: &Rows) -> Result<Vec<f32>> {
        self.cache.store(rows.layer, rows.k, rows.v, &self.pages)?;
        self.tally.count(rows);
        self.add_error(rows)?;
        let lens: Vec<i32> = (1..=rows.tokens as i32).collect();
        let out = self.cache.attend(rows.layer, &self.misread.aim(rows.q), &lens, &self.pages)?;
        if !out.iter().all(|v| v.is_finite()) {
            let reasons = vec![format!(
                "attention through {} gave a value that is not finite in layer {}",
                self.codec.name, rows.layer
            )];
            return Err(Error::Invalid { reasons });
        }
        Ok(self.misread.read(&out))
    }
}

impl Counted for Coded {
    fn tally(&self) -> Tally {
        self.tally
    }
}
