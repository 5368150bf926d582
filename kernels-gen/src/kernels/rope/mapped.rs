//! The same for a calibrated codec: keys are normalised and turned, then turned back to their segment, mapped and coded.
//!
//! Cost: that of the calibrated store; a row of the table besides, and d elements a query.

use super::super::maps::mean_at;
use super::super::maps::store::{centre, code_mapped};
use super::super::maps::turned;
use super::super::place::put_known;
use super::super::rows::raw;
use super::super::store::StoreMeta;
use super::{inverse_rms, leave, measure, roped, row_at, turn_rows};
use crate::codec::Codec;
use crate::kernels::SEGMENT;
use kernel_dsl::prelude::*;

/// Grid: [`super::super::rope_grid`].
#[kernel]
pub fn store_rope_mapped<T: Float>(
    m: StoreMeta,
    kc: &[&dyn Codec], // one a band
    vc: &[&dyn Codec],
    k: &Global<T>,            // [tokens, kv_heads, d], strided
    v: &Global<T>,            // likewise
    q: &Global<T>,            // [tokens, heads, d], likewise
    positions: &Global<i32>,  // [tokens], from the start of a token's sequence
    slots: &Global<i64>,      // [tokens]; below 0: padding
    table: &Global<u8>,       // [turns, dims]: cosines, then sines
    k_weight: &Global<f32>,   // [d]
    q_weight: &Global<f32>,   // [d]
    k_out: &mut Global<T>,    // [tokens, kv_heads, d]
    q_out: &mut Global<T>,    // [tokens, heads, d]
    back: &Global<f32>,       // [segments, 2, d / 2]: cosines, sines of the turns back
    maps: &Global<i8>,        // a layer's, as `preset::LayerMaps::packed` has them
    scales: &Global<f32>,     // likewise
    cache: &mut Global<u8>,   // [pages, kv_heads, block]
    status: &mut Global<i32>, // bad slot, bad page, bad length, where
    tokens: i32,
    kv_heads: i32,
    turns: i32,
    segments: i32,
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
        let mut rows = shared::<u8>(128 * m.padded());
        let mut ints = shared::<i8>(32 * (2 * m.d + 16));
        let mut tops = shared::<f32>(32 * 4);
        let mut units = shared::<f32>(32);
        let mut sides = shared::<f32>(32 * 4);
        let mut tails = shared::<u32>(1);
        let mut energies = shared::<i32>(1);
        let mut codes = shared::<u32>(m.kept);
        let mut tiles = shared::<i64>(32);
        let mut places = shared::<u32>(32);
        if kind == 0_i32 {
            measure::<T>(&m, k, &mut sums, head, tokens, k_token_stride, k_head_stride);
        }
        for i in threads(128) {
            let (r, j) = (i >> 2_u32, i & 3_i32);
            let token = (first + r).min(tokens - 1_i32);
            let (position, slot) = (positions.at(token), if first + r < tokens { slots.at(token) } else { -1_i64 });
            let in_table = (position >= 0_i32) & (position < turns);
            let known = in_table & (position / (SEGMENT as i32) < segments);
            let mean = mean_at(kind, kv_heads, head, m.d);
            if kind == 0_i32 {
                let at = if in_table { position } else { 0_i32 };
                let row = roped::<T>(&m, k, row_at(&m, token, head, k_token_stride, k_head_stride), k_weight, inverse_rms(&m, &sums, r, epsilon), table, at, j);
                if m.rope.keys {
                    if first + r < tokens {
                        leave::<T>(&m, k_out, row_at(&m, token, head, (kv_heads * m.d as i32) as i64, m.d as i64), row, in_table, j);
                    }
                }
                let segment = (if known { position / SEGMENT as i32 } else { 0_i32 }) as i64 * m.d as i64;
                centre(turned(row, back, segment, true, j, m.d), scales, mean, j, r, &mut rows, &mut tops, m.d, m.padded());
            } else {
                let row = raw::<T>(v, row_at(&m, token, head, v_token_stride, v_head_stride), j, m.d, m.elem);
                centre(turned(row, back, 0_i64, false, j, m.d), scales, mean, j, r, &mut rows, &mut tops, m.d, m.padded());
            }
            if j == 0_i32 {
                put_known(known, slot, slot_count, kv_heads, head, m.page_tokens, m.tile_bytes, r, token, &mut tiles, &mut places, status);
            }
        }
        code_mapped(&m, kc, vc, maps, scales, cache, &mut rows, &mut ints, &tops, &mut units, &mut sides, &mut energies, &mut tails, &mut codes, &tiles, &places, kind, head, kv_heads);
    }
}
