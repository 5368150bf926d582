//! The PCA codec as its kernels read it: a page of a kv head is a block of 512 tokens, tiles of codes and behind them the block's own
//! maps, one for keys and one for values. See [`crate::kernels::pca`]; the newest tokens lie raw in another cache.
//!
//! What a page can hold: blocks of 512 tokens of one head, keys as attention meets them (`_post`), any table of 1 to 4 bits, up to 16
//! centres, a basis of each block's own. Outliers, a shared basis, pooled heads and the published defects it cannot.

mod fold;
mod layout;

use std::collections::BTreeMap;
use std::sync::{LazyLock, Mutex, PoisonError};

pub use fold::Folded;
pub use layout::PcaLayout;

use super::error::PcaError;
use super::name::codec;
use super::settings::{Grouping, Settings, Table};
use crate::codecs::Levels;
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
    /// Their tables.
    tables: [&'static Levels; 2],
}

/// Everything that was opened by name; entries live as long as the program.
static OPENED: LazyLock<Mutex<BTreeMap<String, &'static PcaPages>>> = LazyLock::new(Mutex::default);

/// The codec of that name, kept for the rest of the program; why it has no pages; None for a name of another family.
pub fn open(name: &str) -> Option<Result<&'static PcaPages, PcaError>> {
    let mut known = OPENED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(found) = known.get(name) {
        return Some(Ok(found));
    }
    let made = codec(name)?.and_then(|c| PcaPages::new(c.name, c.k, c.v));
    Some(made.map(|made| {
        let made: &'static PcaPages = Box::leak(Box::new(made));
        known.insert(name.to_string(), made);
        made
    }))
}

/// Whether the codec of that name has pages.
pub fn has(name: &str) -> bool {
    matches!(open(name), Some(Ok(_)))
}

impl PcaPages {
    fn new(name: String, k: Settings, v: Settings) -> Result<PcaPages, PcaError> {
        for (settings, keys) in [(&k, true), (&v, false)] {
            settings.check(BLOCK)?;
            fits(settings, keys)?;
        }
        let table = |settings: &Settings| Ok::<&'static Levels, PcaError>(Box::leak(Box::new(Levels::new(&settings.levels(None)?))));
        let tables = [table(&k)?, table(&v)?];
        Ok(PcaPages { name, k, v, halves: CodecInfo::pair(tables[0], tables[1]), tables })
    }

    /// Coordinates of a residual of rows of `d` numbers, keys and values: a power of two that values' operands are made of.
    pub fn ranks(&self, d: usize) -> [usize; 2] {
        [&self.k, &self.v].map(|settings| settings.most(d).next_power_of_two().max(64))
    }

    /// The page of one kv head: 512 keys and values `[token, d]`. The work of a host; a block is known once it is full.
    pub fn encode(&self, keys: &[f32], values: &[f32], d: usize) -> Result<Vec<u8>, PcaError> {
        let layout = PcaLayout::of(self, d);
        let mut page = vec![0; layout.page_bytes()];
        for (i, (settings, rows)) in [(&self.k, keys), (&self.v, values)].into_iter().enumerate() {
            let folded = Folded::fit(settings, self.tables[i].step(), rows, d, self.ranks(d)[i])?;
            layout.write(&mut page, i, &folded);
        }
        Ok(page)
    }
}

/// Whether pages can hold what `settings` make.
fn fits(s: &Settings, keys: bool) -> Result<(), PcaError> {
    let all = [
        (s.block == BLOCK, "the block of pages", s.block.to_string(), "_n512"),
        (s.grouping == Grouping::Head, "the grouping of pages", "pooled heads".into(), "_head"),
        (!keys || !s.before_rope, "the place of keys in pages", "before RoPE".into(), "_post: a page's keys are those that attention meets"),
        (!s.share_basis, "the basis of pages", "shared by a stream".into(), "_own"),
        (s.outliers.is_none(), "the outliers of pages", "kept".into(), "_t0"),
        (s.table != Table::Fitted, "the table of pages", "fitted to a model".into(), "_gauss, _ds or _qwen"),
        (s.centres <= WAYS / 2, "the centres of pages", s.centres.to_string(), "at most 16"),
        (s.raw_layers.is_empty(), "the layers of pages", "raw".into(), "no _raw: give those layers a cache of bf16"),
        (!s.compat, "compat of pages", "on".into(), "names without _compat"),
    ];
    match all.into_iter().find(|one| !one.0) {
        Some((_, what, is, wanted)) => Err(PcaError::Setting { what, is, wanted: wanted.into() }),
        None => Ok(()),
    }
}
