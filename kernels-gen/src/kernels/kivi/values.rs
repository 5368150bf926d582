//! Values of a tile by bands of 32 channels, each under steps of its own: weights become integers once a band.

use super::super::decode_attention::DecodeMeta;
use super::super::keys::low_half;
use super::super::softmax::fused;
use super::super::units::{counts, misfits};
use super::super::values::weights;
use kernel_dsl::prelude::*;

/// (step, least) of a band's values, one pair a token.
#[device]
pub fn pairs_of(m: &DecodeMeta, tokens: &Page, band: usize) -> Tile<u32> {
    let at = m.sides_at + 4 * m.d + 128 * band;
    if m.parts == 2 { tokens.pairs::<u32>(at, 4) } else { tokens.rows::<u32>(at, 4, 32) }
}

/// Weights times a band's steps.
#[device]
pub fn weighted(m: &DecodeMeta, tokens: &Page, band: usize, p: &Tile<f32>) -> Tile<f32> {
    p * &pairs_of(m, tokens, band).map(low_half)
}

/// Where integer weights do not fit their unit.
#[device]
pub fn misfit(m: &DecodeMeta, w: &Tile<i32>) -> Tile<bool> {
    w.map2(&w.map(counts).any_rows(m.parts), misfits)
}

#[device]
pub fn either(a: bool, b: bool) -> bool {
    a | b
}

#[device]
pub fn never(x: i32) -> bool {
    x < 0_i32
}

/// With more heads a band's output, under a unit of the tile's own.
#[device]
pub fn weighed_band(values: &Tile<u8>, pv: Tile<f32>, out: &Tile<f32>) -> Tile<f32> {
    let w = weights(pv);
    (mma(values, &w.0, 0_i32) * 256_i32 + mma(values, &w.1, 0_i32)).cast::<f32>().map3(&w.3, out, fused)
}
