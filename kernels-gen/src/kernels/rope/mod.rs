//! Keys and queries as projections leave them: normalised a head at a time where the model does so, turned by RoPE.
//!
//! Four threads a row, each every fourth block of eight, as the store takes them. All in f32, rounded once at the end.
//! Sums of squares have a fixed order; root and division round correctly; so reference, interpreter and GPU agree.

pub mod mapped;
pub mod rows;
pub mod store;

use super::arguments::Rows;
use super::query::finite;
use super::rows::{blocks_at, raw};
use super::store::StoreMeta;
use kernel_dsl::prelude::*;

/// What keys and queries pass. A kernel is built for one of these.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Rope {
    /// Coordinates that turn, the first ones: a multiple of 16.
    pub dims: usize,
    /// Neighbours turn together (GPT-J), not coordinates half of `dims` apart (NeoX, Hugging Face).
    pub pairs: bool,
    /// Rows are divided by their root mean square.
    pub norm: bool,
    /// And multiplied by a weight a coordinate.
    pub weights: bool,
    /// Bytes of a cosine or sine of the table: 2 (bf16) or 4 (f32).
    pub table_elem: usize,
    /// Query heads of a kv head that pass too; 0: queries are left alone.
    pub group: usize,
    /// Keys are also given back.
    pub keys: bool,
}

/// What keys and queries are turned by.
#[device]
pub struct Turns {
    /// `[tokens]`: each token's place in its sequence
    pub positions: Global<i32>,
    /// `[turns, dims]`: cosines, then sines
    pub table: Global<u8>,
    /// Places that the table holds.
    pub turns: i32,
    /// Added to the mean square.
    pub epsilon: f32,
}

/// The rest of what keys and queries pass: weights, and where they are given back.
#[device]
pub struct Passed<T: Float> {
    /// `[d]`
    pub k_weight: Global<f32>,
    pub q_weight: Global<f32>,
    /// `[tokens, kv_heads, d]`
    #[out]
    pub k_out: Global<T>,
    /// `[tokens, heads, d]`
    #[out]
    pub q_out: Global<T>,
}

/// The place of a token in the table, and whether it holds it.
#[device]
pub fn place_in(turns: &Turns, token: i32) -> (i32, bool) {
    let position = turns.positions.at(token);
    (position, (position >= 0_i32) & (position < turns.turns))
}

/// A thread's share of a row's sum of squares: four fused chains over its coordinates 0, 4, .. and so on.
#[device]
fn squares_of<T: Float>(m: &StoreMeta, x: &Global<T>, at: i64, j: i32) -> f32 {
    let x = raw::<T>(x, at, j, m.d, m.elem);
    let mut all = [0.0_f32; 4];
    for i in 0..m.d / 4 {
        all[i % 4] = x[i].mul_add(x[i], all[i % 4]);
    }
    (all[0] + all[1]) + (all[2] + all[3])
}

/// First byte of a row.
#[device]
pub fn row_at<T: Float>(m: &StoreMeta, x: &Rows<T>, token: i32, head: i32) -> i64 {
    (token as i64 * x.token_stride + head as i64 * x.head_stride) * m.elem as i64
}

/// First byte of a row of `[tokens, heads, d]` without gaps.
#[device]
fn given_at(m: &StoreMeta, token: i32, head: i32, heads: i32) -> i64 {
    (token as i64 * (heads * m.d as i32) as i64 + head as i64 * m.d as i64) * m.elem as i64
}

/// Sums of squares of a block's 32 rows, four a row, where rows are normalised.
#[device]
pub fn measure<T: Float>(m: &StoreMeta, x: &Rows<T>, sums: &mut Shared<f32>, head: i32, tokens: i32) {
    if m.rope.norm {
        for i in threads(128) {
            let token = (block_id(0) * 32_i32 + (i >> 2_u32)).min(tokens - 1_i32);
            sums.put(i, squares_of::<T>(m, &x.base, row_at::<T>(m, x, token, head), i & 3_i32));
        }
    }
}

/// One over the root of a row's mean square.
#[device]
fn inverse_rms(m: &StoreMeta, sums: &Shared<f32>, r: i32, epsilon: f32) -> f32 {
    if m.rope.norm {
        let s = sums.load4::<f32>(r * 16_i32);
        1.0_f32 / (((s[0] + s[1]) + (s[2] + s[3])) * m.inverse() + epsilon).sqrt()
    } else {
        1.0_f32
    }
}

/// So many blocks of eight, `step` apart from block `first` on, times `by` and then the weights.
#[device]
fn normed(m: &StoreMeta, x: [f32; 128], weight: &Global<f32>, by: f32, first: i32, step: usize, count: usize) -> [f32; 128] {
    let mut x = x;
    if m.rope.norm {
        for i in 0..8 * count {
            x[i] = x[i] * by;
        }
    }
    if m.rope.weights {
        for k in 0..2 * count {
            let w = weight.load4::<f32>((first + (step * (k / 2)) as i32) * 32_i32 + (k % 2 * 16) as i32);
            for e in 0..4 {
                x[4 * k + e] = x[4 * k + e] * w[e];
            }
        }
    }
    x
}

/// Eight cosines or sines, from element `at` of the row of the table that begins at byte `row` on.
#[device]
fn eight(m: &StoreMeta, table: &Global<u8>, row: i64, at: i32) -> [f32; 8] {
    let mut out = [0.0_f32; 8];
    let byte = row + (at * m.rope.table_elem as i32) as i64;
    let w = table.load4::<u32>(byte);
    let mut more = w;
    if m.rope.table_elem == 4 {
        more = table.load4::<u32>(byte + 16_i64);
    }
    for e in 0..4 {
        if m.rope.table_elem == 4 {
            out[e] = f32::from_bits(w[e]);
            out[4 + e] = f32::from_bits(more[e]);
        } else {
            out[2 * e] = f32::from_bits(w[e] << 16);
            out[2 * e + 1] = f32::from_bits(w[e] & 0xffff_0000_u32);
        }
    }
    out
}

/// Four of them.
#[device]
fn four(m: &StoreMeta, table: &Global<u8>, row: i64, at: i32) -> [f32; 4] {
    let byte = row + (at * m.rope.table_elem as i32) as i64;
    if m.rope.table_elem == 4 {
        table.load4::<f32>(byte)
    } else {
        let (a, b) = (table.load::<u32>(byte), table.load::<u32>(byte + 4_i64));
        [f32::from_bits(a << 16), f32::from_bits(a & 0xffff_0000_u32), f32::from_bits(b << 16), f32::from_bits(b & 0xffff_0000_u32)]
    }
}

/// Neighbours turn together.
#[device]
fn turn_pairs(m: &StoreMeta, x: [f32; 128], table: &Global<u8>, row: i64, j: i32) -> [f32; 128] {
    let mut x = x;
    for k in 0..m.d / 32 {
        let block = j + (4 * k) as i32;
        if (32 * k < m.rope.dims) & (block < (m.rope.dims / 8) as i32) {
            let cos = four(m, table, row, block * 4_i32);
            let sin = four(m, table, row, block * 4_i32 + (m.rope.dims / 2) as i32);
            for e in 0..4 {
                let (a, b) = (x[8 * k + 2 * e], x[8 * k + 2 * e + 1]);
                x[8 * k + 2 * e] = a.mul_add(cos[e], -(b * sin[e]));
                x[8 * k + 2 * e + 1] = b.mul_add(cos[e], a * sin[e]);
            }
        }
    }
    x
}

/// Coordinates half of the turning ones apart, both of them this thread's.
#[device]
fn turn_halves(m: &StoreMeta, x: [f32; 128], table: &Global<u8>, row: i64, j: i32) -> [f32; 128] {
    let mut x = x;
    for k in 0..m.rope.dims / 64 {
        let at = (j + (4 * k) as i32) * 8_i32;
        let cos = eight(m, table, row, at);
        let sin = eight(m, table, row, at + (m.rope.dims / 2) as i32);
        for e in 0..8 {
            let (a, b) = (x[8 * k + e], x[8 * k + e + m.rope.dims / 8]);
            x[8 * k + e] = a.mul_add(cos[e], -(b * sin[e]));
            x[8 * k + e + m.rope.dims / 8] = b.mul_add(cos[e], a * sin[e]);
        }
    }
    x
}

/// As `turn_halves` where the other one is another thread's: it is loaded once more.
#[device]
#[allow(clippy::too_many_arguments)]
fn turn_apart<T: Float>(m: &StoreMeta, own: [f32; 128], x: &Global<T>, at: i64, weight: &Global<f32>, by: f32, table: &Global<u8>, row: i64, j: i32) -> [f32; 128] {
    let mut y = own;
    let half = (m.rope.dims / 16) as i32;
    for k in 0..m.d / 32 {
        let block = j + (4 * k) as i32;
        if (32 * k < m.rope.dims) & (block < 2_i32 * half) {
            let low = block < half;
            let (first, other) = (if low { block } else { block - half }, if low { block + half } else { block - half });
            let b = normed(m, blocks_at::<T>(x, at, other, 1, 1, m.elem), weight, by, other, 1, 1);
            let cos = eight(m, table, row, first * 8_i32);
            let sin = eight(m, table, row, (first + half) * 8_i32);
            for e in 0..8 {
                y[8 * k + e] = y[8 * k + e].mul_add(cos[e], b[e] * if low { -sin[e] } else { sin[e] });
            }
        }
    }
    y
}

/// Every fourth block of eight, from block `j` on, of row `r` of a block: as attention wants it, in f32.
#[device]
#[allow(clippy::too_many_arguments)]
pub fn roped<T: Float>(m: &StoreMeta, x: &Rows<T>, token: i32, head: i32, weight: &Global<f32>, sums: &Shared<f32>, turns: &Turns, position: i32, r: i32, j: i32) -> [f32; 128] {
    let at = row_at::<T>(m, x, token, head);
    let by = inverse_rms(m, sums, r, turns.epsilon);
    let row = position as i64 * (m.rope.dims * m.rope.table_elem) as i64;
    let own = normed(m, raw::<T>(&x.base, at, j, m.d, m.elem), weight, by, j, 4, m.d / 32);
    if m.rope.pairs { turn_pairs(m, own, &turns.table, row, j) } else { if m.rope.dims % 64 == 0 { turn_halves(m, own, &turns.table, row, j) } else { turn_apart::<T>(m, own, &x.base, at, weight, by, &turns.table, row, j) } }
}

/// Every fourth block of a row from block `j` on, to byte `at`: rounded to the type of the output; zeros unless `known`.
#[device]
pub fn leave<T: Float>(m: &StoreMeta, out: &mut Global<T>, at: i64, x: [f32; 128], known: bool, j: i32) {
    for k in 0..m.d / 32 {
        let byte = at + ((j + (4 * k) as i32) * (8 * m.elem) as i32) as i64;
        let mut y = [0.0_f32; 8];
        for e in 0..8 {
            y[e] = if known { finite(x[8 * k + e]) } else { 0.0_f32 };
        }
        if m.elem == 4 {
            out.save4::<f32>(byte, [y[0], y[1], y[2], y[3]]);
            out.save4::<f32>(byte + 16_i64, [y[4], y[5], y[6], y[7]]);
        } else {
            let mut w = [0_u32; 4];
            for e in 0..4 {
                w[e] = bf16::from_f32(y[2 * e]).to_bits() as u32 | ((bf16::from_f32(y[2 * e + 1]).to_bits() as u32) << 16);
            }
            out.save4::<u32>(byte, w);
        }
    }
}

/// A row of keys, made ready; it is given back where that is wanted and the token is there.
#[device]
#[allow(clippy::too_many_arguments)]
pub fn key_row<T: Float>(m: &StoreMeta, k: &Rows<T>, passed: &mut Passed<T>, turns: &Turns, sums: &Shared<f32>, token: i32, head: i32, heads: i32, position: i32, known: bool, there: bool, r: i32, j: i32) -> [f32; 128] {
    let row = roped::<T>(m, k, token, head, &passed.k_weight, sums, turns, if known { position } else { 0_i32 }, r, j);
    if m.rope.keys {
        if there {
            leave::<T>(m, &mut passed.k_out, given_at(m, token, head, heads), row, known, j);
        }
    }
    row
}

/// A block's 32 rows of a head, normalised and turned; they leave as `[token, head, d]`.
#[device]
#[allow(clippy::too_many_arguments)]
pub fn turn_rows<T: Float>(m: &StoreMeta, x: &Rows<T>, out: &mut Global<T>, weight: &Global<f32>, turns: &Turns, sums: &mut Shared<f32>, head: i32, heads: i32, tokens: i32) {
    measure::<T>(m, x, sums, head, tokens);
    for i in threads(128) {
        let (r, j) = (i >> 2_u32, i & 3_i32);
        let token = block_id(0) * 32_i32 + r;
        if token < tokens {
            let (position, known) = place_in(turns, token);
            let row = roped::<T>(m, x, token, head, weight, sums, turns, if known { position } else { 0_i32 }, r, j);
            leave::<T>(m, out, given_at(m, token, head, heads), row, known, j);
        }
    }
}

/// Those of query head `own` of a kv head.
#[device]
#[allow(clippy::too_many_arguments)]
pub fn turn_queries<T: Float>(m: &StoreMeta, q: &Rows<T>, passed: &mut Passed<T>, turns: &Turns, sums: &mut Shared<f32>, head: i32, own: i32, tokens: i32, kv_heads: i32) {
    if m.rope.group > 0 {
        turn_rows::<T>(m, q, &mut passed.q_out, &passed.q_weight, turns, sums, head * m.rope.group as i32 + own, kv_heads * m.rope.group as i32, tokens);
    }
}
