//! Slots: a token's key and value codes side by side, byte for byte as vLLM's TurboQuant cache has them.
//!
//! `store_slots` codes rows into such a cache; `import_slots` and `export_slots` move tokens between it and our tiles, so that
//! an engine may keep its own layout outside of decode. A slot is `[K codes][K sides][V codes][V sides]`, see
//! `reference::slots`. Slots have an even number of bytes and no more alignment than that.
//!
//! Cost: reads and writes a token's bytes once, a byte at a time on the side of the slots.

use super::codes::{code_at, put_planes};
use super::rows::{block_of, energy_of, side_of, turn_within};
use super::place::tile_of;
use super::store::prepare;
use crate::codec::Codec;
use crate::registry::CodecInfo;
use kernel_dsl::prelude::*;

/// Bytes of a token of one kv head in a cache of slots, an even number.
pub fn slot_bytes(c: &CodecInfo, d: usize) -> usize {
    c.k.slot_bytes(d) + c.v.slot_bytes(d)
}

/// Shape of the kernels of slots.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SlotMeta {
    pub d: usize,
    /// Bytes of an element of k and v.
    pub elem: usize,
    /// Tokens of a page of slots.
    pub page_tokens: usize,
    /// First byte of the values in a slot.
    pub values_at: usize,
    pub warps: usize,
    pub min_blocks: usize,
    pub inv_sqrt_d: f32,
    /// Of the cache of tiles.
    pub tiles: TileMeta,
}

/// Where the parts of a tile lie.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TileMeta {
    pub page_tokens: usize,
    pub tile_bytes: usize,
    pub keys_at: usize,
    pub values_at: usize,
    pub sides_at: usize,
    pub side_stride: usize,
    pub quads: bool,
}

impl Meta for SlotMeta {
    fn launch(&self) -> Launch {
        Launch { warps: self.warps, min_blocks: self.min_blocks }
    }
}

/// The slot that a token of a launch goes to or comes from; -1 for padding and, reported, for one beyond the cache.
#[device]
fn slot_of(slots: &Global<i64>, token: i32, tokens: i32, count: i64, status: &mut Global<i32>) -> i64 {
    let slot = if token < tokens { slots.at(token.min(tokens - 1_i32)) } else { -1_i64 };
    if slot >= count {
        status.put(0, 1_i32);
        status.put(3, token);
    }
    if (slot >= 0_i64) & (slot < count) { slot } else { -1_i64 }
}

/// First byte of a slot.
#[device]
fn byte_of(slot: i64, head: i32, page_tokens: usize, page_stride: i64, token_stride: i64, head_stride: i64) -> i64 {
    (slot / page_tokens as i64) * page_stride + (slot % page_tokens as i64) * token_stride + head as i64 * head_stride
}

/// Where 32 tokens lie: the byte of each in the slots, below 0 where it is to be left alone, its tile and its place there.
#[device]
fn find(m: &SlotMeta, slots: &Global<i64>, in_tiles: &Global<i64>, near: &mut Shared<i64>, far: &mut Shared<i64>, places: &mut Shared<u32>, status: &mut Global<i32>, first: i32, head: i32, tokens: i32, kv_heads: i32, slot_count: i64, tile_slots: i64, page_stride: i64, token_stride: i64, head_stride: i64) {
    for r in threads(32) {
        let (slot, place) = (slot_of(slots, first + r, tokens, slot_count, status), slot_of(in_tiles, first + r, tokens, tile_slots, status));
        let both = (slot >= 0_i64) & (place >= 0_i64);
        near.put(r, if both { byte_of(slot, head, m.page_tokens, page_stride, token_stride, head_stride) } else { -1_i64 });
        far.put(r, tile_of(place.max(0_i64), kv_heads, head, m.tiles.page_tokens, m.tiles.tile_bytes));
        places.put(r, (place & 31_i64) as u32);
    }
}

/// Eight levels into as many bytes as one has bits.
#[device]
fn put_levels(c: &dyn Codec, cache: &mut Global<u8>, at: i64, levels: [u32; 8]) {
    let w = c.spec().level_bits;
    let mut words = [0_u32; 3];
    for i in 0..8 {
        words[i * w / 32] = words[i * w / 32] | (levels[i] << (i * w % 32));
        if i * w % 32 + w > 32 {
            words[i * w / 32 + 1] = levels[i] >> (32 - i * w % 32);
        }
    }
    for b in 0..w {
        cache.save::<u8>(at + b as i64, (words[b / 4] >> (b % 4 * 8)) as u8);
    }
}

/// The levels at byte `at`.
#[device]
fn levels_at(c: &dyn Codec, cache: &Global<u8>, at: i64) -> [u32; 8] {
    let w = c.spec().level_bits;
    let mut words = [0_u32; 3];
    for b in 0..w {
        words[b / 4] = words[b / 4] | ((cache.load::<u8>(at + b as i64) as u32) << (b % 4 * 8));
    }
    let mut levels = [0_u32; 8];
    for i in 0..8 {
        let mut level = words[i * w / 32] >> (i * w % 32);
        if i * w % 32 + w > 32 {
            level = level | (words[i * w / 32 + 1] << (32 - i * w % 32));
        }
        levels[i] = level & ((1_u32 << w) - 1_u32);
    }
    levels
}

#[kernel]
pub fn store_slots<T: Float>(
    m: SlotMeta,
    kc: &[&dyn Codec],
    vc: &[&dyn Codec],
    k: &Global<T>,            // [tokens, kv_heads, d], strided
    v: &Global<T>,            // likewise
    slots: &Global<i64>,      // [tokens]; below 0: padding
    cache: &mut Global<u8>,   // [pages, page_tokens, kv_heads, slot], strided
    status: &mut Global<i32>, // bad slot, bad page, bad length, where
    tokens: i32,
    slot_count: i64,
    k_token_stride: i64,
    k_head_stride: i64,
    v_token_stride: i64,
    v_head_stride: i64,
    page_stride: i64, // of the cache, in bytes
    token_stride: i64,
    head_stride: i64,
) {
    let (first, head, kind) = (block_id(0) * 32_i32, block_id(1), block_id(2));
    let mut rows = shared::<u8>(128 * m.d);
    let mut squares = shared::<f32>(32 * 4);
    let mut tops = shared::<f32>(2 * m.d);
    let mut sides = shared::<f32>(32 * 4);
    let mut places = shared::<i64>(32);
    for i in threads(128) {
        let (r, j) = (i >> 2_u32, i & 3_i32);
        let token = (first + r).min(tokens - 1_i32);
        if kind == 0_i32 {
            turn_within::<T>(kc[0], k, (token as i64 * k_token_stride + head as i64 * k_head_stride) * m.elem as i64, j, r, &mut rows, &mut squares, m.d, m.elem);
        } else {
            turn_within::<T>(vc[0], v, (token as i64 * v_token_stride + head as i64 * v_head_stride) * m.elem as i64, j, r, &mut rows, &mut squares, m.d, m.elem);
        }
        if j == 0_i32 {
            let slot = slot_of(slots, first + r, tokens, slot_count, status);
            places.put(r, if slot >= 0_i64 { byte_of(slot, head, m.page_tokens, page_stride, token_stride, head_stride) } else { -1_i64 });
        }
    }
    if kind == 0_i32 {
        prepare(kc, &mut rows, &squares, &mut tops, &mut sides, m.d, m.inv_sqrt_d);
        code_slots(kc[0], cache, &rows, &squares, &tops, &sides, &places, m.warps, m.d, 0);
    } else {
        prepare(vc, &mut rows, &squares, &mut tops, &mut sides, m.d, m.inv_sqrt_d);
        code_slots(vc[0], cache, &rows, &squares, &tops, &sides, &places, m.warps, m.d, m.values_at);
    }
}

/// Codes of 32 rows into their slots, from byte `at` on; sides as they were before any correction.
#[device]
#[allow(clippy::too_many_arguments)]
fn code_slots(c: &dyn Codec, cache: &mut Global<u8>, rows: &Shared<u8>, squares: &Shared<f32>, tops: &Shared<f32>, sides: &Shared<f32>, places: &Shared<i64>, n: usize, d: usize, at: usize) {
    for i in threads(32 * n) {
        let r = i & 31_i32;
        let (place, side) = (places.at(r), side_of(c, squares, tops, sides, r, d));
        for block in strided(i >> 5_u32, (d / 8) as i32, n) {
            let levels = c.levels(c.encode(block_of(rows, r, block, d), side));
            if place >= 0_i64 {
                put_levels(c, cache, place + at as i64 + (block * c.spec().level_bits as i32) as i64, levels);
            }
        }
    }
    for r in threads(32) {
        if places.at(r) >= 0_i64 {
            let side = side_of(c, squares, tops, sides, r, d);
            for e in 0..c.spec().sides {
                let side = f16::from_f32(fmin(side[e], 65504.0_f32));
                cache.save::<f16>(places.at(r) + (at + d / 8 * c.spec().level_bits + 2 * e) as i64, side);
            }
        }
    }
}

#[kernel]
pub fn import_slots(
    m: SlotMeta,
    kc: &[&dyn Codec],
    vc: &[&dyn Codec],
    slots: &Global<u8>,       // [pages, page_tokens, kv_heads, slot], strided
    from: &Global<i64>,       // [tokens]: a slot; below 0: padding
    tiles: &mut Global<u8>,   // [pages, kv_heads, block]
    to: &Global<i64>,         // [tokens]: a slot of the tiles' cache; below 0: padding
    status: &mut Global<i32>, // bad slot, bad page, bad length, where
    tokens: i32,
    kv_heads: i32,
    slot_count: i64,
    tile_slots: i64, // tokens that the tiles' cache holds
    page_stride: i64, // of the slots, in bytes
    token_stride: i64,
    head_stride: i64,
) {
    let (first, head, kind) = (block_id(0) * 32_i32, block_id(1), block_id(2));
    let mut near = shared::<i64>(32);
    let mut far = shared::<i64>(32);
    let mut places = shared::<u32>(32);
    find(&m, from, to, &mut near, &mut far, &mut places, status, first, head, tokens, kv_heads, slot_count, tile_slots, page_stride, token_stride, head_stride);
    if kind == 0_i32 {
        bring(kc[0], slots, tiles, &near, &far, &places, m.warps, m.d, 0, m.tiles.keys_at, m.tiles.sides_at, m.tiles.side_stride, false, false);
    } else {
        bring(vc[0], slots, tiles, &near, &far, &places, m.warps, m.d, m.values_at, m.tiles.values_at, m.tiles.sides_at + 2 * kc[0].spec().sides, m.tiles.side_stride, true, m.tiles.quads);
    }
}

/// Codes and sides of 32 tokens out of their slots, from byte `at` on, into their tiles.
#[device]
fn bring(c: &dyn Codec, slots: &Global<u8>, tiles: &mut Global<u8>, near: &Shared<i64>, far: &Shared<i64>, places: &Shared<u32>, n: usize, d: usize, at: usize, codes_at: usize, sides_at: usize, side_stride: usize, values: bool, quads: bool) {
    let w = c.spec().level_bits;
    for i in threads(32 * n) {
        let r = i & 31_i32;
        if near.at(r) >= 0_i64 {
            for block in strided(i >> 5_u32, (d / 8) as i32, n) {
                let code = c.of_levels(levels_at(c, slots, near.at(r) + at as i64 + (block * w as i32) as i64));
                put_planes(c, tiles, far.at(r) + codes_at as i64, places.at(r), block as u32, code, values, quads, d);
            }
        }
    }
    for r in threads(32) {
        if near.at(r) >= 0_i64 {
            let from = near.at(r) + at as i64;
            let mut energy = 0_i32;
            if c.spec().corrected {
                for block in strided(0_i32, (d / 8) as i32, 1) {
                    energy = energy + energy_of(c, c.of_levels(levels_at(c, slots, from + (block * w as i32) as i64)));
                }
            }
            let mut side = [0.0_f32; 2];
            for e in 0..c.spec().sides {
                side[e] = slots.load::<f16>(from + (d / 8 * w + 2 * e) as i64).to_f32();
            }
            let stored = if c.spec().corrected { c.correct(side, energy as f32) } else { side };
            put_sides(c, tiles, far.at(r) + (sides_at as u32 + places.at(r) * side_stride as u32) as i64, stored);
        }
    }
}

#[kernel]
pub fn export_slots(
    m: SlotMeta,
    kc: &[&dyn Codec],
    vc: &[&dyn Codec],
    tiles: &Global<u8>,       // [pages, kv_heads, block]
    from: &Global<i64>,       // [tokens]: a slot of the tiles' cache; below 0: padding
    slots: &mut Global<u8>,   // [pages, page_tokens, kv_heads, slot], strided
    to: &Global<i64>,         // [tokens]: a slot; below 0: padding
    status: &mut Global<i32>, // bad slot, bad page, bad length, where
    tokens: i32,
    kv_heads: i32,
    slot_count: i64,
    tile_slots: i64, // tokens that the tiles' cache holds
    page_stride: i64, // of the slots, in bytes
    token_stride: i64,
    head_stride: i64,
) {
    let (first, head, kind) = (block_id(0) * 32_i32, block_id(1), block_id(2));
    let mut near = shared::<i64>(32);
    let mut far = shared::<i64>(32);
    let mut places = shared::<u32>(32);
    find(&m, to, from, &mut near, &mut far, &mut places, status, first, head, tokens, kv_heads, slot_count, tile_slots, page_stride, token_stride, head_stride);
    if kind == 0_i32 {
        send(kc[0], tiles, slots, &near, &far, &places, m.warps, m.d, 0, m.tiles.keys_at, m.tiles.sides_at, m.tiles.side_stride, false, false);
    } else {
        send(vc[0], tiles, slots, &near, &far, &places, m.warps, m.d, m.values_at, m.tiles.values_at, m.tiles.sides_at + 2 * kc[0].spec().sides, m.tiles.side_stride, true, m.tiles.quads);
    }
}

/// Codes and sides of 32 tokens out of their tiles into their slots, from byte `at` on.
#[device]
fn send(c: &dyn Codec, tiles: &Global<u8>, slots: &mut Global<u8>, near: &Shared<i64>, far: &Shared<i64>, places: &Shared<u32>, n: usize, d: usize, at: usize, codes_at: usize, sides_at: usize, side_stride: usize, values: bool, quads: bool) {
    let w = c.spec().level_bits;
    for i in threads(32 * n) {
        let r = i & 31_i32;
        if near.at(r) >= 0_i64 {
            for block in strided(i >> 5_u32, (d / 8) as i32, n) {
                let code = code_at(c, tiles, far.at(r) + codes_at as i64, places.at(r), block as u32, values, quads, d);
                put_levels(c, slots, near.at(r) + at as i64 + (block * w as i32) as i64, c.levels(code));
            }
        }
    }
    for r in threads(32) {
        if near.at(r) >= 0_i64 {
            let mut energy = 0_i32;
            if c.spec().corrected {
                for block in strided(0_i32, (d / 8) as i32, 1) {
                    energy = energy + energy_of(c, code_at(c, tiles, far.at(r) + codes_at as i64, places.at(r), block as u32, values, quads, d));
                }
            }
            let mut side = [0.0_f32; 2];
            for e in 0..c.spec().sides {
                side[e] = tiles.load::<f16>(far.at(r) + (sides_at as u32 + places.at(r) * side_stride as u32) as i64 + (2 * e) as i64).to_f32();
            }
            let plain = if c.spec().corrected { c.plain(side, energy as f32) } else { side };
            put_sides(c, slots, near.at(r) + (at + d / 8 * w) as i64, plain);
        }
    }
}

#[device]
fn put_sides(c: &dyn Codec, to: &mut Global<u8>, at: i64, side: [f32; 2]) {
    for e in 0..c.spec().sides {
        to.save::<f16>(at + (2 * e) as i64, f16::from_f32(fmin(fmax(side[e], -65504.0_f32), 65504.0_f32)));
    }
}
