//! What turns a row into what its readers see: a shipped codec, or a published method that ours are measured against.

use kernels_gen::kivi::Kivi;
use kernels_gen::latent::{self, DIM};
use kernels_gen::pca;
use kernels_gen::preset::{Preset, preset};
use kernels_gen::registry::{CodecInfo, Half};
use rayon::prelude::*;

use super::{Blocks, Fitted, Own, Published, Sizes};
use crate::calibrate::Without;
use crate::error::Result;

/// Which half of the cache.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stream {
    K,
    V,
}

impl Stream {
    pub const ALL: [Stream; 2] = [Stream::K, Stream::V];

    pub fn name(self) -> &'static str {
        if self == Stream::K { "k" } else { "v" }
    }

    /// The codec of that half.
    pub fn of(self, codec: &'static CodecInfo) -> &'static Half {
        if self == Stream::K { &codec.k } else { &codec.v }
    }
}

/// A calibrated codec, whole or without one of its parts.
#[derive(Debug)]
pub struct Variant {
    pub name: String,
    pub preset: &'static Preset,
    pub without: Option<Without>,
}

/// Before the number of a preset: its bands on plain principal components, fitted ahead.
const STATIC: &str = "pca_static_";

impl Variant {
    /// The PCA codec in the form that kernels take: one basis for every layer and kv head, folded into queries and outputs.
    /// It is the preset of that many bits with all errors counted alike.
    pub fn of_static(name: &str) -> Option<&'static Variant> {
        let preset = preset(&format!("kvfuse-{}", name.strip_prefix(STATIC)?))?;
        Some(Box::leak(Box::new(Variant { name: name.into(), preset, without: Some(Without::Metric) })))
    }

    /// Kept for the rest of the program.
    pub fn of(preset: &'static Preset, without: Option<Without>) -> &'static Variant {
        let name = without.map_or(preset.name.into(), |part| format!("{}:{}", preset.name, part.name()));
        Box::leak(Box::new(Variant { name, preset, without }))
    }
}

#[derive(Clone, Copy, Debug)]
pub enum Coder {
    Codec(&'static CodecInfo),
    /// a calibrated codec; without maps until the model is known
    Preset(&'static Variant, Option<&'static Fitted>),
    /// blocks under principal components of their own; without what a model adds until it is known
    Pca(&'static pca::Codec, Option<&'static Blocks>),
    /// keys by channel, values by token, the latest tokens raw
    Kivi(&'static Kivi),
    /// as others define it, simulated
    Published(&'static Published),
    /// rows of DeepSeek-V4's architecture, which serve all heads
    Latent(&'static latent::Format),
    /// not coded at all; engines keep such rows as bf16
    Raw,
}

/// Bits of an element that is not coded.
pub const RAW_BITS: f64 = 16.0;
/// Name of `Coder::Raw`.
pub const RAW: &str = "raw";

/// What engines call an fp8 cache.
pub const FP8: &str = "fp8_e4m3_64";

impl Coder {
    /// Blocks are fitted once, to the prefix: what comes after a snapshot stays raw, and is no part of what was stored.
    pub fn leaves_raw(&self, own: Own, start: usize) -> bool {
        matches!(self, Coder::Pca(..)) && own == Own::Raw && start > 0
    }

    pub fn name(&self) -> &'static str {
        match self {
            Coder::Codec(codec) => codec.name,
            Coder::Preset(variant, _) => &variant.name,
            Coder::Pca(codec, _) => &codec.name,
            Coder::Kivi(codec) => &codec.name,
            Coder::Published(format) => &format.name,
            Coder::Latent(format) => format.name(),
            Coder::Raw => RAW,
        }
    }

    /// How a layer's cache is coded; None for what is simulated.
    pub fn codec(&self, layer: usize) -> Option<&'static CodecInfo> {
        match self {
            Coder::Codec(codec) => Some(codec),
            Coder::Preset(_, Some(fitted)) => Some(fitted.layer(layer).codec),
            Coder::Preset(variant, None) => variant.preset.codec().ok(),
            Coder::Pca(..) | Coder::Kivi(_) | Coder::Published(_) | Coder::Latent(_) | Coder::Raw => None,
        }
    }

    /// Of an element of one half of a layer, scales included; NaN where only the rows decide.
    pub fn stored_bits(&self, half: Stream, layer: usize, d: usize) -> f64 {
        let simulated = match self {
            Coder::Raw => RAW_BITS,
            Coder::Published(format) => format.row_bits(d) as f64 / d as f64,
            Coder::Latent(format) => (8 * format.row_bytes()) as f64 / d as f64,
            _ => f64::NAN,
        };
        self.codec(layer).map_or(simulated, |codec| (8 * half.of(codec).vector_bytes(d)) as f64 / d as f64)
    }

    /// Keys or values `[token, kv head, d]` of a layer, the first token at position `start`, coded and decoded again.
    /// Sizes are those of a codec that has no fixed ones.
    pub fn round_trip(&self, half: Stream, (layer, start): (usize, usize), rows: &[f32], d: usize) -> Result<(Vec<f32>, Sizes)> {
        let fixed = |rows| Ok((rows, Sizes::default()));
        match self {
            Coder::Preset(_, Some(fitted)) => return fixed(fitted.round_trip(half, layer, start, rows)),
            Coder::Pca(_, Some(blocks)) => return blocks.round_trip(half, layer, start, rows),
            _ => {}
        }
        let row = |x: &[f32]| match self {
            Coder::Codec(codec) => half.of(codec).decode_row(&half.of(codec).encode_row(x), d),
            Coder::Published(format) => format.round_trip(x),
            Coder::Latent(format) => x.first_chunk::<DIM>().map_or(vec![f32::NAN; x.len()], |x| format.round_trip(x).to_vec()),
            Coder::Raw => x.to_vec(),
            // no number may come of a codec that lacks what was fitted to the model, or that is no matter of single rows
            Coder::Preset(..) | Coder::Pca(..) | Coder::Kivi(_) => vec![f32::NAN; x.len()],
        };
        fixed(rows.par_chunks(d).flat_map_iter(row).collect())
    }
}
