//! Exact causal attention in f32 over plain rows: what every codec is measured against.
//!
//! A block takes `rows` query rows of one kv head, token by token with the whole group, and walks the keys in tiles of
//! `keys`. Sixteen by sixteen threads hold a small product each; scores, weights and outputs live in shared memory
//! between the steps. A row's result depends on `keys` alone: dims, keys and tiles are added in ascending order.
//!
//! Cost: 4 d flops a query row and visible key; reads K and V once for each `rows` rows; bound by f32 arithmetic.

use super::THREADS;
use crate::kernels::softmax::weight;
use kernel_dsl::prelude::*;

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AttentionMeta {
    /// Dims of a head: 64, 128 or 256.
    pub d: usize,
    /// Query heads that share a kv head, 1 to `rows`.
    pub group: usize,
    /// Query rows of a block: 16, 32, 64 or 128.
    pub rows: usize,
    /// Keys of a tile: 16, 32 or 64. Part of the result's definition.
    pub keys: usize,
}

impl AttentionMeta {
    /// As many rows as shared memory holds; `limit` is what a block may have, in bytes.
    pub fn of(d: usize, group: usize, keys: usize, limit: usize) -> AttentionMeta {
        let sizes = [128, 64, 32, 16].map(|rows| AttentionMeta { d, group, rows, keys });
        let fits = |m: &&AttentionMeta| m.rows >= group && m.rows * d <= 64 * 256 && m.shared_bytes() <= limit;
        *sizes.iter().find(fits).unwrap_or(&sizes[3])
    }

    fn shared_bytes(&self) -> usize {
        let AttentionMeta { d, rows, keys, .. } = *self;
        4 * (2 * rows * d + keys * (d + 4) + rows * (keys + 4) + 16 * rows) + 1024
    }

    /// Tokens of a block.
    pub fn tokens(&self) -> usize {
        self.rows / self.group
    }

    pub fn blocks(&self, queries: usize) -> usize {
        queries.div_ceil(self.tokens())
    }
}

impl Meta for AttentionMeta {
    fn launch(&self) -> Launch {
        Launch { warps: THREADS / 32, min_blocks: 1 }
    }
}

/// The scores of a tile, the query of row `r` seeing keys up to `last[r]`: one chain of fused multiply-adds over d each.
#[device]
fn score(qs: &Shared<f32>, ks: &Shared<f32>, last: &Shared<i32>, ps: &mut Shared<f32>, i: i32, key: i32, d: usize, rows: usize, keys: usize) {
    let (ty, tx) = ((i >> 4_u32) * (rows / 16) as i32, i & 15_i32);
    let mut s = [0.0_f32; 32];
    for c in strided(0_i32, (d / 4) as i32, 1) {
        let mut part = [0.0_f32; 16];
        for b in 0..keys / 16 {
            let four = ks.load4::<f32>(((tx + (16 * b) as i32) * (d + 4) as i32 + c * 4_i32) * 4_i32);
            for e in 0..4 {
                part[4 * b + e] = four[e];
            }
        }
        for a in 0..rows / 16 {
            let four = qs.load4::<f32>(((ty + a as i32) * d as i32 + c * 4_i32) * 4_i32);
            for b in 0..keys / 16 {
                for e in 0..4 {
                    s[4 * a + b] = four[e].mul_add(part[4 * b + e], s[4 * a + b]);
                }
            }
        }
    }
    for a in 0..rows / 16 {
        let seen = last.at(ty + a as i32);
        for b in 0..keys / 16 {
            let at = tx + (16 * b) as i32;
            ps.put((ty + a as i32) * (keys + 4) as i32 + at, if key + at <= seen { s[4 * a + b] } else { f32::NEG_INFINITY });
        }
    }
}

/// Largest of a row's four partial maxima.
#[device]
fn peak(tops: &Shared<f32>, r: i32) -> f32 {
    let t = tops.load4::<f32>(r * 16_i32);
    fmax(fmax(t[0], t[1]), fmax(t[2], t[3]))
}

/// A quarter of a row's scores become weights under `next`; gives their sum.
#[device]
fn weigh(ps: &mut Shared<f32>, i: i32, next: f32, keys: usize) -> f32 {
    let at = (i >> 2_u32) * (keys + 4) as i32 + (i & 3_i32) * 4_i32;
    let mut sum = 0.0_f32;
    for c in 0..keys / 16 {
        let s = ps.load4::<f32>((at + (16 * c) as i32) * 4_i32);
        let p = [weight(s[0], next), weight(s[1], next), weight(s[2], next), weight(s[3], next)];
        ps.save4::<f32>((at + (16 * c) as i32) * 4_i32, p);
        sum = sum + ((p[0] + p[1]) + (p[2] + p[3]));
    }
    sum
}

/// Outputs fade, then take the tile's values, key after key.
#[device]
fn mix(ps: &Shared<f32>, vs: &Shared<f32>, fades: &Shared<f32>, os: &mut Shared<f32>, i: i32, d: usize, rows: usize, keys: usize) {
    let (ty, tx) = ((i >> 4_u32) * (rows / 16) as i32, (i & 15_i32) * 4_i32);
    let mut o = [0.0_f32; 64];
    for a in 0..rows / 16 {
        let fade = fades.at(ty + a as i32);
        for h in 0..d / 64 {
            let four = os.load4::<f32>(((ty + a as i32) * d as i32 + tx + (64 * h) as i32) * 4_i32);
            for e in 0..4 {
                o[(a * (d / 64) + h) * 4 + e] = four[e] * fade;
            }
        }
    }
    for key in strided(0_i32, keys as i32, 4) {
        let mut p = [0.0_f32; 32];
        for a in 0..rows / 16 {
            let four = ps.load4::<f32>(((ty + a as i32) * (keys + 4) as i32 + key) * 4_i32);
            for e in 0..4 {
                p[4 * a + e] = four[e];
            }
        }
        for n in 0..4 {
            for h in 0..d / 64 {
                let v = vs.load4::<f32>(((key + n as i32) * (d + 4) as i32 + tx + (64 * h) as i32) * 4_i32);
                for a in 0..rows / 16 {
                    for e in 0..4 {
                        o[(a * (d / 64) + h) * 4 + e] = p[4 * a + n].mul_add(v[e], o[(a * (d / 64) + h) * 4 + e]);
                    }
                }
            }
        }
    }
    for a in 0..rows / 16 {
        for h in 0..d / 64 {
            let at = (a * (d / 64) + h) * 4;
            os.save4::<f32>(((ty + a as i32) * d as i32 + tx + (64 * h) as i32) * 4_i32, [o[at], o[at + 1], o[at + 2], o[at + 3]]);
        }
    }
}

/// A tile of keys or values to shared memory, four numbers a thread.
#[device]
fn bring(x: &Global<f32>, to: &mut Shared<f32>, j: i32, key: i32, tokens: i32, head: i32, kv_heads: i32, d: usize) {
    let (r, c) = (j / (d / 4) as i32, (j & (d / 4 - 1) as i32) * 4_i32);
    let row = (key + r).min(tokens - 1_i32) as i64 * kv_heads as i64 + head as i64;
    to.save4::<f32>((r * (d + 4) as i32 + c) * 4_i32, x.load4::<f32>((row * d as i64 + c as i64) * 4_i64));
}

#[kernel]
pub fn attention(
    m: AttentionMeta,
    q: &Global<f32>,       // [queries, kv_heads, group, d]
    k: &Global<f32>,       // [tokens, kv_heads, d]
    v: &Global<f32>,       // likewise
    at: &Global<i32>,      // [queries]: positions, ascending; a query sees the keys up to its own
    out: &mut Global<f32>, // as q
    queries: i32,
    kv_heads: i32,
    scale: f32, // times log2 e
) {
    let (blocks, each) = ((queries + (m.tokens() as i32 - 1_i32)) / m.tokens() as i32, m.tokens() as i32);
    // The longest rows first: the short ones fill the gaps.
    let (first, head) = ((blocks - 1_i32 - block_id(0)) * each, block_id(1));
    let seen = at.at((first + each).min(queries) - 1_i32) + 1_i32;
    let mut qs = shared::<f32>(m.rows * m.d);
    let mut kv = shared::<f32>(m.keys * (m.d + 4));
    let mut ps = shared::<f32>(m.rows * (m.keys + 4));
    let mut os = shared::<f32>(m.rows * m.d);
    let mut last = shared::<i32>(m.rows);
    let mut top = shared::<f32>(m.rows);
    let mut sum = shared::<f32>(m.rows);
    let mut fades = shared::<f32>(m.rows);
    let mut tops = shared::<f32>(m.rows * 4);
    let mut sums = shared::<f32>(m.rows * 4);
    for j in threads(m.rows * m.d / 4) {
        let (r, c) = (j / (m.d / 4) as i32, (j & (m.d / 4 - 1) as i32) * 4_i32);
        let token = (first + r / m.group as i32).min(queries - 1_i32);
        let row = ((token * kv_heads + head) * m.group as i32 + r % m.group as i32) as i64;
        let x = q.load4::<f32>((row * m.d as i64 + c as i64) * 4_i64);
        qs.save4::<f32>(j * 16_i32, [x[0] * scale, x[1] * scale, x[2] * scale, x[3] * scale]);
        os.save4::<f32>(j * 16_i32, [0.0_f32, 0.0_f32, 0.0_f32, 0.0_f32]);
        if c == 0_i32 {
            last.put(r, at.at(token));
            top.put(r, f32::NEG_INFINITY);
            sum.put(r, 0.0_f32);
        }
    }
    for key in strided(0_i32, seen, m.keys) {
        for j in threads(m.keys * m.d / 4) {
            bring(k, &mut kv, j, key, seen, head, kv_heads, m.d);
        }
        for i in threads(THREADS) {
            score(&qs, &kv, &last, &mut ps, i, key, m.d, m.rows, m.keys);
        }
        for j in threads(m.keys * m.d / 4) {
            bring(v, &mut kv, j, key, seen, head, kv_heads, m.d);
        }
        for i in threads(m.rows * 4) {
            let mut most = top.at(i >> 2_u32);
            for c in 0..m.keys / 16 {
                let s = ps.load4::<f32>(((i >> 2_u32) * (m.keys + 4) as i32 + (i & 3_i32) * 4_i32 + (16 * c) as i32) * 4_i32);
                most = fmax(most, fmax(fmax(s[0], s[1]), fmax(s[2], s[3])));
            }
            tops.put(i, most);
        }
        for i in threads(m.rows * 4) {
            let next = peak(&tops, i >> 2_u32);
            sums.put(i, weigh(&mut ps, i, next, m.keys));
            if (i & 3_i32) == 0_i32 {
                fades.put(i >> 2_u32, weight(top.at(i >> 2_u32), next));
            }
        }
        for r in threads(m.rows) {
            let s = sums.load4::<f32>(r * 16_i32);
            sum.put(r, sum.at(r).mul_add(fades.at(r), (s[0] + s[1]) + (s[2] + s[3])));
            top.put(r, peak(&tops, r));
        }
        for i in threads(THREADS) {
            mix(&ps, &kv, &fades, &mut os, i, m.d, m.rows, m.keys);
        }
    }
    for j in threads(m.rows * m.d / 4) {
        let (r, c) = (j / (m.d / 4) as i32, (j & (m.d / 4 - 1) as i32) * 4_i32);
        let token = first + r / m.group as i32;
        if (token < queries) & (r < each * m.group as i32) {
            let row = ((token * kv_heads + head) * m.group as i32 + r % m.group as i32) as i64;
            let o = os.load4::<f32>(j * 16_i32);
            let l = sum.at(r);
            out.save4::<f32>((row * m.d as i64 + c as i64) * 4_i64, [o[0] / l, o[1] / l, o[2] / l, o[3] / l]);
        }
    }
}
