//! Slots: a token's key and value codes side by side, byte for byte as vLLM's TurboQuant cache has them.
//!
//! `store_slots` codes rows into such a cache; `import_slots` and `export_slots` move tokens between it and our tiles, so that
//! an engine may keep its own layout outside of decode. A slot is `[K codes][K sides][V codes][V sides]`, see
//! `reference::slots`. Slots have an even number of bytes and no more alignment than that.
//!
//! Cost: reads and writes a token's bytes once, a byte at a time on the side of the slots.

pub mod moves;
pub mod store;

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

impl SlotMeta {
    /// The root of the numbers of a row.
    pub fn root(&self) -> f32 {
        (self.d as f32).sqrt()
    }
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
    pub key_quads: bool,
}

impl Meta for SlotMeta {
    fn launch(&self) -> Launch {
        Launch { warps: self.warps, min_blocks: self.min_blocks }
    }
}

/// A cache of slots, and where in it tokens lie.
#[device]
pub struct Slots {
    /// `[pages, page_tokens, kv_heads, slot]`, strided
    #[out]
    pub bytes: Global<u8>,
    /// `[tokens]`: a slot; below 0: padding
    pub at: Global<i64>,
    /// Slots that the cache holds.
    pub count: i64,
    /// In bytes.
    pub page_stride: i64,
    pub token_stride: i64,
    pub head_stride: i64,
}

/// The place that a token of a launch goes to or comes from; -1 for padding and, reported, for one beyond the cache.
#[device]
fn slot_of(at: &Global<i64>, count: i64, token: i32, tokens: i32, status: &mut Global<i32>) -> i64 {
    let slot = if token < tokens { at.at(token.min(tokens - 1_i32)) } else { -1_i64 };
    if slot >= count {
        status.put(0, 1_i32);
        status.put(3, token);
    }
    if (slot >= 0_i64) & (slot < count) { slot } else { -1_i64 }
}

/// First byte of a slot.
#[device]
fn byte_of(slots: &Slots, slot: i64, head: i32, page_tokens: usize) -> i64 {
    (slot / page_tokens as i64) * slots.page_stride + (slot % page_tokens as i64) * slots.token_stride + head as i64 * slots.head_stride
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
