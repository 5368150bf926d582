//! The PCA codec as its kernels read it: a page of a kv head is a block of 512 tokens, tiles of codes and behind them the block's own
//! maps, one for keys and one for values. See [`crate::kernels::pca`]; the newest tokens lie raw in another cache.
//!
//! What a page can hold: blocks of 512 tokens of one head, keys as attention meets them (`_post`) or before RoPE, preconditioned if that is wanted, any table of 1 to 4 bits, fitted ones by [`open_fitted`], up to 16
//! centres, a basis of each block's own or one for a stream (`_share`), outliers (`_t2`). Pooled heads, one basis for keys before RoPE and the
//! published defects it cannot.
//!
//! Bases that are shared lie in a page of their own, which the first entry of a sequence's row of the page table names: fitted ahead it
//! serves all sequences, or a sequence has its own.

mod fold;
mod frame;
mod layout;
mod turned;
mod turning;

use std::collections::BTreeMap;
use std::sync::{LazyLock, Mutex, PoisonError};

pub use fold::{Folded, Outlier};
pub use frame::{Columns, Frame};
pub use layout::PcaLayout;
pub use turned::{coordinate_at, factors_at, speeds_at, turned_bytes, units_at, zeros_at};
pub use turning::{Before, MAGIC, STEP, Turning, plain_speeds};

use super::error::PcaError;
use super::name::codec;
use super::settings::{Grouping, Settings, Table};
use super::stream::Coding;
use crate::codecs::Levels;
use crate::layout::TILE;
use crate::registry::CodecInfo;

/// Tokens of a block, and of a page.
pub const BLOCK: usize = 512;

/// Coordinates of a centre each way: as many as a token's number can name.
pub const WAYS: usize = 32;

/// Keys and values of a cache of such pages.
#[derive(Debug)]
pub struct PcaPages {
    pub name: String,
    pub k: Settings,
    pub v: Settings,
    /// The codes of both.
    pub halves: CodecInfo,
    /// Their tables, and the levels of those that were fitted to a model.
    tables: [&'static Levels; 2],
    fitted: [Option<Vec<f32>>; 2],
}

/// Everything that was opened; entries live as long as the program.
static OPENED: LazyLock<Mutex<BTreeMap<(String, [Vec<u32>; 2]), &'static PcaPages>>> = LazyLock::new(Mutex::default);

/// The codec of that name, kept for the rest of the program; why it has no pages; None for a name of another family.
pub fn open(name: &str) -> Option<Result<&'static PcaPages, PcaError>> {
    open_fitted(name, [None, None])
}

/// The same with levels of keys and of values that were fitted to a model, where the name says `_fitted`.
pub fn open_fitted(name: &str, levels: [Option<&[f32]>; 2]) -> Option<Result<&'static PcaPages, PcaError>> {
    let mut known = OPENED.lock().unwrap_or_else(PoisonError::into_inner);
    let key = (name.to_string(), levels.map(|levels| levels.unwrap_or_default().iter().map(|l| l.to_bits()).collect()));
    if let Some(found) = known.get(&key) {
        return Some(Ok(found));
    }
    let made = codec(name)?.and_then(|c| PcaPages::new(c.name, c.k, c.v, levels));
    Some(made.map(|made| {
        let made: &'static PcaPages = Box::leak(Box::new(made));
        known.insert(key, made);
        made
    }))
}

/// Whether the codec of that name has pages, once its tables are there.
pub fn has(name: &str) -> bool {
    matches!(codec(name), Some(Ok(c)) if fits(&c.k, true).is_ok() && fits(&c.v, false).is_ok())
}

impl PcaPages {
    fn new(name: String, k: Settings, v: Settings, levels: [Option<&[f32]>; 2]) -> Result<PcaPages, PcaError> {
        let mut fitted = [None, None];
        for (i, settings) in [&k, &v].into_iter().enumerate() {
            settings.check(BLOCK)?;
            fits(settings, i == 0)?;
            match (settings.table, levels[i]) {
                (Table::Fitted, None) => return Err(PcaError::Missing { what: "levels of its own" }),
                (Table::Fitted, Some(levels)) => fitted[i] = Some(levels.to_vec()),
                (_, None) => {}
                (_, Some(levels)) => return Err(PcaError::Setting { what: "the table of pages", is: format!("its name's, beside {} levels", levels.len()), wanted: "_fitted".into() }),
            }
        }
        let tables = [table(&k, levels[0])?, table(&v, levels[1])?];
        Ok(PcaPages { name, k, v, halves: CodecInfo::pair(tables[0], tables[1]), tables, fitted })
    }

    /// Whether all blocks of keys, and of values, share a basis.
    pub fn shared(&self) -> [bool; 2] {
        [self.k.share_basis, self.v.share_basis]
    }

    /// Pages that a row of the table names before those of blocks.
    pub fn lead(&self) -> usize {
        usize::from(self.shared() != [false; 2])
    }

    /// Outliers that a tile's keys and its values have room for: half as many again as numbers of a Gaussian need, in whole numbers a token.
    pub fn outliers(&self, d: usize) -> [usize; 2] {
        let of = |(settings, rank): (&Settings, usize)| {
            let each = match settings.outliers {
                None => return 0,
                Some(t) if t < 2.25 => 16,
                Some(t) if t < 2.75 => 64,
                Some(_) => 128,
            };
            (TILE * rank / each).max(TILE)
        };
        let ranks = self.ranks(d);
        [of((&self.k, ranks[0])), of((&self.v, ranks[1]))]
    }

    /// Coordinates of a residual of rows of `d` numbers, keys and values: a power of two that values' operands are made of.
    pub fn ranks(&self, d: usize) -> [usize; 2] {
        [&self.k, &self.v].map(|settings| settings.most(d).next_power_of_two().max(64))
    }

    /// The page of one kv head: 512 keys and values `[token, d]`; `bases`: a page of [`Self::fit_bases`] where they are shared. The work of
    /// a host; a block is known once it is full.
    pub fn encode(&self, bases: Option<&[u8]>, keys: &[f32], values: &[f32], d: usize) -> Result<Vec<u8>, PcaError> {
        if self.k.before_rope && self.k.precondition {
            return Err(PcaError::Missing { what: "the second moments of queries" });
        }
        self.encode_before(bases, keys, values, d, &Before { speeds: &plain_speeds(self.k.theta, d), whitening: None })
    }

    /// Likewise, of keys before RoPE: how they turn, and what they are preconditioned by.
    pub fn encode_before(&self, bases: Option<&[u8]>, keys: &[f32], values: &[f32], d: usize, before: &Before) -> Result<Vec<u8>, PcaError> {
        let layout = PcaLayout::of(self, d);
        let mut page = vec![0; layout.page_bytes()];
        for (i, (settings, rows)) in [(&self.k, keys), (&self.v, values)].into_iter().enumerate() {
            let frame = match bases.filter(|bases| bases.len() == page.len()) {
                _ if !settings.share_basis => None,
                Some(bases) => Some(layout.read_frame(&bases[layout.frame_at(i)..], i)),
                None => return Err(PcaError::Missing { what: NO_BASES }),
            };
            let coding = Coding::new(settings, d, self.fitted[i].as_deref())?;
            layout.write(&mut page, i, &Folded::fit(&coding, self.tables[i], rows, self.ranks(d)[i], frame, layout.outliers[i], Some(before).filter(|_| i == 0 && self.k.before_rope))?);
        }
        Ok(page)
    }

    /// The page of the bases of a kv head that all blocks share, fitted to keys and values `[token, d]`, as many as there are.
    pub fn fit_bases(&self, keys: &[f32], values: &[f32], d: usize) -> Result<Vec<u8>, PcaError> {
        let layout = PcaLayout::of(self, d);
        let mut page = vec![0; layout.page_bytes()];
        for (i, (settings, rows)) in [(&self.k, keys), (&self.v, values)].into_iter().enumerate().filter(|(_, (settings, _))| settings.share_basis) {
            if rows.len() < 2 * d || rows.len() % d > 0 {
                return Err(PcaError::Setting { what: "what shared bases are fitted to", is: format!("{} numbers", rows.len()), wanted: format!("rows of {d}, at least two") });
            }
            let rows = Coding::new(settings, d, self.fitted[i].as_deref())?.sound(rows)?;
            let (frame, _) = Frame::fit(settings, self.tables[i].step(), &rows, d, self.ranks(d)[i])?;
            layout.write_frame(&mut page[layout.frame_at(i)..], i, &frame);
        }
        Ok(page)
    }
}

const NO_BASES: &str = "the page of its shared bases";

/// Standard deviations that a level and what an outlier adds to it reach together.
const REACH: f32 = 5.0;

fn table(settings: &Settings, fitted: Option<&[f32]>) -> Result<&'static Levels, PcaError> {
    let levels = settings.levels(fitted)?;
    let reach = settings.outliers.map_or(0.0, |_| REACH - levels.iter().fold(0.0_f32, |top, l| top.max(l.abs())));
    Ok(Box::leak(Box::new(Levels::reaching(&levels, reach))))
}

/// Whether pages can hold what `settings` make.
fn fits(s: &Settings, keys: bool) -> Result<(), PcaError> {
    let all = [
        (s.block == BLOCK, "the block of pages", s.block.to_string(), "_n512"),
        (s.grouping == Grouping::Head, "the grouping of pages", "pooled heads".into(), "_head"),
        (!keys || !s.before_rope || !s.share_basis, "the basis of keys before RoPE", "shared".into(), "_own for keys: their integers have a unit a block"),
        (s.centres <= WAYS / 2, "the centres of pages", s.centres.to_string(), "at most 16"),
        (s.raw_layers.is_empty(), "the layers of pages", "raw".into(), "no _raw: give those layers a cache of bf16"),
        (!s.compat, "compat of pages", "on".into(), "names without _compat"),
    ];
    match all.into_iter().find(|one| !one.0) {
        Some((_, what, is, wanted)) => Err(PcaError::Setting { what, is, wanted: wanted.into() }),
        None => Ok(()),
    }
}
