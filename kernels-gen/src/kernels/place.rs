//! Where tokens are stored: slots of the engine become tiles and places in them; what has none is reported and stored nowhere.

use kernel_dsl::prelude::*;

/// Where row `r` of a block lies: the first byte of its tile, below 0 if it has none, and its place there. A slot beyond the
/// cache is reported.
#[device]
#[allow(clippy::too_many_arguments)]
pub fn put_place(slot: i64, slot_count: i64, kv_heads: i32, head: i32, page_tokens: usize, tile_bytes: usize, r: i32, token: i32, tiles: &mut Shared<i64>, places: &mut Shared<u32>, status: &mut Global<i32>) {
    let (tile, place) = place_of(slot, slot_count, kv_heads, head, page_tokens, tile_bytes);
    tiles.put(r, tile);
    places.put(r, place);
    report(slot, slot_count, token, status);
}

/// As `put_place`; a token whose position is not `known` has no place, and is reported as a bad length.
#[device]
#[allow(clippy::too_many_arguments)]
pub fn put_known(known: bool, slot: i64, slot_count: i64, kv_heads: i32, head: i32, page_tokens: usize, tile_bytes: usize, r: i32, token: i32, tiles: &mut Shared<i64>, places: &mut Shared<u32>, status: &mut Global<i32>) {
    let inside = known & (slot >= 0_i64) & (slot < slot_count);
    tiles.put(r, if inside { tile_of(slot, kv_heads, head, page_tokens, tile_bytes) } else { -1_i64 });
    places.put(r, (slot & 31_i64) as u32);
    if (slot >= slot_count) | (!known & (slot >= 0_i64)) {
        status.put(if slot >= slot_count { 0_i32 } else { 2_i32 }, 1_i32);
        status.put(3, token);
    }
}

/// The tile of a slot and the place there.
#[device]
pub fn place_of(slot: i64, slot_count: i64, kv_heads: i32, head: i32, page_tokens: usize, tile_bytes: usize) -> (i64, u32) {
    let inside = (slot >= 0_i64) & (slot < slot_count);
    (if inside { tile_of(slot, kv_heads, head, page_tokens, tile_bytes) } else { -1_i64 }, (slot & 31_i64) as u32)
}

/// Reports a slot beyond the cache.
#[device]
pub fn report(slot: i64, slot_count: i64, token: i32, status: &mut Global<i32>) {
    if slot >= slot_count {
        status.put(0, 1_i32);
        status.put(3, token);
    }
}

/// Byte offset of the tile that holds a slot.
#[device]
pub fn tile_of(slot: i64, kv_heads: i32, head: i32, page_tokens: usize, tile_bytes: usize) -> i64 {
    let tiles = (page_tokens / 32) as i64;
    let page = (slot / page_tokens as i64) * kv_heads as i64 + head as i64;
    (page * tiles + (slot / 32_i64) % tiles) * tile_bytes as i64
}
