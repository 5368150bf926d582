//! The shipped codecs by name, with their types erased for hosts.

use std::fmt;

use crate::codec::{Codec, Lane};
use crate::codecs::{Bf16, E8Q38, E8W4, Int4};
use crate::kernels::Build;
use crate::layout::Layout;

/// Head dims that a cache can be written with.
pub const HEAD_DIMS_STORE: [usize; 4] = [64, 128, 256, 512];

/// A [`Codec`] as data; made by [`CodecInfo::of`].
#[derive(Clone, Copy, Debug)]
pub struct CodecInfo {
    pub name: &'static str,
    pub bits: usize,
    pub sides: usize,
    pub lane: Lane,
    /// Decode promises the same bits on every device: its cross-lane sums are integers.
    pub exact: bool,
    pub zero2: i32,
    pub rotate: bool,
    pub unit: bool,
    pub bytewise: bool,
    pub limit: f32,
    pub side: fn(f32, f32) -> [f32; 2],
    pub encode: fn([f32; 8], [f32; 2]) -> [u32; 4],
    pub decode: fn([u32; 4]) -> [u32; 4],
    pub scale: fn([f32; 2]) -> f32,
    /// The fused kernels of this codec.
    pub build: Build,
}

static CODECS: [CodecInfo; 4] =
    [CodecInfo::of::<Bf16>(), CodecInfo::of::<Int4>(), CodecInfo::of::<E8W4>(), CodecInfo::of::<E8Q38>()];

/// Every shipped codec.
pub fn codecs() -> &'static [CodecInfo] {
    &CODECS
}

/// The codec of that name.
pub fn codec(name: &str) -> Result<&'static CodecInfo, UnknownCodec> {
    CODECS.iter().find(|c| c.name == name).ok_or_else(|| UnknownCodec { name: name.to_string() })
}

impl CodecInfo {
    pub const fn of<C: Codec>() -> CodecInfo {
        CodecInfo {
            name: C::NAME,
            bits: C::BITS,
            sides: C::SIDES,
            lane: C::LANE,
            exact: matches!(C::LANE, Lane::U8),
            zero2: C::ZERO2,
            rotate: C::ROTATE,
            unit: C::UNIT,
            bytewise: C::BYTEWISE,
            limit: C::LIMIT,
            side: C::side,
            encode: C::encode,
            decode: C::decode,
            scale: C::scale,
            build: Build::of::<C>(),
        }
    }

    /// Where codes and sides of this codec lie in a tile of rows of `d` coordinates.
    pub fn layout(&self, d: usize) -> Layout {
        Layout { bits: self.bits, sides: self.sides, bytewise: self.bytewise, d }
    }

    pub fn tile_bytes(&self, d: usize) -> usize {
        self.layout(d).tile_bytes()
    }

    /// Bits a cached element takes in memory, sides included.
    pub fn stored_bits_per_element(&self, d: usize) -> f64 {
        (8 * self.tile_bytes(d)) as f64 / (64 * d) as f64
    }
}

/// A codec name that is not in the registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownCodec {
    pub name: String,
}

impl fmt::Display for UnknownCodec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut known: Vec<&str> = CODECS.iter().map(|c| c.name).collect();
        known.sort_by_key(|k| edit_distance(&self.name, k));
        write!(f, "unknown codec `{}`; known codecs, nearest first: {}", self.name, known.join(", "))
    }
}

impl std::error::Error for UnknownCodec {}

/// Levenshtein distance by the two-row recurrence.
fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, &cb) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(ca != cb);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}
