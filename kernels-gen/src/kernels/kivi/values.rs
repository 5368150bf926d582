//! Values of a tile by bands of 32 channels, each under steps of its own: weights become integers once a band.

use super::super::decode_attention::DecodeMeta;
use super::super::keys::low_half;
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

#[device]
pub fn either(a: bool, b: bool) -> bool {
    a | b
}
