//! Keys and values on their way to the store: keys turned back to the start of their segment, both mapped.

use super::super::query::finite;
use super::{MapMeta, back, products};
use kernel_dsl::prelude::*;

/// The grid has an axis for keys and values, see [`crate::kernels::rows_grid`].
#[kernel]
pub fn map_rows<T: Float>(
    m: MapMeta,
    k: &Global<T>,            // [tokens, kv_heads, d], strided
    v: &Global<T>,            // likewise
    positions: &Global<i32>,  // [tokens], from the start of a token's sequence
    slots: &Global<i64>,      // [tokens]; below 0: padding
    turns: &Global<f32>,      // [segments, d / 2, 2]: cosine, sine
    maps: &Global<f32>,       // a layer's, as `preset::LayerMaps::packed` has them
    y: &mut Global<f32>,      // [2, tokens, kv_heads, d]
    kept: &mut Global<i64>,   // [tokens]: slots, -1 where there is no such segment
    status: &mut Global<i32>, // bad slot, bad page, bad length, where
    tokens: i32,
    kv_heads: i32,
    segments: i32,
    k_token_stride: i64,
    k_head_stride: i64,
    v_token_stride: i64,
    v_head_stride: i64,
) {
    let (first, head, kind) = (block_id(0) * m.block() as i32, block_id(1), block_id(2));
    let (half, size) = ((m.d / 2) as i32, (m.d * m.d) as i32);
    let means = 4_i64 * kv_heads as i64 * size as i64 + ((kind * kv_heads + head) * m.d as i32) as i64;
    let mut rows = shared::<f32>(m.block() * m.d);
    for e in threads(m.block() * m.d / 2) {
        let (r, i) = (e / half, e % half);
        let token = (first + r).min(tokens - 1_i32);
        let low = rows_at(r, i, m.d);
        if kind == 0_i32 {
            let (position, slot) = (positions.at(token), slots.at(token));
            let known = (position >= 0_i32) & (position / (m.segment as i32) < segments);
            let turn = (if known { position / m.segment as i32 } else { 0_i32 }) * m.d as i32 + 2_i32 * i;
            let at = token as i64 * k_token_stride + head as i64 * k_head_stride + i as i64;
            let (a, b) = back(finite(k.at(at).to_f32()), finite(k.at(at + half as i64).to_f32()), turns.at(turn), turns.at(turn + 1_i32));
            rows.put(low, a - maps.at(means + i as i64));
            rows.put(low + half, b - maps.at(means + (i + half) as i64));
            if (head == 0_i32) & (i == 0_i32) & (first + r < tokens) {
                kept.put(token, if known { slot } else { -1_i64 });
                if !known & (slot >= 0_i64) {
                    status.put(2, 1_i32);
                    status.put(3, token);
                }
            }
        } else {
            let at = token as i64 * v_token_stride + head as i64 * v_head_stride + i as i64;
            rows.put(low, finite(v.at(at).to_f32()) - maps.at(means + i as i64));
            rows.put(low + half, finite(v.at(at + half as i64).to_f32()) - maps.at(means + (i + half) as i64));
        }
    }
    for t in threads(128) {
        let (q, own) = (t % (m.d / 4) as i32, t / (m.d / 4) as i32 * m.rows as i32);
        let sums = products(maps, ((kind * kv_heads + head) as i64 * size as i64 + (4_i32 * q) as i64) * 4_i64, &rows, own, m.rows, m.d);
        for r in 0..m.rows {
            let token = first + own + r as i32;
            if token < tokens {
                let row = ((kind as i64 * tokens as i64 + token as i64) * kv_heads as i64 + head as i64) * m.d as i64;
                y.save4::<f32>((row + (4_i32 * q) as i64) * 4_i64, [sums[4 * r], sums[4 * r + 1], sums[4 * r + 2], sums[4 * r + 3]]);
            }
        }
    }
}

/// Element `i` of row `r`.
#[device]
fn rows_at(r: i32, i: i32, d: usize) -> i32 {
    r * d as i32 + i
}
