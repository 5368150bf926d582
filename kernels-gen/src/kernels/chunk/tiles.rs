//! A leaf's codes become bytes in shared memory: keys and values of each tile as right operands, lane by lane, so that all warps read them
//! without conflicts; scales and offsets of its tokens beside them. Keys stand so that a lane will have the scores of eight neighbours, as it
//! then needs their weights beside the values of those tokens.

use super::super::decode_attention::DecodeMeta;
use super::super::keys::{low_half, only_step, step};
use super::super::leaves::{LEAF, TILES};
use super::super::offset::within;
use super::super::softmax::sound;
use crate::codec::Codec;
use kernel_dsl::prelude::*;

/// Keys and values of a leaf's tiles: what warps take in turn.
pub const UNITS: usize = 2 * TILES;

/// Numbers of a token: scales of key and value, their offsets.
pub const SIDES: usize = 4;

/// First byte of tile `t` of a sequence whose table is at `line`. A bad page is page 0, marked by an odd number.
#[device]
#[allow(clippy::too_many_arguments)]
pub fn find(m: &DecodeMeta, table: &Global<i32>, line: i32, stride: i32, pages: i32, kv_heads: i32, head: i32, t: i32) -> i64 {
    let own = (m.page_tokens / 32) as u32;
    let entry = table.at(line + ((t as u32 / own) as i32).min(stride - 1_i32).max(0_i32)) as u32;
    let head_bytes = (m.page_tokens / 32 * m.tile_bytes) as i64;
    let page = if entry < pages as u32 { entry as i64 * (kv_heads as i64 * head_bytes) } else { 1_i64 };
    page + head as i64 * head_bytes + (t as u32 % own * m.tile_bytes as u32) as i64
}

/// The warp's units of a leaf, at `place` of the two, from the addresses it has found before; then those of the next leaf.
#[device]
#[allow(clippy::too_many_arguments)]
pub fn bring(
    m: &DecodeMeta,
    k: &dyn Codec,
    v: &dyn Codec,
    cache: &Global<u8>,
    table: &Global<i32>,
    from: &mut Shared<i64>,
    bad: &mut Shared<i32>,
    room: &mut Shared<f32>,
    sides: &mut Shared<u32>,
    w: i32,
    leaf: i32,
    seen: i32,
    tokens: i32,
    line: i32,
    stride: i32,
    pages: i32,
    kv_heads: i32,
    head: i32,
) {
    let (place, half) = (leaf & 1_i32, m.half_bytes() as i32);
    for u in strided(w, UNITS as i32, m.warps) {
        let (i, found) = (u >> 1_u32, from.at(place * UNITS as i32 + u));
        let (t, at) = (leaf * TILES as i32 + i, found & -2_i64);
        let next = find(m, table, line, stride, pages, kv_heads, head, t + TILES as i32);
        if t * 32_i32 < seen {
            let to = place * (2_i32 * half) + i * (32 * m.d) as i32;
            if (u & 1_i32) == 0_i32 {
                let keys: Tile<u8> = if m.key_quads { cache.key_quads(at + m.keys_at[0] as i64, k.spec().bits, m.d, 8, |x| k.decode4(x)) } else { cache.keys(at + m.keys_at[0] as i64, k.spec().bits, m.d, 8, |x| k.decode(x)) };
                room.save_spread::<u8>(to, &keys);
            } else {
                let values: Tile<u8> = if m.quads { cache.quads(at + m.values_at[0] as i64, v.spec().bits, m.d, 8, |x| v.decode4(x)) } else { cache.values(at + m.values_at[0] as i64, v.spec().bits, m.d, 8, |x| v.decode(x)) };
                room.save_right::<u8>(to + half, &values);
            }
            bring_sides(k, v, cache, sides, at + m.sides_at as i64, place * (SIDES * LEAF) as i32 + i * 32_i32, u & 1_i32, tokens - t * 32_i32);
            for _ in lanes(1) {
                if (found & 1_i64) > 0_i64 {
                    bad.put(u, bad.at(u).min(t * 32_i32 / m.page_tokens as i32 * m.page_tokens as i32));
                }
            }
        }
        for _ in lanes(1) {
            from.put((1_i32 - place) * UNITS as i32 + u, next);
        }
        for line in lanes(m.tile_bytes / 256 + 1) {
            cache.prefetch((next & -2_i64) + ((u & 1_i32) * (m.tile_bytes / 2) as i32 + line * 128_i32).min(m.tile_bytes as i32 - 1_i32) as i64);
        }
    }
}

/// A lane has a token. Scales past the sequence's end are 0, whatever their slots hold.
#[device]
#[allow(clippy::too_many_arguments)]
fn bring_sides(k: &dyn Codec, v: &dyn Codec, cache: &Global<u8>, sides: &mut Shared<u32>, at: i64, to: i32, values: i32, left: i32) {
    let each = 2 * (k.spec().sides + v.spec().sides);
    for i in lanes(32) {
        let own = at + (i * each as i32) as i64;
        if values == 0_i32 {
            sides.put(to + i, scale_at(k, cache, own).to_bits());
            if k.spec().affine {
                sides.put(to + (2 * LEAF) as i32 + i, offset_at(k, cache, own).to_bits());
            }
        } else {
            let own = own + (2 * k.spec().sides) as i64;
            sides.put(to + LEAF as i32 + i, (if i < left { scale_at(v, cache, own) } else { 0.0_f32 }).to_bits());
            if v.spec().affine {
                sides.put(to + (3 * LEAF) as i32 + i, offset_at(v, cache, own).to_bits());
            }
        }
    }
}

#[device]
fn scale_at(c: &dyn Codec, cache: &Global<u8>, at: i64) -> f32 {
    let first = cache.load::<u16>(at) as u32;
    if c.spec().sides == 1 { only_step(c, sound(first)) } else { step(c, low_half(first), low_half(cache.load::<u16>(at + 2_i64) as u32)) }
}

#[device]
fn offset_at(c: &dyn Codec, cache: &Global<u8>, at: i64) -> f32 {
    let (a, b) = (cache.load::<u16>(at) as u32, cache.load::<u16>(at + 2_i64) as u32);
    within(c.offset([low_half(a), low_half(b)]))
}
