//! The PCA codec on rows of a model: it codes full blocks and leaves the rows after them raw, so its sizes are known
//! only once the rows are. Everything it does is a round trip; no kernel reads its bytes.

use std::fmt;
use std::ops::AddAssign;
use std::sync::Arc;

use kernels_gen::pca::{Codec, Coding, Whitening, gather, scatter};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::again::Again;
use super::{Geometry, Stream};
use crate::error::{Error, Result};
use crate::model::Rope;

/// What rows took, one half of the cache or both.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Sizes {
    /// elements of full blocks, and their bytes: skeletons, codes, outliers and padding
    pub coded: u64,
    pub bytes: u64,
    /// elements that stayed raw: after the last full block, or in a layer that is left out
    pub raw: u64,
}

impl Sizes {
    /// Bits of an element, raw ones as bf16; None where nothing was stored.
    pub fn bits(&self) -> Option<f64> {
        let all = self.coded + self.raw;
        (all > 0).then(|| (8 * self.bytes + 16 * self.raw) as f64 / all as f64)
    }

    /// Bits of an element of a full block.
    pub fn coded_bits(&self) -> Option<f64> {
        (self.coded > 0).then(|| 8.0 * self.bytes as f64 / self.coded as f64)
    }
}

impl AddAssign for Sizes {
    fn add_assign(&mut self, other: Sizes) {
        self.coded += other.coded;
        self.bytes += other.bytes;
        self.raw += other.raw;
    }
}

/// A PCA codec with all that a model adds to it.
pub struct Blocks {
    pub codec: &'static Codec,
    geometry: Geometry,
    codings: [Coding; 2],
    /// of keys, where they are preconditioned. `[layer][kv head]`
    whitenings: Vec<Vec<Whitening>>,
    rope: Rope,
    again: Arc<Again>,
}

impl fmt::Debug for Blocks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} layers", self.codec.name, self.geometry.layers)
    }
}

impl Blocks {
    /// `levels` of keys and of values, where they are fitted.
    pub fn new(codec: &'static Codec, geometry: Geometry, levels: [Option<Vec<f32>>; 2], whitenings: Vec<Vec<Whitening>>, rope: Rope, again: &Arc<Again>) -> Result<Blocks> {
        let coding = |settings, levels: &Option<Vec<f32>>| Coding::new(settings, geometry.d, levels.as_deref());
        let codings = [coding(&codec.k, &levels[0])?, coding(&codec.v, &levels[1])?];
        Ok(Blocks { codec, geometry, codings, whitenings, rope, again: again.clone() })
    }

    /// Bytes that belong to the model and not to a context: both triangles of every whitening, tables of levels.
    pub fn static_bytes(&self) -> usize {
        let levels: usize = self.codings.iter().map(|coding| 4 * coding.levels.len()).sum();
        self.whitenings.iter().flatten().map(Whitening::bytes).sum::<usize>() + levels
    }

    pub fn coding(&self, half: Stream) -> &Coding {
        &self.codings[half as usize]
    }

    /// Keys or values `[token, kv head, d]` of a layer, the first token at position `start`, coded and decoded again.
    pub fn round_trip(&self, half: Stream, layer: usize, start: usize, x: &[f32]) -> Result<(Vec<f32>, Sizes)> {
        let (d, heads, coding) = (self.geometry.d, self.geometry.kv_heads, self.coding(half));
        if coding.settings.raw_layers.contains(&layer) {
            return Ok((x.to_vec(), Sizes { raw: x.len() as u64, ..Sizes::default() }));
        }
        if let Some(known) = self.again.find((half, layer, start), coding, x) {
            return Ok(known);
        }
        let plain = self.prepared(half, layer, start, x);
        let mut streams = gather(coding.settings.grouping, &plain, heads, d);
        let mut sizes = Sizes::default();
        for own in streams.par_iter_mut().map(|stream| code(coding, stream)).collect::<Result<Vec<_>>>()? {
            sizes += own;
        }
        let mut rows = scatter(coding.settings.grouping, &streams, heads, d);
        let each = rows.par_chunks_mut(d).zip(plain.par_chunks(d)).zip(x.par_chunks(d));
        each.enumerate().for_each(|(index, ((row, plain), x))| {
            // raw rows keep their bits
            let back = if row == plain { x.to_vec() } else { self.restored(half, layer, start, index, row) };
            row.copy_from_slice(&back);
        });
        self.again.keep((half, layer, start), coding, x, (&rows, sizes));
        Ok((rows, sizes))
    }

    /// Rows as they are coded: before RoPE, preconditioned.
    pub fn prepared(&self, half: Stream, layer: usize, start: usize, x: &[f32]) -> Vec<f32> {
        let (d, heads) = (self.geometry.d, self.geometry.kv_heads);
        let settings = &self.coding(half).settings;
        if half == Stream::V || !settings.before_rope {
            return x.to_vec();
        }
        let row = |(index, x): (usize, &[f32])| {
            let mut row = x.to_vec();
            self.rope.turn_back(&mut row, start + index / heads);
            self.whitening(layer, index % heads).map_or_else(|| row.clone(), |w| w.forth(&row))
        };
        x.par_chunks(d).enumerate().flat_map_iter(row).collect()
    }

    /// A kv head's keys before RoPE, the first at position `start`, for pages, and what these take beside them.
    pub fn before(&self, layer: usize, head: usize, start: usize, keys: &mut [f32]) -> (Vec<f64>, Option<&Whitening>) {
        keys.chunks_mut(self.geometry.d).enumerate().for_each(|(token, row)| self.rope.turn_plainly_back(row, start + token));
        (self.rope.speeds().collect(), self.whitening(layer, head))
    }

    fn restored(&self, half: Stream, layer: usize, start: usize, index: usize, row: &[f32]) -> Vec<f32> {
        let (heads, settings) = (self.geometry.kv_heads, &self.coding(half).settings);
        if half == Stream::V || !settings.before_rope {
            return row.to_vec();
        }
        let mut back = self.whitening(layer, index % heads).map_or_else(|| row.to_vec(), |w| w.back(row));
        self.rope.turn(&mut back, start + index / heads);
        back
    }

    fn whitening(&self, layer: usize, head: usize) -> Option<&Whitening> {
        self.whitenings.get(layer)?.get(head)
    }
}

/// Puts what a reader sees in the place of a stream's rows. What is decoded was read from bytes.
fn code(coding: &Coding, rows: &mut [f32]) -> Result<Sizes> {
    let sound = coding.sound(rows)?;
    let (full, tail) = coding.split(&sound);
    let mut sizes = Sizes { coded: full.len() as u64, bytes: 0, raw: tail.len() as u64 };
    let shared = coding.shared(full)?;
    let settings = &coding.settings;
    sizes.bytes += shared.as_ref().map_or(0, |basis| basis.to_bytes(settings).len() as u64);
    let block = |rows: &[f32]| -> Result<(Vec<f32>, u64)> {
        let bytes = coding.block(shared.as_ref(), rows)?.to_bytes(settings);
        let read = kernels_gen::pca::Block::from_bytes(settings, shared.as_ref(), &bytes, coding.d)?;
        Ok((read.decode(&coding.rules(), shared.as_ref())?, bytes.len() as u64))
    };
    let size = settings.block * coding.d;
    let decoded: Vec<(Vec<f32>, u64)> = full.par_chunks_exact(size).map(block).collect::<Result<_>>()?;
    for ((decoded, bytes), rows) in decoded.into_iter().zip(rows.chunks_exact_mut(size)) {
        rows.copy_from_slice(&decoded);
        sizes.bytes += bytes;
    }
    if !rows.iter().all(|x| x.is_finite()) {
        return Err(Error::Data("rows of the PCA codec came back without being finite; leave out compat".into()));
    }
    Ok(sizes)
}
