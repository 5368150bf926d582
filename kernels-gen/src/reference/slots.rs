//! The kernels of slots: a token's codes and sides side by side, as vLLM's TurboQuant cache lays them out.
//!
//! A slot is `[K codes][K sides][V codes][V sides]`: codes are the numbers of the levels, `level_bits` each, lowest bits
//! first in the order of the dims; sides are f16, as they were before any correction.

use crate::kernels::slots::slot_bytes;
use crate::layout::{Operand, TILE};
use crate::reference::store::position;
use crate::reference::{CacheShape, Row, Status};
use crate::registry::{CodecInfo, Half};

/// A paged cache of slots, `[page, token of the page, kv head, slot byte]`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SlotShape {
    pub pages: usize,
    pub page_tokens: usize,
    pub kv_heads: usize,
    pub d: usize,
}

impl SlotShape {
    pub fn bytes(&self, c: &CodecInfo) -> usize {
        self.pages * self.page_tokens * self.kv_heads * slot_bytes(c, self.d)
    }

    /// The bytes of a token's keys or values.
    fn half(&self, c: &CodecInfo, slot: usize, head: usize, operand: Operand) -> std::ops::Range<usize> {
        let (start, key) = ((slot * self.kv_heads + head) * slot_bytes(c, self.d), c.k.slot_bytes(self.d));
        if operand == Operand::K { start..start + key } else { start + key..start + slot_bytes(c, self.d) }
    }
}

impl Half {
    /// A plain row out of its bytes.
    fn read_slot(&self, bytes: &[u8], d: usize) -> Row {
        let level = |i: usize| (0..self.level_bits).fold(0, |n, b| n | u32::from(bytes[(i * self.level_bits + b) / 8] >> ((i * self.level_bits + b) % 8) & 1) << b);
        let codes = (0..d / 8).map(|block| self.codec(block, d / 8).of_levels(std::array::from_fn(|i| level(8 * block + i)))).collect();
        let mut side = [0; 2];
        for (i, side) in side.iter_mut().enumerate().take(self.sides) {
            let at = d * self.level_bits / 8 + 2 * i;
            *side = u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        }
        Row { codes, side }
    }

    /// A plain row into its bytes.
    fn write_slot(&self, bytes: &mut [u8], row: &Row) {
        let n = row.codes.len();
        bytes.fill(0);
        for (block, code) in row.codes.iter().enumerate() {
            for (i, level) in self.codec(block, n).levels(*code).into_iter().enumerate() {
                for b in 0..self.level_bits {
                    let bit = (8 * block + i) * self.level_bits + b;
                    bytes[bit / 8] |= ((level >> b & 1) << (bit % 8)) as u8;
                }
            }
        }
        for i in 0..self.sides {
            bytes[n * self.level_bits + 2 * i..][..2].copy_from_slice(&row.side[i].to_le_bytes());
        }
    }
}

/// As [`crate::reference::store`], into slots.
pub fn store_slots(c: &CodecInfo, s: &SlotShape, cache: &mut [u8], k: &[f32], v: &[f32], slots: &[i64]) -> Status {
    let mut status = Status::OK;
    for (token, &slot) in slots.iter().enumerate() {
        let Ok(slot) = usize::try_from(slot) else { continue };
        if slot >= s.pages * s.page_tokens {
            status.set(Status::BAD_SLOT);
            continue;
        }
        for head in 0..s.kv_heads {
            let row = (token * s.kv_heads + head) * s.d;
            for (operand, x) in [(Operand::K, k), (Operand::V, v)] {
                let plain = c.half(operand).encode_plain(&x[row..row + s.d]);
                c.half(operand).write_slot(&mut cache[s.half(c, slot, head, operand)], &plain);
            }
        }
    }
    status
}

/// Tokens at `from[i]` of a cache of slots go to `to[i]` of a cache of tiles; a negative one of the two is padding.
pub fn import_slots(c: &CodecInfo, s: &SlotShape, slots: &[u8], from: &[i64], shape: &CacheShape, tiles: &mut [u8], to: &[i64]) -> Status {
    let layout = c.layout(s.d);
    each(s, from, shape, to, |slot, page, offset, head| {
        let tile = &mut tiles[shape.tile_byte(c, page, head, offset)..][..layout.tile_bytes()];
        for operand in [Operand::K, Operand::V] {
            let half = c.half(operand);
            let row = half.corrected_row(half.read_slot(&slots[s.half(c, slot, head, operand)], s.d));
            row.codes.iter().enumerate().for_each(|(block, code)| layout.write_code(tile, operand, offset % TILE, block, *code));
            layout.write_sides(tile, operand, offset % TILE, row.side);
        }
    })
}

/// Tokens at `from[i]` of a cache of tiles go to `to[i]` of a cache of slots. Codes are kept bit for bit; a side that was
/// corrected comes back to within one step of its f16.
pub fn export_slots(c: &CodecInfo, shape: &CacheShape, tiles: &[u8], from: &[i64], s: &SlotShape, slots: &mut [u8], to: &[i64]) -> Status {
    let layout = c.layout(s.d);
    each(s, to, shape, from, |slot, page, offset, head| {
        let tile = &tiles[shape.tile_byte(c, page, head, offset)..][..layout.tile_bytes()];
        for operand in [Operand::K, Operand::V] {
            let codes = (0..layout.blocks()).map(|block| layout.read_code(tile, operand, offset % TILE, block)).collect();
            let row = Row { codes, side: layout.read_sides(tile, operand, offset % TILE) };
            c.half(operand).write_slot(&mut slots[s.half(c, slot, head, operand)], &c.half(operand).plain_row(row));
        }
    })
}

/// Calls `visit` with the slot, and the page, offset and head of the tiles, of every token that has both.
fn each(s: &SlotShape, slots: &[i64], shape: &CacheShape, places: &[i64], mut visit: impl FnMut(usize, usize, usize, usize)) -> Status {
    let mut status = Status::OK;
    for (&slot, &place) in slots.iter().zip(places) {
        let (limit, tokens) = ((s.pages * s.page_tokens) as i64, (shape.pages * shape.page_tokens) as i64);
        if slot >= limit || place >= tokens {
            status.set(Status::BAD_SLOT);
        }
        if slot < 0 || slot >= limit {
            continue;
        }
        let Some((page, offset)) = position(shape, place) else { continue };
        (0..s.kv_heads).for_each(|head| visit(slot as usize, page, offset, head));
    }
    status
}
