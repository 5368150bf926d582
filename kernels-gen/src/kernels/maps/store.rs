//! Store of a calibrated codec: rows are mapped and coded in one kernel, their coordinates never leave the block.
//!
//! Keys are turned back to the start of their segment; rows become integers; each warp makes 16 coordinates of all 32
//! tokens at a time on the tensor core; then the plain store's threads choose scales and code.
//! Cost: reads d elements a row and 2 d^2 bytes of matrix a block; 3 d^2 byte products a row.

use super::super::desk::Desk;
use super::super::held::{code_held_keys, code_held_values, mapped_at, mapped_line, search_held};
use super::super::place::put_known;
use super::super::query::finite;
use super::super::rows::raw;
use super::super::search::search_sides;
use super::super::store::{StoreMeta, code_keys, code_narrow_keys, code_values, finish};
use super::{MAGIC, halves_of, large, matrix_at, mean_at, per_unit, turned, unit_of, worth_at};
use crate::codec::Codec;
use crate::kernels::SEGMENT;
use kernel_dsl::prelude::*;

/// Columns of a matrix that a warp takes at a time: both parts of so many stay in registers.
pub const STORED: usize = 16;

/// The grid is the plain store's.
#[kernel]
pub fn store_mapped<T: Float>(
    m: StoreMeta,
    kc: &[&dyn Codec], // one a band
    vc: &[&dyn Codec],
    k: &Global<T>,            // [tokens, kv_heads, d], strided
    v: &Global<T>,            // likewise
    positions: &Global<i32>,  // [tokens], from the start of a token's sequence
    slots: &Global<i64>,      // [tokens]; below 0: padding
    turns: &Global<f32>,      // [segments, 2, d / 2]: cosines, sines
    maps: &Global<i8>,        // a layer's, as `preset::LayerMaps::packed` has them
    scales: &Global<f32>,     // likewise
    cache: &mut Global<u8>,   // [pages, kv_heads, block]
    status: &mut Global<i32>, // bad slot, bad page, bad length, where
    tokens: i32,
    kv_heads: i32,
    segments: i32,
    slot_count: i64,
    k_token_stride: i64,
    k_head_stride: i64,
    v_token_stride: i64,
    v_head_stride: i64,
) {
    after_previous();
    release_next();
    let (first, head, kind) = (block_id(0) * 32_i32, block_id(1), block_id(2));
    let (mut desk, mut codes, mut ints, mut units) = mapped_desk(&m);
    for i in threads(128) {
        // Four threads a row, one of which looks up its slot while the row is on its way.
        let (r, j) = (i >> 2_u32, i & 3_i32);
        let token = (first + r).min(tokens - 1_i32);
        let (position, slot) = (positions.at(token), if first + r < tokens { slots.at(token) } else { -1_i64 });
        let known = (position >= 0_i32) & (position / (SEGMENT as i32) < segments);
        let mean = mean_at(kind, kv_heads, head, m.d);
        if kind == 0_i32 {
            let turn = (if known { position / SEGMENT as i32 } else { 0_i32 }) as i64 * m.d as i64;
            let row = raw::<T>(k, (token as i64 * k_token_stride + head as i64 * k_head_stride) * m.elem as i64, j, m.d, m.elem);
            centre(turned(row, turns, turn, true, j, m.d), scales, mean, i, &mut desk, m.d);
        } else {
            let row = raw::<T>(v, (token as i64 * v_token_stride + head as i64 * v_head_stride) * m.elem as i64, j, m.d, m.elem);
            centre(turned(row, turns, 0_i64, false, j, m.d), scales, mean, i, &mut desk, m.d);
        }
        if j == 0_i32 {
            put_known(known, slot, slot_count, kv_heads, head, m.page_tokens, m.tile_bytes, r, token, &mut desk.tiles, &mut desk.places, status);
        }
    }
    code_mapped(&m, kc, vc, maps, scales, cache, &mut desk, &mut codes, &mut ints, &mut units, kind, head, kv_heads);
}

/// A block's desk and room for code words; 32 rows as integers, and what these are worth. Where searches hold rows, code words take the integers' place.
#[device]
pub fn mapped_desk(m: &StoreMeta) -> (Desk, Shared<u32>, Shared<u32>, Shared<f32>) {
    let rows = shared::<u8>(if m.held[0] { 32 * mapped_line() } else { 128 * m.padded() });
    let ints = shared::<u32>(8 * (2 * m.d + 16));
    let tops = shared::<f32>(32 * 4);
    let units = shared::<f32>(32);
    let sides = shared::<f32>(32 * 4);
    let tails = shared::<u32>(1);
    let energies = shared::<i32>(1);
    let codes = shared::<u32>(if m.held[0] { 1 } else { m.kept });
    let tiles = shared::<i64>(32);
    let places = shared::<u32>(32);
    // Nobody wants squares of coordinates.
    (Desk { rows, squares: shared::<f32>(0), tops, energies, sides, tails, tiles, places, held: by_turn::<f32>(128, m.d / 4) }, codes, ints, units)
}

/// Centred rows through what is left: integers, maps, scales and codes.
#[device]
#[allow(clippy::too_many_arguments)]
pub fn code_mapped(
    m: &StoreMeta,
    kc: &[&dyn Codec],
    vc: &[&dyn Codec],
    maps: &Global<i8>,
    scales: &Global<f32>,
    cache: &mut Global<u8>,
    desk: &mut Desk,
    codes: &mut Shared<u32>,
    ints: &mut Shared<u32>,
    units: &mut Shared<f32>,
    kind: i32,
    head: i32,
    kv_heads: i32,
) {
    for i in threads(128) {
        split(&desk.held, &desk.tops, ints, units, i, m.d);
    }
    for w in warps(m.warps) {
        let line = 2 * m.d + 16;
        for column in strided(STORED as i32 * w, m.d as i32, STORED * m.warps) {
            let at = matrix_at(kind, kv_heads, head, column, m.d);
            let left: Tile<i8> = maps.packed_left::<i8>(at, STORED, m.d);
            let small: Tile<i8> = maps.packed_left::<i8>(at + (m.d * m.d) as i64, STORED, m.d);
            let worth = scales.rows(worth_at(kind, kv_heads, head, m.d) + column as i64, 1, STORED);
            for part in 0..4 {
                let high: Tile<i8> = ints.operand::<i8>(8 * part * line, line, 8, m.d);
                let sum = mma(&small, &high, &large(&left, &high, &ints.operand::<i8>(8 * part * line + m.d, line, 8, m.d)));
                let y = sum.cast::<f32>() * &worth * &units.cols(8 * part, 1, 8);
                if m.held[0] {
                    // Levels end where a box does, and so does what pulls.
                    desk.rows.save_acc::<f32>(mapped_at((8 * part) as i32, column / 32_i32) + column % 32_i32 * 4_i32, 4, mapped_line(), 8, &y);
                } else {
                    desk.rows.save_acc::<f32>(column * 4_i32 + (8 * part * 4 * m.padded()) as i32, 4, 4 * m.padded(), 8, &y.map(finite));
                }
            }
        }
    }
    if m.held[0] {
        if kind == 0_i32 {
            // The integers are of no more use: searches and codes take their place.
            search_held(kc[0], false, desk, ints);
            code_held_keys(m, kc[0], cache, desk);
        } else {
            search_held(vc[0], true, desk, ints);
            code_held_values(m, vc[0], kc[0].spec().sides, cache, desk, ints);
        }
    } else {
        code_rows(m, kc, vc, cache, desk, codes, kind);
    }
    if kind == 0_i32 {
        finish(m, kc[0], cache, desk, m.sides_at, m.keys_at[0], false);
    } else {
        finish(m, vc[0], cache, desk, m.sides_at + 2 * kc[0].spec().sides, m.values_at[0], true);
    }
}

/// Scales and codes of coordinates that stay where the tensor core left them.
#[device]
fn code_rows(m: &StoreMeta, kc: &[&dyn Codec], vc: &[&dyn Codec], cache: &mut Global<u8>, desk: &mut Desk, codes: &mut Shared<u32>, kind: i32) {
    if kind == 0_i32 {
        search_sides(kc, &desk.rows, &mut desk.sides, m.d, m.padded());
        if m.key_quads & (kc.len() == 4) & (m.d == 128) {
            code_narrow_keys(m, kc, cache, desk, m.padded());
        } else {
            for band in 0..kc.len() {
                code_keys(m, kc, band, cache, desk, m.padded());
            }
        }
    } else {
        search_sides(vc, &desk.rows, &mut desk.sides, m.d, m.padded());
        for band in 0..vc.len() {
            code_values(m, vc, band, cache, desk, codes, m.padded());
        }
    }
}

/// Every fourth block of eight of a row, `turned`, less the mean: thread `i` holds it, the desk takes the largest magnitude.
#[device]
pub fn centre(x: [f32; 128], scales: &Global<f32>, mean: i64, i: i32, desk: &mut Desk, d: usize) {
    let mut top = 1e-20_f32;
    for k in 0..d / 32 {
        let from = (mean + ((i & 3_i32) * 8_i32 + (32 * k) as i32) as i64) * 4_i64;
        for part in 0..2 {
            let mu = scales.load4::<f32>(from + (16 * part) as i64);
            for e in 0..4 {
                let y = x[8 * k + 4 * part + e] - mu[e];
                top = farther(top, y);
                desk.held.put(i, 8 * k + 4 * part + e, y);
            }
        }
    }
    desk.tops.put(i, top);
}

/// What threads hold as integers: their high bytes, `d` bytes further on their low ones.
#[device]
pub fn split(held: &ByTurn<f32>, tops: &Shared<f32>, ints: &mut Shared<u32>, units: &mut Shared<f32>, i: i32, d: usize) {
    let (r, j) = (i >> 2_u32, i & 3_i32);
    let own = tops.load4::<f32>(r * 16_i32);
    let top = fmax(fmax(own[0], own[1]), fmax(own[2], own[3]));
    let by = per_unit(top);
    for quad in 0..d / 16 {
        let (high, low) = digits_of([held.at(i, 4 * quad), held.at(i, 4 * quad + 1), held.at(i, 4 * quad + 2), held.at(i, 4 * quad + 3)], by);
        let byte = r * (2 * d + 16) as i32 + (j * 2_i32 + (8 * (quad / 2) + quad % 2) as i32) * 4_i32;
        ints.save::<u32>(byte, high);
        ints.save::<u32>(byte + d as i32, low);
    }
    if j == 0_i32 {
        units.put(r, unit_of(top));
    }
}

/// High and low bytes of four coordinates as integers.
#[device]
pub fn digits_of(x: [f32; 4], by: f32) -> (u32, u32) {
    let mut u = [0_u32; 4];
    for e in 0..4 {
        u[e] = x[e].mul_add(by, MAGIC + 64.0_f32).to_bits();
    }
    halves_of(u)
}
