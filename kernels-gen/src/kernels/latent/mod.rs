//! Kernels for rows of one head that is key and value at once: see [`crate::latent`].

pub mod decode;
pub mod finish;
pub mod join;
pub mod lanes;
pub mod lists;
pub mod query;
pub mod store;
pub mod values;
pub mod weigh;

use kernel_dsl::{Report, Source};

use crate::latent::Format;
use decode::DecodeMeta;
use join::JoinMeta;
use lanes::RowMeta;
use store::StoreMeta;

/// A block of decode: its query heads, four for each of its warps, and the leaves whose bytes lie in shared memory at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    pub heads: usize,
    pub warps: usize,
    pub leaves: usize,
}

impl Cut {
    /// All heads that share a row's bytes, and the next leaf's beside this one's.
    pub const TWO: Cut = Cut { heads: 64, warps: 16, leaves: 2 };
    pub const ONE: Cut = Cut { leaves: 1, ..Cut::TWO };
    /// Where a block may have no more than 99 KiB of shared memory: queries of a quarter of the heads beside a leaf.
    pub const FEW: Cut = Cut { heads: 16, warps: 4, leaves: 1 };

    /// The first of them that a block's `shared` bytes hold. No choice changes a bit of a result.
    pub fn within(shared: usize) -> Cut {
        if shared >= 220 * 1024 {
            Cut::TWO
        } else if shared >= 160 * 1024 {
            Cut::ONE
        } else {
            Cut::FEW
        }
    }
}

/// Bytes of 32 numbers of f32 and what keeps their lines apart, twice: a group of 64 where they wait in shared memory.
pub const LINE: usize = 272;

/// Decode of a format; `whole`: one part a token, finished in place, else parts for the join. Grid: [splits, tokens, heads
/// / those of the cut].
pub fn decode(format: &Format, whole: bool, cut: Cut) -> Result<Source, String> {
    let rows = RowMeta::of(format)?;
    let nope = codec_of(format)?;
    shown(decode::latent_decode::build(&DecodeMeta { rows, whole, cut }, nope).and_then(|p| Source::of(&p)))
}

/// Folds parts of outputs that decode of that cut left. Grid: [tokens, heads / 8, 1].
pub fn join(cut: Cut) -> Result<Source, Report> {
    Source::of(&join::latent_join::build(&JoinMeta { heads: cut.heads })?)
}

/// Codes rows. Grid: [rows / 32, 1, 1].
pub fn store(format: &Format) -> Result<Source, String> {
    let (rows, nope) = (RowMeta::of(format)?, codec_of(format)?);
    let Some(i) = format.integers() else { return Err(lanes::refused(format)) };
    shown(store::latent_store::build(&StoreMeta::of(rows, i), nope).and_then(|p| Source::of(&p)))
}

fn shown(source: Result<Source, Report>) -> Result<Source, String> {
    source.map_err(|report| report.to_string())
}

fn codec_of(format: &Format) -> Result<&'static dyn crate::codec::Codec, String> {
    format.integers().map(|i| i.nope).ok_or_else(|| lanes::refused(format))
}
