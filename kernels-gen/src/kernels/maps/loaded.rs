//! Loaded coordinates back to keys and values: `y B + mu`, keys turned forth from the start of their segment. With the
//! bits of `reference::Calibrated::row_of`.

use super::{MapMeta, products};
use kernel_dsl::prelude::*;

/// The grid has an axis for keys and values, see [`crate::kernels::rows_grid`].
#[kernel]
pub fn map_loaded<T: Float>(
    m: MapMeta,
    y: &Global<f32>,         // [2, tokens, kv_heads, d]: coordinates of keys, of values
    positions: &Global<i32>, // [tokens], from the start of a token's sequence
    slots: &Global<i64>,     // [tokens]; below 0: rows that are left alone
    turns: &Global<f32>,     // [segments, d / 2, 2]: cosine, sine
    maps: &Global<f32>,      // a layer's, as `preset::LayerMaps::packed` has them
    k: &mut Global<T>,       // [tokens, kv_heads, d]
    v: &mut Global<T>,       // likewise
    tokens: i32,
    kv_heads: i32,
    segments: i32,
) {
    let (first, head, kind) = (block_id(0) * m.block() as i32, block_id(1), block_id(2));
    let size = (m.d * m.d) as i32;
    let means = 4_i64 * kv_heads as i64 * size as i64 + ((kind * kv_heads + head) * m.d as i32) as i64;
    let mut rows = shared::<f32>(m.block() * m.d);
    let mut sums = shared::<f32>(m.block() * m.d);
    for e in threads(m.block() * m.d) {
        let token = (first + e / m.d as i32).min(tokens - 1_i32);
        let row = (kind as i64 * tokens as i64 + token as i64) * kv_heads as i64 + head as i64;
        rows.put(e, y.at(row * m.d as i64 + (e % m.d as i32) as i64));
    }
    for t in threads(128) {
        let (q, own) = (t % (m.d / 4) as i32, t / (m.d / 4) as i32 * m.rows as i32);
        let matrix = ((2_i32 + kind) * kv_heads + head) as i64 * size as i64 * 4_i64;
        let found = if kind == 0_i32 {
            across(maps, matrix + (16_i32 * q * m.d as i32) as i64, &rows, own, m.rows, m.d)
        } else {
            products(maps, matrix + (16_i32 * q) as i64, &rows, own, m.rows, m.d)
        };
        for r in 0..m.rows {
            for j in 0..4 {
                sums.put((own + r as i32) * m.d as i32 + 4_i32 * q + j as i32, found[4 * r + j] + maps.at(means + (4_i32 * q + j as i32) as i64));
            }
        }
    }
    let half = (m.d / 2) as i32;
    for e in threads(m.block() * m.d / 2) {
        let (r, i) = (e / half, e % half);
        let token = first + r;
        let place = token.min(tokens - 1_i32);
        if (token < tokens) & (slots.at(place) >= 0_i64) {
            let (a, b) = (sums.at(r * m.d as i32 + i), sums.at(r * m.d as i32 + i + half));
            let to = (token as i64 * kv_heads as i64 + head as i64) * m.d as i64 + i as i64;
            if kind == 0_i32 {
                let segment = (positions.at(place) / m.segment as i32).max(0_i32).min(segments - 1_i32);
                let turn = segment * m.d as i32 + 2_i32 * i;
                let (cos, sin) = (turns.at(turn), turns.at(turn + 1_i32));
                k.put(to, T::from_f32(a.mul_add(cos, -(b * sin))));
                k.put(to + half as i64, T::from_f32(b.mul_add(cos, a * sin)));
            } else {
                v.put(to, T::from_f32(a));
                v.put(to + half as i64, T::from_f32(b));
            }
        }
    }
}

/// As `products` with the matrix transposed: four of its lines, the first at byte `at`, times `n` rows.
#[device]
fn across(maps: &Global<f32>, at: i64, rows: &Shared<f32>, first: i32, n: usize, d: usize) -> [f32; 64] {
    let mut sums = [0.0_f32; 64];
    for i in strided(0_i32, (d / 4) as i32, 1) {
        let mut lines = [[0.0_f32; 4]; 4];
        for j in 0..4 {
            lines[j] = maps.load4::<f32>(at + (4 * d * j) as i64 + (16_i32 * i) as i64);
        }
        for r in 0..n {
            let x = rows.load4::<f32>((first + r as i32) * (4 * d) as i32 + 16_i32 * i);
            for k in 0..4 {
                for j in 0..4 {
                    sums[4 * r + j] = lines[j][k].mul_add(x[k], sums[4 * r + j]);
                }
            }
        }
    }
    sums
}
