//! Store of codecs that take rows as they come, neither turned nor measured (`bf16`, `fp8_e4m3`): a thread loads the blocks
//! whose codes lie side by side, codes them and writes them. Threads share nothing, so none waits.
//!
//! Cost: reads and writes every byte once; bound by memory.

use super::codes::put_planes;
use super::place::{place_of, report};
use super::rows::blocks_at;
use super::store::StoreMeta;
use crate::codec::Codec;
use kernel_dsl::prelude::*;

/// Whether a codec takes rows as they come.
pub fn straight(c: &dyn Codec) -> bool {
    let s = c.spec();
    !(s.rotate || s.unit || s.affine || s.corrected || s.bytewise) && s.sides + s.group + s.searches + s.tail() == 0 && s.tries == 1
}

/// 32 rows of keys, or of `values`. A lane of attention wants a quarter of a key's blocks, an eighth of a value's.
#[device]
#[allow(clippy::too_many_arguments)]
pub fn pass<T: Float>(
    m: &StoreMeta,
    c: &dyn Codec,
    x: &Global<T>,
    slots: &Global<i64>,
    cache: &mut Global<u8>,
    status: &mut Global<i32>,
    values: bool,
    head: i32,
    tokens: i32,
    kv_heads: i32,
    slot_count: i64,
    token_stride: i64,
    head_stride: i64,
) {
    let (runs, own, codes_at) = (if values { 2 } else { 1 }, m.d / (if values { 64 } else { 32 }), if values { m.values_at[0] } else { m.keys_at[0] });
    for i in threads(128) {
        let block = (if values { (i >> 2_u32) & 7_i32 } else { i & 3_i32 }) * own as i32;
        let mut y = [0.0_f32; 128];
        let mut tiles = [0_i64; 2];
        let mut places = [0_u32; 2];
        for s in 0..runs {
            let token = block_id(0) * 32_i32 + if values { (i & 3_i32) * 8_i32 + (i >> 5_u32) + (4 * s) as i32 } else { (i & 28_i32) + (i >> 5_u32) };
            let slot = if token < tokens { slots.at(token) } else { -1_i64 };
            let at = (token.min(tokens - 1_i32) as i64 * token_stride + head as i64 * head_stride) * m.elem as i64;
            let run = blocks_at::<T>(x, at, block, 1, own, m.elem);
            for e in 0..8 * own {
                y[8 * own * s + e] = run[e];
            }
            let (tile, place) = place_of(slot, slot_count, kv_heads, head, m.page_tokens, m.tile_bytes);
            tiles[s] = tile;
            places[s] = place;
            if block == 0_i32 {
                report(slot, slot_count, token, status);
            }
        }
        let mut sum = 0.0_f32;
        for e in 0..8 * own * runs {
            sum = sum + y[e].abs();
        }
        if !(sum <= c.spec().limit) {
            for e in 0..8 * own * runs {
                y[e] = sanitise(y[e], c.spec().limit);
            }
        }
        for s in 0..runs {
            if tiles[s] >= 0_i64 {
                for b in 0..own {
                    let mut part = [0.0_f32; 8];
                    for e in 0..8 {
                        part[e] = y[8 * (own * s + b) + e];
                    }
                    put_planes(c, cache, tiles[s] + codes_at as i64, places[s], (block + b as i32) as u32, c.encode(part, [0.0_f32; 2]), values, false, m.d);
                }
            }
        }
    }
}
