//! Decode attention over the coded cache, one new token a sequence: flash attention whose keys and
//! values are decoded inside the loop, straight into tensor-core operands.
//!
//! A warp walks a run of 512-token segments of one (sequence, kv head), tile after tile of 32 tokens, from a
//! ring of its own: no barrier in the loop. Every segment starts afresh and leaves one partial result, so
//! the number of splits changes who computes, not what. Sums across lanes are integers or maxima: exact.
//!
//! Cost: reads tile_bytes for 32 tokens; writes (d + 2) * 4 bytes a head and segment.

use super::maps::queries::{columns, operands};
use super::many::*;
use super::offset::{fixed_offset, offsets};
use super::query::{nearest, quantise_query, zeros_of};
use super::softmax::*;
use crate::codec::Codec;
use kernel_dsl::prelude::*;

/// Tokens of a segment. Part of the result's definition, as the order of its sums is.
pub const SEGMENT: usize = 512;

/// Shape of a decode kernel.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DecodeMeta {
    pub d: usize,
    /// Query heads of a kv head.
    pub group: usize,
    /// `group` rounded up to the tensor core's 8 columns.
    pub cols: usize,
    /// Bytes of a weight that are columns of their own: 2 with up to 4 heads, see [`kernel_dsl::tile::pair`].
    pub parts: usize,
    /// Blocks of `queries` query tokens, see [`super::prefill_attention`]; else one token a sequence.
    pub many: bool,
    pub queries: usize,
    /// The bytes of a weight have outputs of their own though they are no columns: as with two parts, for more rows.
    pub apart: bool,
    pub page_tokens: usize,
    pub tile_bytes: usize,
    /// Byte offsets in a tile: key codes and value codes of each band, side values.
    pub keys_at: [usize; 4],
    pub values_at: [usize; 2],
    pub sides_at: usize,
    /// Values are stored transposed, four tokens to a word.
    pub quads: bool,
    /// Keys are, four blocks to a word.
    pub key_quads: bool,
    /// The queries come quantised, a record of so many bytes a segment, with a bias: see [`super::maps::queries`]. 0: they do not.
    pub record: usize,
    /// Tokens of a segment; part of the result's definition.
    pub segment: usize,
    pub warps: usize,
    pub stages: usize,
    pub min_blocks: usize,
    pub inv_sqrt_d: f32,
}

impl DecodeMeta {
    /// Query rows of a block.
    pub fn rows(&self) -> usize {
        self.queries * self.group
    }

    /// With as many warps as fit a block's `shared` bytes: their number changes no result.
    pub fn within(mut self, shared: usize) -> DecodeMeta {
        let query = 2 * self.cols * self.d + 1024;
        while self.warps > 1 && self.warps * self.stages * self.tile_bytes + query > shared {
            self.warps -= 1;
        }
        self
    }
}

impl Meta for DecodeMeta {
    fn launch(&self) -> Launch {
        Launch { warps: self.warps, min_blocks: self.min_blocks }
    }
}

/// What one lane step of a vector is worth.
#[device]
fn step(c: &dyn Codec, a: f32, b: f32) -> f32 {
    bounded(c.scale([a, b]))
}

#[device]
fn low_half(x: u32) -> f32 {
    f16::from_bits(x as u16).to_f32()
}

#[device]
fn high_half(x: u32) -> f32 {
    f16::from_bits((x >> 16) as u16).to_f32()
}

/// The second byte of every lane.
#[device]
fn high_bytes(w: [u32; 4]) -> [u32; 4] {
    [w[2], w[3], 0_u32, 0_u32]
}

/// One f16 a token at byte `at`, `stride` bytes a token, as rows or as pairs.
#[device]
pub fn sides(tokens: &Page, at: usize, stride: usize, parts: usize) -> Tile<f32> {
    if parts == 2 { tokens.pairs::<f16>(at, stride).to_f32() } else { tokens.rows::<f16>(at, stride, 32).to_f32() }
}

/// Scales of a tile's keys or values, one a token, from the sides at byte `at`, `stride` bytes a token.
#[device]
fn scales(c: &dyn Codec, tokens: &Page, at: usize, stride: usize, parts: usize) -> Tile<f32> {
    if c.spec().sides == 0 {
        if parts == 2 { acc(16, 8, 1.0_f32) } else { rows(32, 1.0_f32) }
    } else {
        if c.spec().sides == 1 {
            sides(tokens, at, stride, parts).map(|a| step(c, a, 0.0_f32))
        } else {
            let (a, b) = (sides(tokens, at, stride, parts), sides(tokens, at + 2, stride, parts));
            a.map2(&b, |a, b| step(c, a, b))
        }
    }
}

/// Scales of keys and of values: one load where each has one side.
#[device]
fn both_scales(k: &dyn Codec, v: &dyn Codec, tokens: &Page, at: usize, parts: usize) -> (Tile<f32>, Tile<f32>) {
    if (k.spec().sides == 1) & (v.spec().sides == 1) {
        let both = if parts == 2 { tokens.pairs::<u32>(at, 4) } else { tokens.rows::<u32>(at, 4, 32) };
        (both.map(|x| step(k, low_half(x), 0.0_f32)), both.map(|x| step(v, high_half(x), 0.0_f32)))
    } else {
        let stride = 2 * (k.spec().sides + v.spec().sides);
        (scales(k, tokens, at, stride, parts), scales(v, tokens, at + 2 * k.spec().sides, stride, parts))
    }
}

/// A band of the query's bytes, from byte `at` on.
#[device]
fn query_part(query: &Shared<u8>, at: usize, d: usize, cols: usize, band: usize, quads: bool) -> Tile<i8> {
    let part = query.operand::<i8>(at, d, cols, band);
    if quads { part.quad_order() } else { part }
}

/// Exact dots of a tile's keys with the query, [32, cols] or pairs, band after band.
#[device]
fn dots(k: &[&dyn Codec], tokens: &Page, q_hi: &[Tile<i8>; 4], q_lo: &[Tile<i8>; 4], start: &Tile<i32>, at: [usize; 4], quads: bool, d: usize, cols: usize, parts: usize) -> Tile<f32> {
    let mut hi = acc(32, cols, 0_i32);
    let mut lo = acc(32, cols, 0_i32);
    for i in 0..k.len() {
        if quads & by_height(k, d) {
            let key: Tile<u8> = tokens.key_quads(at[i], k[i].spec().bits, d, 8, |x| k[i].raised4(x));
            hi = mma_raised(&key, &q_hi[i], k[i].spec().raised);
            if parts == 1 {
                lo = mma_raised(&key, &q_lo[i], k[i].spec().raised);
            }
        } else {
            let key: Tile<u8> = if quads { tokens.key_quads(at[i], k[i].spec().bits, d / k.len(), 8, |x| k[i].decode4(x)) } else { tokens.keys(at[i], k[i].spec().bits, d / k.len(), 8, |x| k[i].decode(x)) };
            hi = mma(&key, &q_hi[i], &hi);
            if parts == 1 {
                lo = mma(&key, &q_lo[i], &lo);
            }
        }
        if k[i].spec().wide_lanes() {
            let top: Tile<u8> = tokens.keys(at[i], k[i].spec().bits, d / k.len(), 8, |x| high_bytes(k[i].decode(x)));
            hi = &hi + &(mma(&top, &q_hi[i], 0_i32) * 256_i32);
            lo = &lo + &(mma(&top, &q_lo[i], 0_i32) * 256_i32);
        }
    }
    // With two parts the high bytes' columns stand beside the low ones'.
    let s = if parts == 2 { hi.fold_halves(128) } else { &hi * 128_i32 + &lo };
    let up = if quads & by_height(k, d) { k[0].spec().raised[7] } else { 0 };
    let first = if up > 0 { start * (1 << up) } else { start.clone() };
    let x = (if k[0].spec().even() { s + &first } else { s * 2_i32 + &first }).cast::<f32>();
    if up > 0 { x * (1.0_f32 / (1 << up) as f32) } else { x }
}

/// Whether keys are decoded with their dims at different heights: one band, whole words of four blocks.
#[device]
fn by_height(k: &[&dyn Codec], d: usize) -> bool {
    (k.len() == 1) & (d >= 128) & (k[0].spec().raised[7] > 0)
}

/// Weights as 15-bit integers under the tile's own power of two, so that a tile of small weights loses nothing
/// to a large one elsewhere: their high bytes (with two parts both bytes, side by side), their low bytes, their
/// sums and what one is worth.
#[device]
fn weights(p: Tile<f32>, parts: usize) -> (Tile<u8>, Tile<u8>, Tile<i32>, Tile<f32>) {
    // Weights are not negative: their bits order as integers.
    let peak = p.map(bits_of).max_rows();
    if parts == 2 {
        let peak = peak.map2(&peak.swap_halves(), larger);
        let w = (p * &peak.map(up)).map(nearest).split_halves();
        let total = w.sum_k();
        (w.clone(), w, total, peak.map(down))
    } else {
        let (w_lo, w_hi) = (p * &peak.map(up)).map(nearest).split_bytes();
        let total = w_hi.sum_k() * 256_i32 + w_lo.sum_k();
        (w_hi, w_lo, total, peak.map(down))
    }
}

/// A band's output [d, cols] and a tile's weighted values.
#[device]
fn weighed(c: &dyn Codec, tokens: &Page, w: &(Tile<u8>, Tile<u8>, Tile<i32>, Tile<f32>), out: &Tile<f32>, at: usize, quads: bool, d: usize, parts: usize) -> Tile<f32> {
    let base = &w.2 * -((c.spec().zero2 + 1_i32) / 2);
    let high = quads & raises(c, d);
    let v: Tile<u8> = if quads { tokens.quads(at, c.spec().bits, d, 8, |x| if high { c.raised4(x) } else { c.decode4(x) }) } else { tokens.values(at, c.spec().bits, d, 8, |x| c.decode(x)) };
    if parts == 2 {
        // Sums stay below 2^22: on top of the bits of 1.5 * 2^23 they are a float's last bits.
        let start = if high { &base * &raise(d, c.spec().raised) + 0x4b40_0000_i32 } else { acc(d, 8, 0x4b40_0000_i32) + &base };
        mma(&v, &w.0, &start).map(small_float).map3(&w.3, out, fused)
    } else {
        let start = if high { &base * &raise(d, c.spec().raised) } else { base.clone() };
        let o = if c.spec().wide_lanes() {
            let top: Tile<u8> = tokens.values(at, c.spec().bits, d, 8, |x| high_bytes(c.decode(x)));
            let hi = mma(&v, &w.0, 0_i32) + mma(&top, &w.0, 0_i32) * 256_i32;
            hi * 256_i32 + (mma(&v, &w.1, &base) + mma(&top, &w.1, 0_i32) * 256_i32)
        } else {
            mma(&v, &w.0, 0_i32) * 256_i32 + mma(&v, &w.1, &start)
        };
        o.cast::<f32>().map3(&w.3, out, fused)
    }
}

/// Whether values are decoded with their dims at different heights.
#[device]
fn raises(c: &dyn Codec, d: usize) -> bool {
    (d >= 64) & (c.spec().raised[7] > 0)
}

/// Outputs at the height of their values.
#[device]
fn lowered(c: &dyn Codec, out: &Tile<f32>, quads: bool, d: usize) -> Tile<f32> {
    if quads & raises(c, d) { out * &raise(d, c.spec().raised).cast::<f32>().map(inverse) } else { out.clone() }
}

#[device]
fn inverse(x: f32) -> f32 {
    1.0_f32 / x
}

/// x from the bits of x + 1.5 * 2^23.
#[device]
fn small_float(x: i32) -> f32 {
    f32::from_bits(x as u32) - 12582912.0_f32
}

/// Largest score of a column, both halves of the tokens.
#[device]
fn peaks(x: &Tile<f32>, parts: usize) -> Tile<f32> {
    let peak = x.max_rows();
    if parts == 2 { peak.map2(&peak.swap_halves(), fmax) } else { peak }
}

/// Sums of the two bytes' columns, joined.
#[device]
fn whole(x: &Tile<f32>, parts: usize) -> Tile<f32> {
    if parts == 2 { x.mul_add(256.0_f32, &x.swap_halves()) } else { x.clone() }
}

/// Sum of weights over both halves of the tokens.
#[device]
fn total_of(sum: &Tile<i64>, parts: usize) -> Tile<i64> {
    let total = sum.sum_rows();
    if parts == 2 { &total + &total.swap_halves() } else { total }
}

/// Attention of a block's query rows over its share of the segments: the first `rows` of the columns. With many
/// queries the block has the tokens from `first` on of a sequence's `queries`, and is the `slot`-th of `blocks`.
#[device]
#[allow(clippy::too_many_arguments)]
pub fn attend<T: Float>(
    m: &DecodeMeta,
    k: &[&dyn Codec],
    v: &[&dyn Codec],
    q: &Global<T>,
    cache: &Global<u8>,
    table: &Global<i32>,
    lens: &Global<i32>,
    part: &mut Global<f32>,
    stat: &mut Global<f32>,
    status: &mut Global<i32>,
    kv_heads: i32,
    pages: i32,
    table_stride: i32,
    segments: i32,
    run: i32,
    scale: f32,
    split: i32,
    queries: i32,
    first: i32,
    slot: i32,
    blocks: i32,
    log_splits: i32,
) {
    let (head, seq) = (block_id(1), block_id(2));
    let first_row_of = (seq * kv_heads + head) * m.group as i32;
    let len = lens.at(seq);
    let fits = (len >= 0_i32) & (len <= table_stride * m.page_tokens as i32);
    let n_all = if fits { len } else { 0_i32 };
    if !fits {
        status.put(2, 1_i32);
        status.put(3, seq);
    }
    let n = if m.many { sees(n_all, queries, first + (m.queries as i32 - 1_i32)) } else { n_all };
    release_next();
    let ring = ring(m.stages, m.tile_bytes);
    let mut query = shared::<u8>(2 * m.cols / m.parts * m.d);
    let mut zero = shared::<i32>(if m.many { 2 * m.cols } else { m.cols });
    let mut unit = shared::<f32>(m.cols);
    let mut zeros = shared::<i32>(m.d);
    let tiles = (n + 31_i32) / 32_i32;
    let run = if m.many { share(n, run, log_splits, m.segment, m.warps) } else { share_of(n, run, segments, m.segment) };
    // Blocks of a long table that a short sequence leaves without work make no query.
    let busy = tiles > split * run * (m.warps * m.segment / 32) as i32;
    if m.record > 0 {
        after_previous();
    } else {
        zeros_of(k, &mut zeros, m.d);
        for w in warps(m.warps) {
            for c in strided(w, if busy { (m.cols / m.parts) as i32 } else { 0_i32 }, m.warps as i32) {
                let own = c.min(m.rows() as i32 - 1_i32);
                let token = first + own / m.group as i32;
                let row = if m.many { row_of(seq * queries + token.min(queries - 1_i32), kv_heads, head, m.group, own) } else { first_row_of + own };
                let x = q.row(row as i64 * m.d as i64, m.d);
                let live = if own == c { 1_i32 } else { 0_i32 };
                quantise_query::<T>(k, &zeros, x, c, live, m.cols / m.parts, m.parts, m.d, m.inv_sqrt_d, scale, &mut query, &mut zero, &mut unit);
                if m.many {
                    for part in 0..m.parts {
                        zero.put(c + (m.cols + part * m.cols / m.parts) as i32, sees(n_all, queries, token));
                    }
                }
            }
        }
    }
    // The first tile that not every row sees to its end.
    let edge = if m.many { sees(n_all, queries, first) / 32_i32 } else { tiles - 1_i32 };
    for w in warps(m.warps) {
        let (band, low) = (m.d / k.len(), (2 - m.parts) * m.cols * m.d);
        let q_hi = [query_part(&query, 0, m.d, m.cols, band, m.key_quads), query_part(&query, 1 % k.len() * band, m.d, m.cols, band, m.key_quads), query_part(&query, 2 % k.len() * band, m.d, m.cols, band, m.key_quads), query_part(&query, 3 % k.len() * band, m.d, m.cols, band, m.key_quads)];
        let q_lo = [query_part(&query, low, m.d, m.cols, band, m.key_quads), query_part(&query, low + 1 % k.len() * band, m.d, m.cols, band, m.key_quads), query_part(&query, low + 2 % k.len() * band, m.d, m.cols, band, m.key_quads), query_part(&query, low + 3 % k.len() * band, m.d, m.cols, band, m.key_quads)];
        let q_float = query.operand::<bf16>(0, 2 * m.d / m.parts, m.cols, m.d / m.parts);
        let (start, worth) = (zero.cols(0, 1, m.cols), unit.cols(0, 1, m.cols));
        // What a key's offset adds to its score under each head.
        let lean = start.cast::<f32>() * k[0].spec().lean() * &worth;
        let first = (split * m.warps as i32 + w) * run * (m.segment / 32) as i32;
        // Queries of a segment's own, those of the first one to begin with.
        let records = (seq * kv_heads + head) as i64 * segments as i64;
        let own = (records + (first.min(tiles - 1_i32).max(0_i32) / (m.segment / 32) as i32) as i64) * m.record as i64;
        let (mut q_hi, mut q_lo) = if m.record > 0 { operands::<T>(q, own, k.len(), m.key_quads, m.cols, m.parts, m.d) } else { (q_hi, q_lo) };
        let (mut start, mut worth, mut bias) = if m.record > 0 { columns::<T>(q, own, m.cols, m.parts, m.d) } else { (start, worth, cols(m.cols, 0.0_f32)) };
        let mut top = cols(m.cols, f32::NEG_INFINITY);
        let mut sum = acc(8, m.cols, 0_i64);
        let mut half = cols(m.cols, 0.0_f32);
        let mut shift = acc(8, m.cols, 0_i64);
        let mut out = [acc(m.d / v.len(), m.cols, 0.0_f32), acc(m.d / v.len(), m.cols, 0.0_f32)];
        let mut high = [acc(m.d / v.len(), m.cols, 0.0_f32), acc(m.d / v.len(), m.cols, 0.0_f32)];
        let mut high_half = cols(m.cols, 0.0_f32);
        for t in stream(first, tiles.min(first + run * (m.segment / 32) as i32), 1, m.stages) {
            // Checked page fetch: a bad entry reads page 0; the join kernel finds it and drops the row.
            let entry = table.at(seq * table_stride + t / (m.page_tokens / 32) as i32);
            let page = if (entry >= 0_i32) & (entry < pages) { entry } else { 0_i32 };
            let block = (page as i64 * kv_heads as i64 + head as i64) * (m.page_tokens / 32) as i64;
            let tokens = ring.copy(cache, (block + (t % (m.page_tokens / 32) as i32) as i64) * m.tile_bytes as i64);
            // Scores in log2 units.
            let (k_scale, mut v_scale) = both_scales(k[0], v[0], &tokens, m.sides_at, m.parts);
            let score = if k[0].spec().exact() { dots(k, &tokens, &q_hi, &q_lo, &start, m.keys_at, m.key_quads, m.d, m.cols, m.parts) } else { mma(&tokens.keys::<bf16>(0, k[0].spec().bits, m.d, 16, |x| k[0].decode(x)), &q_float, 0.0_f32) };
            let (at, stride) = (m.sides_at, 2 * (k[0].spec().sides + v[0].spec().sides));
            let mut x = if m.record > 0 {
                score.map3(&(k_scale * &worth), &bias, fused)
            } else if k[0].spec().affine {
                score.map3(&(k_scale * &worth), &(offsets(k[0], &tokens, at, stride, m.parts) * &lean), fused)
            } else {
                score * (k_scale * &worth)
            };
            let ends = if m.many { t >= edge } else { t == tiles - 1_i32 };
            if ends {
                let past = (if m.parts == 2 { pair_ids() } else { row_ids(32) }) - (n - t * 32_i32);
                x = if m.many { x.map2(&hidden(&zero, t, m.cols, m.parts), visible) } else { x.map2(&past, visible) };
                v_scale = v_scale.map2(&past, kept);
            }
            // A new maximum is rare: the rescale stays out of the common path.
            if x.map2(&top, above).any() {
                let next = top.map2(&peaks(&x, m.parts), raised);
                let fade = top.map2(&next, weight);
                for i in 0..v.len() {
                    out[i] = &out[i] * &fade;
                    if m.apart {
                        high[i] = &high[i] * &fade;
                    }
                }
                half = &half * &fade;
                if m.apart {
                    high_half = &high_half * &fade;
                }
                let total = sum.sum_rows().map3(&top, &next, shifted);
                sum = (acc(8, m.cols, 0_i64) + &total).map2(&row_ids(8), first_row);
                if v[0].spec().affine {
                    let total = shift.sum_rows().map3(&top, &next, shifted);
                    shift = (acc(8, m.cols, 0_i64) + &total).map2(&row_ids(8), first_row);
                }
                top = next;
            }
            let p = x.map2(&top, weight);
            sum = &sum + &(if m.apart { p.half_sums().map(fixed).lane_sums() } else { p.lane_sums().map(fixed) });
            if v[0].spec().affine {
                let leans = &p * &offsets(v[0], &tokens, at + 2 * k[0].spec().sides, stride, m.parts);
                shift = &shift + &(if m.apart { leans.half_sums().map(fixed_offset).lane_sums() } else { leans.lane_sums().map(fixed_offset) });
            }
            if v[0].spec().exact() {
                let w = weights(p * &v_scale, m.parts);
                let totals = if m.apart { (w.0.sum_k(), w.1.sum_k()) } else { (w.2.clone(), w.2.clone()) };
                for i in 0..v.len() {
                    if m.apart {
                        let sums = weighed_apart(v[i], &tokens, &w, &totals, &high[i], &out[i], m.values_at[i], m.quads, m.d / v.len());
                        high[i] = sums.0;
                        out[i] = sums.1;
                    } else {
                        out[i] = weighed(v[i], &tokens, &w, &out[i], m.values_at[i], m.quads, m.d / v.len(), m.parts);
                    }
                }
                // Where zero lies half way between two lane values, half of the weights' sum is due at the end.
                if v[0].spec().odd() {
                    half = totals.1.cast::<f32>().map3(&w.3, &half, fused);
                    if m.apart {
                        high_half = totals.0.cast::<f32>().map3(&w.3, &high_half, fused);
                    }
                }
            } else {
                out[0] = mma(&tokens.values::<bf16>(m.values_at[0], v[0].spec().bits, m.d, 16, |x| v[0].decode(x)), &(p * &v_scale).to_operand(), &out[0]);
            }
            // A segment's end: leave its partial result, start afresh.
            if (t % (m.segment / 32) as i32 == (m.segment / 32) as i32 - 1_i32) | (t == tiles - 1_i32) {
                let line = if m.many { (seq * kv_heads + head) * blocks + slot } else { seq * kv_heads + head };
                let row = (line as i64 * segments as i64 + (t / (m.segment / 32) as i32) as i64) * m.rows() as i64;
                for i in 0..v.len() {
                    let o = if m.apart { joined(&high[i], &out[i]) } else { whole(&lowered(v[i], &out[i], m.quads, m.d / v.len()), m.parts) };
                    let half = if m.apart { joined(&high_half, &half) } else { whole(&half, m.parts) };
                    let o = if v[0].spec().odd() { o + &(half * 0.5_f32) } else { o };
                    let o = if v[0].spec().affine { o + &(total_of(&shift, m.parts).cast::<f32>() * 1.4551915e-11_f32) } else { o };
                    part.put_acc(row * m.d as i64 + (i * m.d / v.len()) as i64, 1, m.d, m.rows(), &o);
                    out[i] = acc(m.d / v.len(), m.cols, 0.0_f32);
                    high[i] = acc(m.d / v.len(), m.cols, 0.0_f32);
                }
                stat.put_cols(row * 2_i64, 2, m.rows(), &top);
                stat.put_cols(row * 2_i64 + 1_i64, 2, m.rows(), &(total_of(&sum, m.parts).cast::<f32>() * 1.8626451e-9_f32));
                top = cols(m.cols, f32::NEG_INFINITY);
                sum = acc(8, m.cols, 0_i64);
                half = cols(m.cols, 0.0_f32);
                high_half = cols(m.cols, 0.0_f32);
                shift = acc(8, m.cols, 0_i64);
                if m.record > 0 {
                    let own = (records + ((t + 1_i32).min(tiles - 1_i32) / (m.segment / 32) as i32) as i64) * m.record as i64;
                    let (next, values) = (operands::<T>(q, own, k.len(), m.key_quads, m.cols, m.parts, m.d), columns::<T>(q, own, m.cols, m.parts, m.d));
                    q_hi = next.0;
                    q_lo = next.1;
                    start = values.0;
                    worth = values.1;
                    bias = values.2;
                }
            }
        }
    }
}

#[kernel]
pub fn decode_attention<T: Float>(
    m: DecodeMeta,
    k: &[&dyn Codec], // one a band
    v: &[&dyn Codec],
    q: &Global<T>,            // [batch, heads, d], or records [batch, kv_heads, segments, m.record]
    cache: &Global<u8>,       // [pages, kv_heads, block]
    table: &Global<i32>,      // [batch, table_stride]
    lens: &Global<i32>,       // [batch]
    part: &mut Global<f32>,   // [batch, kv_heads, segments, group, d]
    stat: &mut Global<f32>,   // [batch, kv_heads, segments, group, 2]: maximum, sum
    status: &mut Global<i32>, // bad slot, bad page, bad length, where
    kv_heads: i32,
    pages: i32,
    table_stride: i32,
    segments: i32,
    run: i32, // segments of a warp
    scale: f32,
) {
    attend::<T>(&m, k, v, q, cache, table, lens, part, stat, status, kv_heads, pages, table_stride, segments, run, scale, block_id(0), 1_i32, 0_i32, 0_i32, 1_i32, 0_i32);
}
