//! The decode kernels of a plan: one cut by the plan's own rules, and those that a tuning of the device asks for.

use std::sync::Arc;

use super::load;
use crate::cuda::{Device, Kernel};
use crate::error::{Error, Result};
use crate::tuning::{self, Choice, Found, Point};
use kernel_dsl::{Report, Source};
use kernels_gen::kernels::decode_attention::DecodeMeta;
use kernels_gen::kernels::{self, LEAF};

/// Writes the kernel of a meta value.
pub(super) type Build<'a> = &'a dyn Fn(&DecodeMeta) -> std::result::Result<Source, Report>;

/// Turns of blocks that are left to the device.
const TURNS: usize = 4;

/// A kernel and what it was built for.
#[derive(Debug)]
pub(super) struct Variant {
    pub meta: DecodeMeta,
    pub kernel: Arc<Kernel>,
    /// Blocks that the device holds at once.
    pub resident: usize,
    /// One block a multiprocessor.
    alone: bool,
}

#[derive(Debug)]
pub(super) struct Variants {
    /// The plan's own first.
    all: Vec<Variant>,
    /// Two smaller blocks for each of the own ones: they serve whole sequences that fill the device.
    halved: Option<usize>,
    /// One block a multiprocessor, for launches that have no more, and for whole sequences that two have no room for.
    lone: Option<usize>,
    deep: Option<usize>,
    /// For which sizes which of them serves, and the tokens that a warp takes.
    tuned: Vec<(Point, (usize, usize))>,
    /// Tokens that a warp takes where no tuning says it; 0: by the plan's rule.
    tokens: usize,
    note: String,
}

impl Variants {
    /// `kernel`: its name in a tuning.
    pub fn prepare(device: &Device, kernel: &str, meta: DecodeMeta, build: Build<'_>) -> Result<Self> {
        let source = build(&meta).map_err(|e| Error::Generate(e.to_string()))?;
        let found = tuning::find(device.name(), kernel, &tuning::hash(&source));
        let mut variants = Variants { all: vec![Variant::load(device, meta, Ok(source))?], halved: None, lone: None, deep: None, tuned: vec![], tokens: 0, note: String::new() };
        variants.halved = variants.also(device, kernels::halved(&meta), build)?;
        variants.lone = variants.also(device, kernels::lone(&meta), build)?;
        variants.deep = variants.also(device, kernels::deep(&meta), build)?;
        variants.add(device, &found, build);
        Ok(variants)
    }

    /// One kernel whatever the size.
    pub fn forced(device: &Device, meta: DecodeMeta, build: Build<'_>) -> Result<Self> {
        Ok(Variants { all: vec![Variant::load(device, meta, build(&meta))?], halved: None, lone: None, deep: None, tuned: vec![], tokens: 0, note: "own rules: its kernel was chosen".into() })
    }

    /// The place of one kernel more, if the device has room for it.
    fn also(&mut self, device: &Device, meta: Option<DecodeMeta>, build: Build<'_>) -> Result<Option<usize>> {
        let Some(m) = meta.filter(|m| *m == m.within(device.shared_bytes())) else { return Ok(None) };
        self.all.push(Variant::load(device, m, build(&m))?);
        Ok(Some(self.all.len() - 1))
    }

    /// Tokens that a warp takes where no tuning says it.
    pub fn take(&mut self, tokens: usize) {
        self.tokens = tokens;
    }

    /// A choice that cannot be built here is left out, and the note says so.
    fn add(&mut self, device: &Device, found: &Found, build: Build<'_>) {
        self.note.clone_from(&found.note);
        for &(at, choice) in &found.choices {
            match self.index_of(device, choice, build) {
                Ok(index) => self.tuned.push((at, (index, choice.tokens))),
                Err(why) => self.note += &format!("; {choice} left out: {why}"),
            }
        }
    }

    fn index_of(&mut self, device: &Device, choice: Choice, build: Build<'_>) -> Result<usize> {
        let meta = tuning::cut(self.all[0].meta, choice, device.shared_bytes()).ok_or_else(|| Error::unsupported("more shared memory than the device has"))?;
        if let Some(known) = self.all.iter().position(|v| v.meta == meta) {
            return Ok(known);
        }
        self.all.push(Variant::load(device, meta, build(&meta))?);
        Ok(self.all.len() - 1)
    }

    /// The kernel for a call of that size, and the tokens that a warp takes, 0: by the plan's rule.
    pub fn of(&self, at: Point) -> (&Variant, usize) {
        if let Some((_, (index, tokens))) = tuning::nearest(&self.tuned, at) {
            return (&self.all[*index], *tokens);
        }
        let own = &self.all[0];
        let of = |index: Option<usize>| index.filter(|_| self.tokens == 0).map(|i| &self.all[i]);
        let half = of(self.halved).filter(|v| kernels::fills(&v.meta, at.rows, at.tokens, v.resident));
        let lone = of(self.lone).filter(|v| kernels::scatters(&own.meta, &v.meta, at.rows, at.tokens, v.resident));
        let deep = of(self.deep).filter(|v| kernels::deepens(&own.meta, &v.meta, at.rows, at.tokens, [own.resident, v.resident]));
        (half.or(lone).or(deep).unwrap_or(own), self.tokens)
    }

    /// The plan's own.
    pub fn own(&self) -> &Variant {
        &self.all[0]
    }

    /// Where the choices come from, or why there are none.
    pub fn note(&self) -> &str {
        &self.note
    }
}

impl Variant {
    fn load(device: &Device, meta: DecodeMeta, source: std::result::Result<Source, Report>) -> Result<Variant> {
        let kernel = load(device, source)?;
        let each = kernel.attributes().blocks_per_multiprocessor.max(1) as usize;
        Ok(Variant { meta, kernel, resident: device.multiprocessors() * each, alone: each == 1 })
    }

    /// Whether the next launch may begin while so many blocks work: where they leave it no multiprocessor to crowd on. Else its blocks would come to lie two
    /// and two while others have none.
    pub fn hurries(&self, blocks: usize) -> bool {
        self.alone || 8 * blocks >= 7 * self.resident
    }

    /// Whether so many whole sequences' heads are a block each. More than run at once are where a multiprocessor has one block: the device's
    /// own order is 2 to 5 % faster there than turns of blocks. Where they are so many that short ones would have been better in
    /// bundles, or all must be short, they are counted.
    pub fn in_order(&self, most: usize, capacity: usize) -> bool {
        most <= self.resident || self.alone && most <= TURNS * self.resident && capacity > LEAF
    }
}
