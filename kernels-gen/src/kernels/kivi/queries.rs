//! The query's side of a tile whose keys have a step a channel: the steps go into the query, and the query becomes integers
//! anew in every tile.
//!
//! `q k = sum (q step) digit + sum q least`. The largest product of a head and tile becomes an integer in [2^13, 2^14) by a power
//! of two, so that each splits into a signed byte and seven bits, `128 h + l`, and dots with digits are exact. The second sum, f32,
//! has a fixed order: eight chains of an eighth of the dims each, joined in pairs.

use super::super::decode_attention::DecodeMeta;
use super::super::keys::{high_half, low_half};
use super::super::query::finite;
use kernel_dsl::prelude::*;

/// Byte of four dims, the `u`-th of chain `a`, among query rows and key pairs: what eight lanes read at once lies side by side.
#[device]
fn four_at(u: usize, a: i32) -> i32 {
    ((8 * u) as i32 + a) * 16_i32
}

/// The block's query rows, those past the last one 0, in the order of [`four_at`].
#[device]
#[allow(clippy::too_many_arguments)]
pub fn take_rows<T: Float>(m: &DecodeMeta, q: &Global<T>, rows: &mut Shared<f32>, first: i32) {
    for i in threads(8 * m.heads()) {
        let (c, a) = (i >> 3_u32, i & 7_i32);
        let from = (first + c.min(m.rows() as i32 - 1_i32)) as i64 * m.d as i64 + (a * (m.d / 8) as i32) as i64;
        for u in 0..m.d / 32 {
            for e in 0..4 {
                let x = finite(q.at(from + (4 * u + e) as i64).to_f32());
                rows.put(c * m.d as i32 + (four_at(u, a) >> 2_u32) + e as i32, if c < m.rows() as i32 { x } else { 0.0_f32 });
            }
        }
    }
}

/// The largest product of each chain of each head, as bits, and what the chain's least values come to. Warp `w`.
#[device]
pub fn measure(m: &DecodeMeta, tokens: &Page, rows: &Shared<f32>, tops: &mut Shared<i32>, leans: &mut Shared<f32>, w: i32) {
    for i in lanes(8 * m.heads()) {
        let (c, a) = (i >> 3_u32, i & 7_i32);
        let (mut top, mut lean) = (0_i32, 0.0_f32);
        for u in 0..m.d / 32 {
            let pairs = tokens.load4::<u32>(four_at(u, a) + m.sides_at as i32);
            let q = rows.load4::<f32>(four_at(u, a) + c * (4 * m.d) as i32);
            for e in 0..4 {
                top = top.max((q[e] * low_half(pairs[e])).abs().to_bits() as i32);
                lean = q[e].mul_add(high_half(pairs[e]), lean);
            }
        }
        tops.put(w * (8 * m.heads()) as i32 + i, top);
        leans.put(w * (8 * m.heads()) as i32 + i, lean);
    }
}

/// Biased exponent of the power of two that brings a magnitude to [2^13, 2^14), a little below its end.
#[device]
pub fn lift_of(top: f32) -> i32 {
    (267_i32 - ((top * 1.0009766_f32).to_bits() >> 23) as i32).max(1_i32).min(253_i32)
}

/// Eight partial sums.
#[device]
pub fn joined8(a: [f32; 4], b: [f32; 4]) -> f32 {
    ((a[0] + a[1]) + (a[2] + a[3])) + ((b[0] + b[1]) + (b[2] + b[3]))
}

/// The integers of a product, in the lower 16 bits.
#[device]
pub fn integer_of(z: f32, up: f32) -> u32 {
    z.mul_add(up, 12582912.0_f32).to_bits()
}

/// A warp's integers for a tile, high bytes of the heads' rows and then low ones; what one is worth in log2 units and what is
/// added to a score, a column each.
#[device]
#[allow(clippy::too_many_arguments)]
pub fn quantise(m: &DecodeMeta, tokens: &Page, rows: &Shared<f32>, tops: &Shared<i32>, leans: &Shared<f32>, query: &mut Shared<u8>, units: &mut Shared<f32>, w: i32, scale: f32) {
    for i in lanes(8 * m.heads()) {
        let (c, a) = (i >> 3_u32, i & 7_i32);
        let from = (w * m.heads() as i32 + c) * 32_i32;
        let (x, y) = (tops.load4::<i32>(from), tops.load4::<i32>(from + 16_i32));
        let lift = lift_of(f32::from_bits(x[0].max(x[1]).max(x[2].max(x[3])).max(y[0].max(y[1]).max(y[2].max(y[3]))) as u32));
        let up = f32::from_bits((lift as u32) << 23);
        let to = w * m.query_bytes() as i32 + c * m.row_bytes() as i32 + a * (m.d / 8) as i32;
        for u in 0..m.d / 32 {
            let pairs = tokens.load4::<u32>(four_at(u, a) + m.sides_at as i32);
            let q = rows.load4::<f32>(four_at(u, a) + c * (4 * m.d) as i32);
            let mut v = [0_u32; 4];
            for e in 0..4 {
                v[e] = integer_of(q[e] * low_half(pairs[e]), up);
            }
            let (left, right) = (pick(v[0], v[1], 0x5410_u32), pick(v[2], v[3], 0x5410_u32));
            query.save::<u32>(to + (4 * u) as i32, pick(left >> 7, right >> 7, 0x6420_u32));
            query.save::<u32>(to + (m.heads() * m.row_bytes() + 4 * u) as i32, pick(left, right, 0x6420_u32) & 0x7f7f_7f7f_u32);
        }
        if a == 0_i32 {
            let unit = scale * 1.442695_f32;
            let bias = joined8(leans.load4::<f32>(from), leans.load4::<f32>(from + 16_i32)) * unit;
            for part in 0..m.parts {
                let column = w * (2 * m.cols) as i32 + c + (part * m.heads()) as i32;
                units.put(column, f32::from_bits(((254_i32 - lift) as u32) << 23) * unit);
                units.put(column + m.cols as i32, bias);
            }
        }
    }
}
