//! Load: codes in their pages become rows of K and V again, with the bits of `reference::row`. Attention never does
//! this; a measurement does, to see what lies in a cache, and it is what an engine without fused attention would run.
//!
//! A block takes 32 tokens of one kv head. Four threads decode a row, block by block; then each turns a quarter of it,
//! and all four join the quarters: butterflies over 1, 2, 4, .. in natural order.
//! Cost: reads a row's code and side bytes, writes d elements; bound by memory, most of it what it writes.

use super::codes::code_at;
use super::keys::low_half;
use super::offset::within;
use super::place::put_place;
use super::rows::{quad_at, steps_of};
use super::softmax::{bounded, sound};
use super::store::StoreMeta;
use crate::codec::Codec;
use kernel_dsl::prelude::*;

/// The grid has an axis for keys and values, see [`super::store_grid`].
#[kernel]
pub fn load<T: Float>(
    m: StoreMeta,
    kc: &[&dyn Codec], // one a band
    vc: &[&dyn Codec],
    cache: &Global<u8>,       // [pages, kv_heads, block]
    slots: &Global<i64>,      // [tokens]; below 0: rows that are left alone
    k: &mut Global<T>,        // [tokens, kv_heads, d]
    v: &mut Global<T>,        // likewise
    status: &mut Global<i32>, // bad slot, bad page, bad length, where
    tokens: i32,
    kv_heads: i32,
    slot_count: i64,
) {
    let (first, head, kind) = (block_id(0) * 32_i32, block_id(1), block_id(2));
    let mut rows = shared::<u8>(128 * m.d);
    let mut tiles = shared::<i64>(32);
    let mut places = shared::<u32>(32);
    for r in threads(32) {
        let token = (first + r).min(tokens - 1_i32);
        let slot = if first + r < tokens { slots.at(token) } else { -1_i64 };
        put_place(slot, slot_count, kv_heads, head, m.page_tokens, m.tile_bytes, r, token, &mut tiles, &mut places, status);
    }
    if kind == 0_i32 {
        for band in 0..kc.len() {
            decode_band(kc[0], kc[band], cache, &tiles, &places, &mut rows, m.d, m.d / kc.len(), band, m.keys_at[band], m.sides_at, m.side_stride, false, m.key_quads);
        }
        turn(kc[0], &mut rows, m.d);
        leave::<T>(kc[0], cache, &tiles, &places, &rows, k, m.d, m.sides_at, m.side_stride, m.inv_sqrt_d, first, head, kv_heads);
    } else {
        let sides_at = m.sides_at + 2 * kc[0].spec().sides;
        for band in 0..vc.len() {
            decode_band(vc[0], vc[band], cache, &tiles, &places, &mut rows, m.d, m.d / vc.len(), band, m.values_at[band], sides_at, m.side_stride, true, m.quads);
        }
        turn(vc[0], &mut rows, m.d);
        leave::<T>(vc[0], cache, &tiles, &places, &rows, v, m.d, sides_at, m.side_stride, m.inv_sqrt_d, first, head, kv_heads);
    }
}

/// The side values of a token; those that are not stored are 0.
#[device]
fn sides_of(c: &dyn Codec, cache: &Global<u8>, tile: i64, place: u32, sides_at: usize, side_stride: usize) -> [f32; 2] {
    let mut side = [0.0_f32; 2];
    for e in 0..c.spec().sides {
        let x = cache.load::<u16>(tile + (sides_at as u32 + place * side_stride as u32) as i64 + (2 * e) as i64) as u32;
        side[e] = low_half(if c.spec().sides == 1 { sound(x) } else { x });
    }
    side
}

/// What a step of a row's lanes is worth; half of it for integer lanes, whose steps are doubled.
#[device]
fn worth(c: &dyn Codec, side: [f32; 2]) -> f32 {
    bounded(c.scale(side)) * if c.spec().exact() { 0.5_f32 } else { 1.0_f32 }
}

/// Lanes of a band of `width` dims as floats, four threads a row; of affine codecs their coordinates.
#[device]
#[allow(clippy::too_many_arguments)]
fn decode_band(
    first: &dyn Codec,
    c: &dyn Codec,
    cache: &Global<u8>,
    tiles: &Shared<i64>,
    places: &Shared<u32>,
    rows: &mut Shared<u8>,
    d: usize,
    width: usize,
    band: usize,
    codes_at: usize,
    sides_at: usize,
    side_stride: usize,
    values: bool,
    quads: bool,
) {
    for i in threads(128) {
        let (r, j) = (i >> 2_u32, i & 3_i32);
        if tiles.at(r) >= 0_i64 {
            let (mut scale, mut offset) = (1.0_f32, 0.0_f32);
            if first.spec().affine {
                let side = sides_of(first, cache, tiles.at(r), places.at(r), sides_at, side_stride);
                scale = worth(first, side);
                offset = within(first.offset(side));
            }
            for block in strided(j, (width / 8) as i32, 4) {
                let code = code_at(c, cache, tiles.at(r) + codes_at as i64, places.at(r), block as u32, values, quads, width);
                let mut x = floats_of(c, c.decode(code));
                if first.spec().affine {
                    for e in 0..8 {
                        x[e] = x[e] * scale + offset;
                    }
                }
                let q = (block + (band * (width / 8)) as i32) * 2_i32;
                rows.save4::<f32>(quad_at(r, q, d), [x[0], x[1], x[2], x[3]]);
                rows.save4::<f32>(quad_at(r, q + 1_i32, d), [x[4], x[5], x[6], x[7]]);
            }
        }
    }
}

/// Eight lanes as floats: bf16 ones as they are, integer ones as steps, `2 * lane - zero2`.
#[device]
fn floats_of(c: &dyn Codec, w: [u32; 4]) -> [f32; 8] {
    let mut x = [0.0_f32; 8];
    if !c.spec().exact() {
        for i in 0..4 {
            x[2 * i] = f32::from_bits(w[i] << 16);
            x[2 * i + 1] = f32::from_bits(w[i] & 0xffff_0000_u32);
        }
    } else {
        let steps = steps_of(c, w);
        for i in 0..8 {
            x[i] = steps[i] as f32;
        }
    }
    x
}

/// The butterflies within a quarter of a row.
#[device]
fn turn(c: &dyn Codec, rows: &mut Shared<u8>, d: usize) {
    if c.spec().rotate {
        for i in threads(128) {
            let (r, j) = (i >> 2_u32, i & 3_i32);
            let mut x = [0.0_f32; 128];
            for q in 0..d / 16 {
                let w = rows.load4::<f32>(quad_at(r, j * (d / 16) as i32 + q as i32, d));
                for e in 0..4 {
                    x[4 * q + e] = w[e];
                }
            }
            for stage in 0..7 {
                let h = 1 << stage;
                if h < d / 4 {
                    for p in 0..d / 8 {
                        let low = p / h * 2 * h + p % h;
                        let (a, b) = (x[low], x[low + h]);
                        x[low] = a + b;
                        x[low + h] = a - b;
                    }
                }
            }
            for q in 0..d / 16 {
                rows.save4::<f32>(quad_at(r, j * (d / 16) as i32 + q as i32, d), [x[4 * q], x[4 * q + 1], x[4 * q + 2], x[4 * q + 3]]);
            }
        }
    }
}

/// The last two butterflies, the factors, and out: neighbouring threads write neighbouring coordinates.
#[device]
#[allow(clippy::too_many_arguments)]
fn leave<T: Float>(c: &dyn Codec, cache: &Global<u8>, tiles: &Shared<i64>, places: &Shared<u32>, rows: &Shared<u8>, out: &mut Global<T>, d: usize, sides_at: usize, side_stride: usize, inv_sqrt_d: f32, first: i32, head: i32, kv_heads: i32) {
    for i in threads(128) {
        let (lane, w) = (i & 31_i32, i >> 5_u32);
        for r in strided(w, 32_i32, 4) {
            if tiles.at(r) >= 0_i64 {
                let scale = worth(c, sides_of(c, cache, tiles.at(r), places.at(r), sides_at, side_stride));
                let to = ((first + r) as i64 * kv_heads as i64 + head as i64) * d as i64;
                for q in strided(lane, (d / 16) as i32, 32) {
                    let part = (d / 16) as i32;
                    let (a, b) = (rows.load4::<f32>(quad_at(r, q, d)), rows.load4::<f32>(quad_at(r, q + part, d)));
                    let (e, f) = (rows.load4::<f32>(quad_at(r, q + 2_i32 * part, d)), rows.load4::<f32>(quad_at(r, q + 3_i32 * part, d)));
                    for k in 0..4 {
                        let mut x = [a[k], b[k], e[k], f[k]];
                        if c.spec().rotate {
                            let (low, high) = ([x[0] + x[1], x[0] - x[1]], [x[2] + x[3], x[2] - x[3]]);
                            x = [low[0] + high[0], low[1] + high[1], low[0] - high[0], low[1] - high[1]];
                        }
                        for p in 0..4 {
                            let turned = if c.spec().rotate { x[p] * inv_sqrt_d } else { x[p] };
                            out.put(to + (4_i32 * (q + p as i32 * part) + k as i32) as i64, T::from_f32(if c.spec().affine { turned } else { turned * scale }));
                        }
                    }
                }
            }
        }
    }
}
