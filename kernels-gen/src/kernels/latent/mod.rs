//! Kernels for rows of one head that is key and value at once: see [`crate::latent`].

pub mod decode;
pub mod finish;
pub mod join;
pub mod lanes;
pub mod lists;
pub mod query;
pub mod store;
pub mod weigh;

use kernel_dsl::{Report, Source};

use crate::latent::Format;
use decode::DecodeMeta;
use join::JoinMeta;
use lanes::RowMeta;
use store::StoreMeta;

/// Query heads of a block of decode, and its threads.
pub const HEADS: usize = 64;
pub const WARPS: usize = 16;
pub const THREADS: usize = 32 * WARPS;

/// Bytes of 32 numbers of f32 and what keeps their lines apart, twice: a group of 64 where they wait in shared memory.
pub const LINE: usize = 272;

/// Decode of a format; `whole`: one part a token, finished in place, else parts for the join; `leaves`: 2 where a block may have the
/// shared memory, else 1. Grid: [splits, tokens, heads / 64].
pub fn decode(format: &Format, whole: bool, leaves: usize) -> Result<Source, String> {
    let rows = RowMeta::of(format)?;
    let nope = codec_of(format)?;
    shown(decode::latent_decode::build(&DecodeMeta { rows, whole, leaves }, nope).and_then(|p| Source::of(&p)))
}

/// Folds parts of outputs. Grid: [tokens, heads / 8, 1].
pub fn join() -> Result<Source, Report> {
    Source::of(&join::latent_join::build(&JoinMeta)?)
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
