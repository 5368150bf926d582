//! The store kernel: code each token's K and V rows and write them to their slots; and the load kernel, which reads them.

use crate::layout::{Operand, TILE};
use crate::reference::{CacheShape, Row, Status};
use crate::registry::CodecInfo;

/// Stores `k` and `v` `[token, kv head, d]` at `slots[token] = page * page_tokens + offset`.
/// A negative slot is padding and skipped; a slot beyond the cache is skipped and reported.
pub fn store(c: &CodecInfo, s: &CacheShape, cache: &mut [u8], k: &[f32], v: &[f32], slots: &[i64]) -> Status {
    let mut status = Status::OK;
    let layout = c.layout(s.d);
    for (token, &slot) in slots.iter().enumerate() {
        if slot >= (s.pages * s.page_tokens) as i64 {
            status.set(Status::BAD_SLOT);
        }
        let Some((page, offset)) = position(s, slot) else { continue };
        for head in 0..s.kv_heads {
            let tile = &mut cache[s.tile_byte(c, page, head, offset)..][..layout.tile_bytes()];
            let row = (token * s.kv_heads + head) * s.d;
            for (operand, x) in [(Operand::K, k), (Operand::V, v)] {
                let coded = c.half(operand).encode_row(&x[row..row + s.d]);
                for (block, &code) in coded.codes.iter().enumerate() {
                    layout.write_code(tile, operand, offset % TILE, block, code);
                }
                layout.write_sides(tile, operand, offset % TILE, coded.side);
            }
        }
    }
    status
}

/// Decodes the rows at `slots` into `k` and `v` `[token, kv head, d]`. Rows whose slot is negative or beyond the cache stay
/// as they are; the latter is reported.
pub fn load(c: &CodecInfo, s: &CacheShape, cache: &[u8], slots: &[i64], k: &mut [f32], v: &mut [f32]) -> Status {
    let mut status = Status::OK;
    let layout = c.layout(s.d);
    for (token, &slot) in slots.iter().enumerate() {
        if slot >= (s.pages * s.page_tokens) as i64 {
            status.set(Status::BAD_SLOT);
        }
        let Some((page, offset)) = position(s, slot) else { continue };
        for head in 0..s.kv_heads {
            let tile = &cache[s.tile_byte(c, page, head, offset)..][..layout.tile_bytes()];
            let row = (token * s.kv_heads + head) * s.d;
            for (operand, x) in [(Operand::K, &mut *k), (Operand::V, &mut *v)] {
                let codes = (0..layout.blocks()).map(|block| layout.read_code(tile, operand, offset % TILE, block)).collect();
                let coded = Row { codes, side: layout.read_sides(tile, operand, offset % TILE) };
                x[row..row + s.d].copy_from_slice(&c.half(operand).decode_row(&coded, s.d));
            }
        }
    }
    status
}

/// Page and offset of a slot inside the cache.
pub(super) fn position(s: &CacheShape, slot: i64) -> Option<(usize, usize)> {
    let slot = usize::try_from(slot).ok()?;
    (slot < s.pages * s.page_tokens).then_some((slot / s.page_tokens, slot % s.page_tokens))
}
