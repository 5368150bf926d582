//! Store that takes keys as projections leave them, and gives queries back ready for attention: one launch in the place of
//! two, and keys cross memory once.
//!
//! The plain store, but for how keys are loaded. Blocks beyond its two axes take query heads.
//! Cost: reads d elements a row and, from the cache, a row of the table; writes code and side bytes, and d elements a query.

use super::super::place::put_known;
use super::super::rows::{turn_own, turn_within};
use super::super::store::{StoreMeta, code_as_keys, code_as_values, energies_of, tails_of, tops_of};
use super::{inverse_rms, leave, measure, roped, row_at, turn_rows};
use crate::codec::Codec;
use kernel_dsl::prelude::*;

/// Grid: [`super::super::rope_grid`].
#[kernel]
pub fn store_rope<T: Float>(
    m: StoreMeta,
    kc: &[&dyn Codec], // one a band
    vc: &[&dyn Codec],
    k: &Global<T>,            // [tokens, kv_heads, d], strided
    v: &Global<T>,            // likewise
    q: &Global<T>,            // [tokens, heads, d], likewise
    positions: &Global<i32>,  // [tokens]
    slots: &Global<i64>,      // [tokens]; below 0: padding
    table: &Global<u8>,       // [turns, dims]: cosines, then sines
    k_weight: &Global<f32>,   // [d]
    q_weight: &Global<f32>,   // [d]
    k_out: &mut Global<T>,    // [tokens, kv_heads, d]
    q_out: &mut Global<T>,    // [tokens, heads, d]
    cache: &mut Global<u8>,   // [pages, kv_heads, block]
    status: &mut Global<i32>, // bad slot, bad page, bad length, where
    tokens: i32,
    kv_heads: i32,
    turns: i32,
    epsilon: f32,
    slot_count: i64,
    k_token_stride: i64,
    k_head_stride: i64,
    v_token_stride: i64,
    v_head_stride: i64,
    q_token_stride: i64,
    q_head_stride: i64,
) {
    after_previous();
    release_next();
    let (first, head, kind) = (block_id(0) * 32_i32, block_id(1), block_id(2));
    let mut sums = shared::<f32>(32 * 4);
    if kind >= 2_i32 {
        if m.rope.group > 0 {
            let own = head * m.rope.group as i32 + (kind - 2_i32);
            turn_rows::<T>(&m, q, q_out, positions, q_weight, table, &mut sums, own, kv_heads * m.rope.group as i32, tokens, turns, epsilon, q_token_stride, q_head_stride);
        }
    } else {
        let mut rows = shared::<u8>(128 * m.d);
        let mut squares = shared::<f32>(32 * 4);
        let mut tops = shared::<f32>(tops_of(kc, vc, m.d));
        let mut sides = shared::<f32>(32 * 4);
        let mut energies = shared::<i32>(energies_of(kc, vc));
        let mut tails = shared::<u32>(tails_of(kc, vc, m.d));
        let mut codes = shared::<u32>(m.kept);
        let mut tiles = shared::<i64>(32);
        let mut places = shared::<u32>(32);
        let mut held = by_turn::<f32>(128, 32);
        if kind == 0_i32 {
            measure::<T>(&m, k, &mut sums, head, tokens, k_token_stride, k_head_stride);
        }
        for i in threads(128) {
            let (r, j) = (i >> 2_u32, i & 3_i32);
            let token = (first + r).min(tokens - 1_i32);
            let (position, slot) = (positions.at(token), if first + r < tokens { slots.at(token) } else { -1_i64 });
            let known = (position >= 0_i32) & (position < turns);
            if kind == 0_i32 {
                let row = roped::<T>(&m, k, row_at(&m, token, head, k_token_stride, k_head_stride), k_weight, inverse_rms(&m, &sums, r, epsilon), table, if known { position } else { 0_i32 }, j);
                if m.rope.keys {
                    if first + r < tokens {
                        leave::<T>(&m, k_out, row_at(&m, token, head, (kv_heads * m.d as i32) as i64, m.d as i64), row, known, j);
                    }
                }
                turn_own(kc[0], row, j, r, &mut rows, &mut squares, m.d);
            } else {
                turn_within::<T>(vc[0], v, row_at(&m, token, head, v_token_stride, v_head_stride), j, r, &mut rows, &mut squares, m.d, m.elem);
            }
            if j == 0_i32 {
                put_known(known, slot, slot_count, kv_heads, head, m.page_tokens, m.tile_bytes, r, token, &mut tiles, &mut places, status);
            }
        }
        if kind == 0_i32 {
            code_as_keys(&m, kc, cache, &mut held, &mut rows, &squares, &mut tops, &mut sides, &mut energies, &mut tails, &tiles, &places);
        } else {
            code_as_values(&m, kc, vc, cache, &mut held, &mut rows, &squares, &mut tops, &mut sides, &mut energies, &mut tails, &mut codes, &tiles, &places);
        }
    }
}
