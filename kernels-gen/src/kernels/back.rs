//! Loaded coordinates of a calibrated codec back to keys and values: `y B + mu`, keys turned forth from the start of their
//! segment. Attention maps queries and outputs instead; only measurements see single rows, so this is plain f32.
//!
//! A thread takes four columns of several rows. Cost: d^2 multiply-adds a row; a block reads a matrix once.

use kernel_dsl::prelude::*;

/// Shape of the kernel.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BackMeta {
    pub d: usize,
    /// Tokens of a segment.
    pub segment: usize,
    /// Rows of a thread, up to 16.
    pub rows: usize,
}

impl BackMeta {
    /// Rows of a block.
    pub fn block(&self) -> usize {
        self.rows * 512 / self.d
    }
}

impl Meta for BackMeta {
    fn launch(&self) -> Launch {
        Launch { warps: 4, min_blocks: 2 }
    }
}

/// The grid has an axis for keys and values, see [`super::back_grid`].
#[kernel]
pub fn map_back<T: Float>(
    m: BackMeta,
    y: &Global<f32>,         // [2, tokens, kv_heads, d]: coordinates of keys, of values
    positions: &Global<i32>, // [tokens], from the start of a token's sequence
    slots: &Global<i64>,     // [tokens]; below 0: rows that are left alone
    turns: &Global<f32>,     // [segments, d / 2, 2]: cosine, sine
    maps: &Global<f32>,      // a layer's, as `preset::LayerMaps::backs` has them
    k: &mut Global<T>,       // [tokens, kv_heads, d]
    v: &mut Global<T>,       // likewise
    tokens: i32,
    kv_heads: i32,
    segments: i32,
) {
    let (first, head, kind) = (block_id(0) * m.block() as i32, block_id(1), block_id(2));
    let size = (m.d * m.d) as i32;
    let means = 2_i64 * kv_heads as i64 * size as i64 + ((kind * kv_heads + head) * m.d as i32) as i64;
    let mut rows = shared::<f32>(m.block() * m.d);
    let mut sums = shared::<f32>(m.block() * m.d);
    for e in threads(m.block() * m.d) {
        let token = (first + e / m.d as i32).min(tokens - 1_i32);
        let row = (kind as i64 * tokens as i64 + token as i64) * kv_heads as i64 + head as i64;
        rows.put(e, y.at(row * m.d as i64 + (e % m.d as i32) as i64));
    }
    for t in threads(128) {
        let (q, own) = (t % (m.d / 4) as i32, t / (m.d / 4) as i32 * m.rows as i32);
        let found = product(maps, ((kind * kv_heads + head) as i64 * size as i64 + (4_i32 * q) as i64) * 4_i64, &rows, own, m.rows, m.d);
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

/// `n` rows from row `first` on times four columns of the matrix whose first line has them at byte `at`: four sums a row, dims
/// in order.
#[device]
fn product(maps: &Global<f32>, at: i64, rows: &Shared<f32>, first: i32, n: usize, d: usize) -> [f32; 64] {
    let mut sums = [0.0_f32; 64];
    for i in strided(0_i32, (d / 4) as i32, 1) {
        let mut lines = [[0.0_f32; 4]; 4];
        for k in 0..4 {
            lines[k] = maps.load4::<f32>(at + ((4_i32 * i + k as i32) * (4 * d) as i32) as i64);
        }
        for r in 0..n {
            let x = rows.load4::<f32>((first + r as i32) * (4 * d) as i32 + 16_i32 * i);
            for k in 0..4 {
                for j in 0..4 {
                    sums[4 * r + j] = lines[k][j].mul_add(x[k], sums[4 * r + j]);
                }
            }
        }
    }
    sums
}
