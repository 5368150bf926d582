//! A stream of rows: full blocks as codes, and the rows after the last full block as they are.

use super::basis::Basis;
use super::block::Block;
use super::error::PcaError;
use super::mix::signs;
use super::row::Rules;
use super::settings::{Grouping, Settings, Table};
use super::table::{GAUSSIAN, lloyd};

/// Checked settings with all that follows from them.
#[derive(Clone, PartialEq, Debug)]
pub struct Coding {
    pub settings: Settings,
    pub d: usize,
    /// none yet where they are fitted to a model
    pub levels: Vec<f32>,
    signs: Vec<f32>,
}

/// Rows of one stream.
#[derive(Clone, PartialEq, Debug)]
pub struct Stream {
    /// of all blocks, where it is shared
    pub shared: Option<Basis>,
    pub blocks: Vec<Block>,
    /// fewer rows than a block
    pub tail: Vec<f32>,
}

impl Coding {
    /// For rows of `d` coordinates; `fitted` are the levels of [`Table::Fitted`].
    pub fn new(settings: &Settings, d: usize, fitted: Option<&[f32]>) -> Result<Coding, PcaError> {
        settings.check(d)?;
        let (levels, signs) = (settings.levels(fitted)?, signs(settings.seed, d.next_power_of_two()));
        Ok(Coding { settings: settings.clone(), d, levels, signs })
    }

    pub fn rules(&self) -> Rules<'_> {
        Rules { settings: &self.settings, levels: &self.levels, signs: &self.signs }
    }

    /// `rows` `[n, d]`. NaN becomes 0 and infinity the largest f16, but under `compat`, which refuses them.
    pub fn encode(&self, rows: &[f32]) -> Result<Stream, PcaError> {
        let rows = self.sound(rows)?;
        let (full, tail) = self.split(&rows);
        let shared = self.shared(full)?;
        let coded = |rows| self.block(shared.as_ref(), rows);
        let blocks = full.chunks_exact(self.settings.block * self.d).map(coded).collect::<Result<_, _>>()?;
        Ok(Stream { shared, blocks, tail: tail.to_vec() })
    }

    /// Rows as they can be coded: finite.
    pub fn sound(&self, rows: &[f32]) -> Result<Vec<f32>, PcaError> {
        if self.settings.compat && rows.iter().any(|x| !x.is_finite()) {
            return Err(PcaError::Original { does: "never ends", on: "a block with a number that is not finite" });
        }
        Ok(rows.iter().map(|x| finite(*x)).collect())
    }

    /// Full blocks, and the rows after them.
    pub fn split<'a>(&self, rows: &'a [f32]) -> (&'a [f32], &'a [f32]) {
        let block = self.settings.block * self.d;
        rows.split_at(rows.len() / block * block)
    }

    /// The basis of a stream whose blocks share one, from its full blocks.
    pub fn shared(&self, full: &[f32]) -> Result<Option<Basis>, PcaError> {
        let share = self.settings.share_basis && !full.is_empty();
        share.then(|| Basis::fit(&self.settings, full, self.d)).transpose()
    }

    /// One block; blocks of a stream do not depend on each other.
    pub fn block(&self, shared: Option<&Basis>, rows: &[f32]) -> Result<Block, PcaError> {
        if self.levels.is_empty() {
            return Err(PcaError::Missing { what: "a table of levels" });
        }
        Block::encode(&self.rules(), shared, rows, self.d)
    }

    /// Rows as a reader of the stream sees them.
    pub fn decode(&self, stream: &Stream) -> Result<Vec<f32>, PcaError> {
        let mut rows = Vec::new();
        for block in &stream.blocks {
            rows.extend(block.decode(&self.rules(), stream.shared.as_ref())?);
        }
        rows.extend(&stream.tail);
        Ok(rows)
    }

    /// The coordinates that a table of levels is for: of all rows of full blocks, those that are no outliers.
    pub fn samples(&self, rows: &[f32]) -> Result<Vec<f32>, PcaError> {
        let plain = Coding::new(&Settings { table: Table::Gaussian, ..self.settings.clone() }, self.d, None)?;
        let stream = plain.encode(rows)?;
        let beyond = self.settings.outliers.unwrap_or(f32::INFINITY);
        let mut samples = Vec::new();
        for (block, rows) in stream.blocks.iter().zip(rows.chunks_exact(self.settings.block * self.d)) {
            let skeleton = block.skeleton(stream.shared.as_ref())?;
            for x in rows.chunks_exact(self.d) {
                samples.extend(plain.rules().rotated(skeleton, x).into_iter().filter(|v| v.abs() <= beyond));
            }
        }
        Ok(samples)
    }

    /// Levels for these samples, from the Gaussian ones.
    pub fn fitted(&self, samples: &[f32]) -> Vec<f32> {
        lloyd(samples, GAUSSIAN[self.settings.bits - 1])
    }
}

impl Stream {
    /// Of all blocks and the shared basis; the tail is not coded.
    pub fn coded_bytes(&self, settings: &Settings) -> usize {
        let shared = self.shared.as_ref().map_or(0, |basis| basis.to_bytes(settings).len());
        shared + self.blocks.iter().map(|block| block.to_bytes(settings).len()).sum::<usize>()
    }
}

fn finite(x: f32) -> f32 {
    if x.is_infinite() {
        65504.0_f32.copysign(x)
    } else if x.is_nan() {
        0.0
    } else {
        x.clamp(-1e30, 1e30)
    }
}

/// The streams that rows `[token, kv head, d]` make: one a head, or a single one.
pub fn gather(grouping: Grouping, rows: &[f32], heads: usize, d: usize) -> Vec<Vec<f32>> {
    match grouping {
        Grouping::Pooled => vec![rows.to_vec()],
        Grouping::Head => {
            let of = |head: usize| rows.chunks_exact(heads * d).flat_map(move |token| &token[head * d..][..d]).copied();
            (0..heads).map(|head| of(head).collect()).collect()
        }
    }
}

/// The way back.
pub fn scatter(grouping: Grouping, streams: &[Vec<f32>], heads: usize, d: usize) -> Vec<f32> {
    match grouping {
        Grouping::Pooled => streams.concat(),
        Grouping::Head => {
            let tokens = streams.first().map_or(0, |s| s.len() / d);
            let rows = (0..tokens * heads).flat_map(|at| &streams[at % heads][at / heads * d..][..d]);
            rows.copied().collect()
        }
    }
}
