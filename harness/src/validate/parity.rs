//! Whether two readers of the same cache agree: bytes after storing, and attention over ragged lengths.

use kernels_gen::reference::{CacheShape, decode};
use kernels_gen::registry::CodecInfo;

use super::rows::Family;
use crate::attention::{Geometry, Pages};
use crate::backend::Backend;
use crate::error::Result;

pub const D: usize = 128;
const GEOMETRY: Geometry = Geometry { layers: 1, heads: 8, kv_heads: 2, d: D, scale: 0.088_388_35 };
const TOKENS: usize = 1100;
const LENGTHS: [i32; 10] = [0, 1, 31, 32, 33, 64, 500, 1024, 1025, TOKENS as i32];

/// What a backend gives, or the scalar reference in its plainest form.
pub struct Reading {
    pub bytes: Vec<u8>,
    /// [query, head, d]
    pub out: Vec<f32>,
    /// bytes that the backend allocated for the cache, in bits for each element that fits in it
    pub bits: f64,
}

/// Stores anisotropic rows and attends with queries of every length.
pub fn read(backend: &dyn Backend, codec: &'static CodecInfo) -> Result<Reading> {
    let (pages, [q, k, v]) = (Pages::new(TOKENS, 64), rows());
    let mut cache = backend.cache(codec, &GEOMETRY, &pages)?;
    cache.store(0, 0, &k, &v, &pages)?;
    let out = cache.attend(0, &q, &LENGTHS, &pages)?;
    let elements = pages.count() * pages.page_tokens * GEOMETRY.kv_heads * 2 * GEOMETRY.d;
    let bits = 8.0 * cache.allocated() as f64 / elements as f64;
    Ok(Reading { bytes: cache.bytes(0)?.into_owned(), out, bits })
}

/// The plain scalar decode over the same bytes.
pub fn plain(codec: &CodecInfo, bytes: &[u8]) -> Vec<f32> {
    let (pages, [q, ..]) = (Pages::new(TOKENS, 64), rows());
    let shape = CacheShape { pages: pages.count(), page_tokens: 64, kv_heads: GEOMETRY.kv_heads, d: GEOMETRY.d };
    let table = pages.table.repeat(LENGTHS.len());
    decode(codec, &shape, bytes, &q, GEOMETRY.heads, &table, pages.count(), &LENGTHS, GEOMETRY.scale).out
}

fn rows() -> [Vec<f32>; 3] {
    let Geometry { heads, kv_heads, d, .. } = GEOMETRY;
    [Family::Gaussian.rows(LENGTHS.len() * heads, d, 5), Family::Anisotropic.rows(TOKENS * kv_heads, d, 6), Family::Gaussian.rows(TOKENS * kv_heads, d, 7)]
}

/// None if the bytes are equal, else a sentence that says where they first differ.
pub fn differing_byte(ours: &[u8], theirs: &[u8]) -> Option<String> {
    let count = ours.iter().zip(theirs).filter(|(a, b)| a != b).count() + ours.len().abs_diff(theirs.len());
    let first = ours.iter().zip(theirs).position(|(a, b)| a != b).unwrap_or(ours.len().min(theirs.len()));
    let shown = |bytes: &[u8]| bytes.get(first).map_or("nothing".into(), |b| format!("{b:#04x}"));
    (count > 0).then(|| format!("{count} of {} cache bytes differ, first byte {first}: {} against {}", theirs.len(), shown(ours), shown(theirs)))
}

/// As above for attention. Exact codecs must agree in every bit, others within `tolerance` of the largest value.
pub fn differing_value(ours: &[f32], theirs: &[f32], tolerance: Option<f32>) -> Option<String> {
    let largest = theirs.iter().fold(0.0_f32, |a, b| a.max(b.abs()));
    let differs = |(a, b): (&f32, &f32)| match tolerance {
        None => a.to_bits() != b.to_bits(),
        Some(tolerance) => (a - b).abs().partial_cmp(&(tolerance * largest)) != Some(std::cmp::Ordering::Less),
    };
    let count = ours.iter().zip(theirs).filter(|pair| differs(*pair)).count();
    let first = ours.iter().zip(theirs).position(differs)?;
    let (row, at) = (first / GEOMETRY.d, first % GEOMETRY.d);
    let (query, head) = (row / GEOMETRY.heads, row % GEOMETRY.heads);
    let (a, b) = (ours[first], theirs[first]);
    Some(format!("{count} of {} values differ, first at length {}, head {head}, dim {at}: {a:e} ({:#010x}) against {b:e} ({:#010x})", theirs.len(), LENGTHS[query], a.to_bits(), b.to_bits()))
}
