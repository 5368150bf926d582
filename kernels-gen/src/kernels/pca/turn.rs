//! Queries for keys before RoPE: `q R(t) k = (R(-t0) q) (R(t - t0) k)`, t0 the first token of a tile. Here each pair meets what the block's numbers
//! are worth there and becomes a part of the most that integers of 16 bits hold however it turns; attention turns it back to each tile itself.
//! Cost: reads d numbers a head, writes 4 d bytes a block and head.

use super::super::query::{finite, shown_worth};
use super::queries::{FoldMeta, own_block};
use kernel_dsl::prelude::*;

/// The longest pair of a query, in steps of its integers; its two coordinates' magnitudes are taken for its length.
pub const MOST: f32 = 32256.0;

/// As [`super::queries::fold_queries`]. A record has two pairs after another, first coordinates and then those that turn with them; then for each of 8 columns
/// the worth of a step.
#[kernel]
pub fn turn_queries<T: Float>(
    m: FoldMeta,
    q: &Global<T>,            // [batch, heads, d]
    cache: &Global<u8>,       // [pages, kv_heads, page]
    table: &Global<i32>,      // [batch, table_stride]
    lens: &Global<i32>,       // [batch]
    records: &mut Global<u8>, // [batch, kv_heads, table_stride, record]
    kv_heads: i32,
    pages: i32,
    table_stride: i32,
    scale: f32,
) {
    after_previous();
    release_next();
    let (live, page, record, first) = own_block(&m, table, lens, kv_heads, pages, table_stride);
    let factors = page + (m.behind.frames_at[0] + m.rank * m.d + m.behind.factors_at) as i64;
    let mut tops = shared::<f32>(m.heads() * m.d / 4);
    let twos = if live { (m.heads() * m.d / 4) as i32 } else { 0_i32 };
    for i in threads(twos) {
        let x = two_pairs::<T>(q, cache, first, factors, i / (m.d / 4) as i32, i % (m.d / 4) as i32, m.group, m.d);
        tops.put(i, fmax(x[0].abs() + x[2].abs(), x[1].abs() + x[3].abs()));
    }
    for i in threads(twos) {
        let (c, two) = (i / (m.d / 4) as i32, i % (m.d / 4) as i32);
        let mut top = 1e-20_f32;
        for u in 0..m.d / 16 {
            let y = tops.load4::<f32>((c * (m.d / 4) as i32 + (4 * u) as i32) * 4_i32);
            top = fmax(top, fmax(fmax(y[0], y[1]), fmax(y[2], y[3])));
        }
        let (x, by) = (two_pairs::<T>(q, cache, first, factors, c, two, m.group, m.d), MOST / top);
        records.save4::<f32>(record + (i * 16_i32) as i64, [x[0] * by, x[1] * by, x[2] * by, x[3] * by]);
        if two == 0_i32 {
            for part in 0..m.parts {
                let column = c + (part * m.heads()) as i32;
                records.save::<f32>(record + (4 * m.heads() * m.d) as i64 + (column * 4_i32) as i64, shown_worth(top * (1.0_f32 / MOST) * (scale * 1.442695_f32)));
            }
        }
    }
}

/// Pairs `2 two` and `2 two + 1` of query row `c` in the block's numbers. Rows past the last one are 0.
#[device]
#[allow(clippy::too_many_arguments)]
fn two_pairs<T: Float>(q: &Global<T>, cache: &Global<u8>, first: i64, factors: i64, c: i32, two: i32, group: usize, d: usize) -> [f32; 4] {
    let row = first + (c.min(group as i32 - 1_i32) * d as i32 + two * 2_i32) as i64;
    let mut x = [0.0_f32; 4];
    for e in 0..4 {
        let factor = cache.load::<f32>(factors + ((two * 2_i32 + (e % 2) as i32) * 4_i32) as i64);
        let y = finite(q.at(row + (e / 2 * (d / 2) + e % 2) as i64).to_f32()) * factor;
        x[e] = if c < group as i32 { y } else { 0.0_f32 };
    }
    x
}

/// A coordinate turned back, `other`: the one that turns with it; an integer in the lowest bits of `magic`.
#[device]
pub fn turned_back(x: f32, other: f32, cos: f32, sin: f32, magic: f32) -> f32 {
    x.mul_add(cos, other.mul_add(sin, magic))
}
