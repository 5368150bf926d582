//! Tokens from slots into tiles, and back. Codes are kept bit for bit.

use super::super::codes::{code_at, put_planes};
use super::super::place::tile_of;
use super::{SlotMeta, Slots, byte_of, levels_at, put_levels, slot_of};
use crate::codec::Codec;
use kernel_dsl::prelude::*;

/// A cache of tiles, and where in it tokens lie.
#[device]
pub struct Tiles {
    /// `[pages, kv_heads, block]`
    #[out]
    pub bytes: Global<u8>,
    /// `[tokens]`: a slot of this cache; below 0: padding
    pub at: Global<i64>,
    /// Tokens that the cache holds.
    pub count: i64,
    pub kv_heads: i32,
}

/// Where 32 tokens lie: the byte of each in the slots, below 0 where it is to be left alone, its tile and its place there.
#[device]
struct Found {
    near: Shared<i64>,
    far: Shared<i64>,
    places: Shared<u32>,
}

/// Where the codes of keys or of values lie: their first bytes in a slot and in a tile, of their sides in a tile, and how.
#[device]
#[derive(Clone, Copy)]
struct Lay {
    slot: usize,
    codes: usize,
    sides: usize,
    values: bool,
    quads: bool,
}

#[device]
fn lay_of(m: &SlotMeta, kc: &dyn Codec, values: bool) -> Lay {
    if values {
        Lay { slot: m.values_at, codes: m.tiles.values_at, sides: m.tiles.sides_at + 2 * kc.spec().sides, values: true, quads: m.tiles.quads }
    } else {
        Lay { slot: 0, codes: m.tiles.keys_at, sides: m.tiles.sides_at, values: false, quads: m.tiles.key_quads }
    }
}

#[device]
#[allow(clippy::too_many_arguments)]
fn find(m: &SlotMeta, slots: &Slots, tiles: &Tiles, status: &mut Global<i32>, head: i32, tokens: i32) -> Found {
    let mut found = Found { near: shared::<i64>(32), far: shared::<i64>(32), places: shared::<u32>(32) };
    for r in threads(32) {
        let token = block_id(0) * 32_i32 + r;
        let (slot, place) = (slot_of(&slots.at, slots.count, token, tokens, status), slot_of(&tiles.at, tiles.count, token, tokens, status));
        let both = (slot >= 0_i64) & (place >= 0_i64);
        found.near.put(r, if both { byte_of(slots, slot, head, m.page_tokens) } else { -1_i64 });
        found.far.put(r, tile_of(place.max(0_i64), tiles.kv_heads, head, m.tiles.page_tokens, m.tiles.tile_bytes));
        found.places.put(r, (place & 31_i64) as u32);
    }
    found
}

/// Tokens from slots into tiles.
#[kernel]
pub fn import_slots(
    m: SlotMeta,
    kc: &[&dyn Codec],
    vc: &[&dyn Codec],
    slots: &Slots,
    tiles: &mut Tiles,
    status: &mut Global<i32>, // bad slot, bad page, bad length, where
    tokens: i32,
) {
    let found = find(&m, slots, tiles, status, block_id(1), tokens);
    if block_id(2) == 0_i32 {
        bring(&m, kc[0], slots, tiles, &found, &lay_of(&m, kc[0], false));
    } else {
        bring(&m, vc[0], slots, tiles, &found, &lay_of(&m, kc[0], true));
    }
}

/// Tokens from tiles into slots.
#[kernel]
pub fn export_slots(
    m: SlotMeta,
    kc: &[&dyn Codec],
    vc: &[&dyn Codec],
    slots: &mut Slots,
    tiles: &Tiles,
    status: &mut Global<i32>, // bad slot, bad page, bad length, where
    tokens: i32,
) {
    let found = find(&m, slots, tiles, status, block_id(1), tokens);
    if block_id(2) == 0_i32 {
        send(&m, kc[0], slots, tiles, &found, &lay_of(&m, kc[0], false));
    } else {
        send(&m, vc[0], slots, tiles, &found, &lay_of(&m, kc[0], true));
    }
}

/// First byte of the sides of row `r` in the tiles.
#[device]
fn sides_at(m: &SlotMeta, found: &Found, at: &Lay, r: i32) -> i64 {
    found.far.at(r) + (at.sides as u32 + found.places.at(r) * m.tiles.side_stride as u32) as i64
}

/// Codes and sides of 32 tokens out of their slots, into their tiles.
#[device]
fn bring(m: &SlotMeta, c: &dyn Codec, slots: &Slots, tiles: &mut Tiles, found: &Found, at: &Lay) {
    let w = c.spec().level_bits;
    for i in threads(32 * m.warps) {
        let r = i & 31_i32;
        let own = found.near.at(r) + at.slot as i64;
        if found.near.at(r) >= 0_i64 {
            for block in strided(i >> 5_u32, (m.d / 8) as i32, m.warps) {
                let code = c.of_levels(levels_at(c, &slots.bytes, own + (block * w as i32) as i64));
                put_planes(c, &mut tiles.bytes, found.far.at(r) + at.codes as i64, found.places.at(r), block as u32, code, at.values, at.quads, m.d);
            }
        }
    }
    for r in threads(32) {
        let own = found.near.at(r) + at.slot as i64;
        if found.near.at(r) >= 0_i64 {
            let mut energy = 0_i32;
            if c.spec().corrected {
                for block in strided(0_i32, (m.d / 8) as i32, 1) {
                    energy = energy + c.energy(c.of_levels(levels_at(c, &slots.bytes, own + (block * w as i32) as i64)));
                }
            }
            let mut side = [0.0_f32; 2];
            for e in 0..c.spec().sides {
                side[e] = slots.bytes.load::<f16>(own + (m.d / 8 * w + 2 * e) as i64).to_f32();
            }
            let stored = if c.spec().corrected { c.correct(side, energy as f32) } else { side };
            put_sides(c, &mut tiles.bytes, sides_at(m, found, at, r), stored);
        }
    }
}

/// Codes and sides of 32 tokens out of their tiles, into their slots.
#[device]
fn send(m: &SlotMeta, c: &dyn Codec, slots: &mut Slots, tiles: &Tiles, found: &Found, at: &Lay) {
    let w = c.spec().level_bits;
    for i in threads(32 * m.warps) {
        let r = i & 31_i32;
        let own = found.near.at(r) + at.slot as i64;
        if found.near.at(r) >= 0_i64 {
            for block in strided(i >> 5_u32, (m.d / 8) as i32, m.warps) {
                let code = code_at(c, &tiles.bytes, found.far.at(r) + at.codes as i64, found.places.at(r), block as u32, at.values, at.quads, m.d);
                put_levels(c, &mut slots.bytes, own + (block * w as i32) as i64, c.levels(code));
            }
        }
    }
    for r in threads(32) {
        let own = found.near.at(r) + at.slot as i64;
        if found.near.at(r) >= 0_i64 {
            let mut energy = 0_i32;
            if c.spec().corrected {
                for block in strided(0_i32, (m.d / 8) as i32, 1) {
                    energy = energy + c.energy(code_at(c, &tiles.bytes, found.far.at(r) + at.codes as i64, found.places.at(r), block as u32, at.values, at.quads, m.d));
                }
            }
            let mut side = [0.0_f32; 2];
            for e in 0..c.spec().sides {
                side[e] = tiles.bytes.load::<f16>(sides_at(m, found, at, r) + (2 * e) as i64).to_f32();
            }
            let plain = if c.spec().corrected { c.plain(side, energy as f32) } else { side };
            put_sides(c, &mut slots.bytes, own + (m.d / 8 * w) as i64, plain);
        }
    }
}

#[device]
fn put_sides(c: &dyn Codec, to: &mut Global<u8>, at: i64, side: [f32; 2]) {
    for e in 0..c.spec().sides {
        to.save::<f16>(at + (2 * e) as i64, f16::from_f32(fmin(fmax(side[e], -65504.0_f32), 65504.0_f32)));
    }
}
