//! The loop of attention over the coded cache, for one query token a sequence and for several.

use super::decode_attention::DecodeMeta;
use super::faults::find_faults;
use super::finish::write_rows;
use super::keys::*;
use super::leaves::*;
use super::many::*;
use super::maps::queries::{columns, operands};
use super::offset::{fixed_offset, fixed_raised, offset_sums};
use super::prologue::{make_queries, sit_down};
use super::query::{put_operands, query_again, query_at, zeros_of};
use super::scores::scores;
use super::seats::*;
use super::softmax::*;
use super::units::*;
use super::values::*;
use crate::codec::Codec;
use kernel_dsl::prelude::*;

/// Attention of a block's query rows, the first `rows` of the columns, over the `split`-th part of a sequence: 2^unit leaves
/// a warp; or, where a crew is one warp, of each warp's over the sequence that `short` has for it (below 0: none). With many queries the block has the tokens from `first` on of a sequence's `queries`, and is the `slot`-th of `blocks`.
///
/// Who has all of a sequence writes the output; another leaves its part for the join kernel.
#[device]
#[allow(clippy::too_many_arguments)]
pub fn attend<T: Float>(
    m: &DecodeMeta,
    k: &[&dyn Codec],
    v: &[&dyn Codec],
    q: &Global<T>,
    maps: &Global<i8>,
    scales: &Global<f32>,
    cache: &Global<u8>,
    table: &Global<i32>,
    lens: &Global<i32>,
    out: &mut Global<T>,
    lse: &mut Global<f32>,
    part: &mut Global<f32>,
    stat: &mut Global<f32>,
    status: &mut Global<i32>,
    short: &Shared<i32>,
    kv_heads: i32,
    pages: i32,
    table_stride: i32,
    segments: i32,
    splits: i32,
    unit: i32,
    scale: f32,
    head: i32,
    seq: i32,
    split: i32,
    log_crew: i32,
    queries: i32,
    first: i32,
    slot: i32,
    blocks: i32,
) {
    let ring = ring(m.stages, m.pair * m.tile_bytes);
    // At the end rows that are mapped back lie in the query's place, as integers.
    let mut query = shared::<u8>(if m.record > 0 { m.settled() * m.int_line() } else { m.query() });
    let mut again = shared::<i8>(if m.reloads() { m.query() } else { 0 });
    // Queries of crews of one warp.
    let mut rings = if m.bundles() { ring.between::<u8>(m.warps * m.ring()) } else { shared::<u8>(1) };
    let mut zero = shared::<i32>(if m.many { 2 * m.cols } else { m.crews() * m.cols });
    let mut worths = shared::<f32>(m.crews() * m.cols);
    let mut leans = shared::<f32>(if k[0].spec().affine { m.crews() * m.cols } else { 0 });
    // Sums of keys and queries stand so many bits high.
    let up = height_of(k, m.key_quads, m.d);
    let mut zeros = shared::<i32>(if m.record > 0 { 0 } else { m.d });
    let mut held = if m.away { ring.between::<f32>(m.warps * m.run()) } else { shared::<f32>(m.warps * m.run()) };
    let mut fault = shared::<i32>(m.crews() * m.rows());
    let mut side = shared::<i32>(m.cols);
    let mut from = shared::<i64>(m.warps * m.listed_by_warp());
    let mut seats = shared::<i32>(m.warps * WORDS);
    let log_crew = if m.bundles() { log_crew } else { m.log_warps() as i32 };
    let apart = if m.bundles() { log_crew < m.log_warps() as i32 } else { false };
    if m.record == 0 {
        zeros_of(k, &mut zeros, m.d);
    }
    sit_down(m, table, lens, short, status, &mut side, &mut fault, &mut from, &mut seats, kv_heads, pages, table_stride, split, unit, head, seq, log_crew, apart, queries, first);
    make_queries::<T>(m, k, q, &ring, cache, &from, &seats, &zeros, &mut query, &mut rings, &mut zero, &mut worths, &mut leans, kv_heads, head, seq, scale, up, apart, queries, first);
    if m.reloads() {
        for w in warps(m.warps) {
            put_operands(m, &query, &mut again, w, k.len());
        }
    }
    for w in warps(m.warps) {
        // What ends of leaves and of sequences need besides they look up again.
        let (tiles, tile, page) = ((seat(&seats, w, SEEN) + 31_i32) >> 5, seat(&seats, w, TILE), seat(&seats, w, PAGE));
        // The first tile that not every row sees to its end.
        let edge = if m.many { sees(seat(&seats, w, TOKENS), queries, first) / 32_i32 } else { tiles - 1_i32 };
        let (q_hi, q_lo, q_float) = if apart { query_at(m, &rings, w * m.ring() as i32, k.len()) } else { query_at(m, &query, 0_i32, k.len()) };
        // Its own query lay where tiles will.
        if apart {
            start_tiles(m, &ring, cache, &from, &seats, w);
        }
        let column = if apart { w * m.cols as i32 } else { 0_i32 };
        let (start, worth) = (zero.cols(column, 1, m.cols), worths.cols(column, 1, m.cols));
        // Queries of a segment's own, those of the first one to begin with.
        let records = (if m.many { (seq * kv_heads + head) * blocks + slot } else { seq * kv_heads + head }) as i64 * segments as i64;
        let own = (records + (tile.min(tiles - 1_i32).max(0_i32) / (m.segment / 32) as i32) as i64) * m.record as i64;
        let (mut q_hi, mut q_lo) = if m.record > 0 { operands::<T>(q, own, k.len(), m.key_quads, m.cols, m.parts, m.d) } else { (q_hi, q_lo) };
        let (mut start, mut worth, mut bias) = if m.record > 0 { lifted(columns::<T>(q, own, m.cols, m.parts, m.d), up) } else { (start, worth, cols(m.cols, 0.0_f32)) };
        let mut top = cols(m.cols, f32::NEG_INFINITY);
        // Of weights; of each lane's where units stay.
        let (mut sum, mut count) = (acc(8, m.cols, 0_i64), acc(m.counters(), m.cols, 0.0_f32));
        // Sums under units that stay, see `units`: bands' of the low and the high bytes of weights.
        let mut power = cols(m.cols, 0.0_f32);
        let mut sums = [acc(m.d / v.len(), m.cols, 0_i32), acc(m.d / v.len(), m.cols, 0_i32)];
        let mut high_sums = [acc(m.d / v.len(), m.cols, 0_i32), acc(m.d / v.len(), m.cols, 0_i32)];
        let (mut total, mut high_total) = (cols(m.cols, 0_i32), cols(m.cols, 0_i32));
        let mut half = cols(m.cols, 0.0_f32);
        let (mut shift, mut leaning) = (acc(8, m.cols, 0_i64), acc(m.counters(), m.cols, 0.0_f32));
        let mut out = [acc(m.d / v.len(), m.cols, 0.0_f32), acc(m.d / v.len(), m.cols, 0.0_f32)];
        let mut high = [acc(m.d / v.len(), m.cols, 0.0_f32), acc(m.d / v.len(), m.cols, 0.0_f32)];
        let mut high_half = cols(m.cols, 0.0_f32);
        let (part, stat) = (acc(m.d / v.len() / m.parts, m.cols, 0.0_f32), cols(m.cols, 0.0_f32));
        let mut by = [put_by(m.put_by(), &part), put_by(m.put_by() * (v.len() - 1), &part), put_by(m.put_by(), &stat), put_by(m.put_by(), &stat)];
        let end = end_of(&seats, w);
        for at in stream(tile, end, m.pair, m.stages) {
            let tokens = ring.copy_some(cache, tile_at(m, &from, page, at), bytes_of_copy(m, at, end));
            // A loop on the device: its code is large, and the last copy may have one tile.
            for i in strided(0_i32, if m.pair > 1 { (end - at).min(m.pair as i32) } else { 1_i32 }, 1) {
                let (t, base) = (at + i, i * m.tile_bytes as i32);
                let (high, low) = if m.reloads() { query_again(m, &again, t, k.len()) } else { (q_hi.clone(), q_lo.clone()) };
                let of = scores(m, k, v, &tokens, base, &high, &low, &q_float, (&start, &worth, &bias), (&zero, &worths, &leans), column);
                let (mut x, mut v_scale, pairs) = (of.0, of.1, of.2);
                let ends = t >= edge;
                let mut higher = x.map2(&top, above).any();
                // One branch for both, which are rare.
                if ends | higher {
                    if ends {
                        anew();
                        let past = (if m.parts == 2 { pair_ids() } else { row_ids(32) }) - (seat(&seats, w, SEEN) - t * 32_i32);
                        x = if m.many { x.map2(&hidden(&zero, t, m.cols, m.parts), visible) } else { x.map2(&past, visible) };
                        v_scale = v_scale.map2(&past, kept);
                        higher = x.map2(&top, above).any();
                    }
                    // A new maximum is rare: the rescale stays out of the common path.
                    if higher {
                        // A copy, lest all turns make one.
                        let before = top.map(apart_from);
                        let next = before.map2(&peaks(&x, m.parts), raised);
                        // A fresh leaf has nothing to rescale.
                        if (t & (TILES as i32 - 1_i32)) > 0_i32 {
                            let fade = before.map2(&next, fade_of);
                            if m.steady() {
                                power = power.map(lift_of).map3(&before, &next, sunk).map(up_of);
                                count = &count * &fade;
                                leaning = &leaning * &fade;
                            } else {
                                out[0] = &out[0] * &fade;
                                if v.len() == 2 {
                                    out[1] = &out[1] * &fade;
                                }
                                half = &half * &fade;
                                sum = faded(m, &sum, &before, &next);
                                if v[0].spec().affine {
                                    shift = faded(m, &shift, &before, &next);
                                }
                            }
                        }
                        top = next;
                    }
                }
                let p = if m.steady() { (x - &top).map(exp2_raised) } else { x.map2(&top, weight) };
                if m.steady() {
                    count = &count + &lane_sums(m, &p);
                } else {
                    sum = &sum + &p.lane_sums().map(fixed);
                }
                if v[0].spec().affine {
                    let own = offset_sums(m, k[0], v[0], &tokens, base + m.sides_at as i32, &pairs.1, &p);
                    if m.steady() {
                        leaning = &leaning + &own;
                    } else {
                        shift = &shift + &own.map(fixed_offset);
                    }
                }
                if m.steady() {
                    let pv = &p * &v_scale;
                    let mut w = pv.map2(&power, rounded);
                    if misfit(&w, m.parts).any() {
                        let peak = largest(&pv, m.parts);
                        // A fresh leaf has no unit yet, and nothing to move.
                        let mut next = peak.map(first_fit);
                        if (t & (TILES as i32 - 1_i32)) > 0_i32 {
                            // Both bytes of a weight have one unit.
                            let most = total.map2(&(if m.apart { high_total.clone() } else { total.swap_halves() }), larger);
                            let lift = power.map(lift_of);
                            next = lift.map3(&peak, &most, fitted);
                            let by = next.map2(&lift, minus);
                            let low = side.cols(0, 1, m.cols);
                            for i in 0..v.len() {
                                let next = move_sums(m, v[i], &sums[i], &high_sums[i], &low, &by, m.d / v.len());
                                sums[i] = next.0;
                                high_sums[i] = next.1;
                            }
                            let next = move_totals(m, &total, &high_total, &low, &by);
                            total = next.0;
                            high_total = next.1;
                        }
                        power = next.map(up_of);
                        w = pv.map2(&power, rounded);
                    }
                    let w = bytes_of(&w, m.parts);
                    total = &total + &w.1.sum_k();
                    if m.apart {
                        high_total = &high_total + &w.0.sum_k();
                    }
                    for i in 0..v.len() {
                        let values = values_of(m, v[i], &tokens, base + m.values_at[i] as i32, m.d / v.len());
                        sums[i] = mma(&values, &w.1, &sums[i]);
                        if m.apart {
                            high_sums[i] = mma(&values, &w.0, &high_sums[i]);
                        }
                    }
                } else if v[0].spec().exact() {
                    let w = weights(&p * &v_scale);
                    for i in 0..v.len() {
                        out[i] = weighed(m, v[i], &tokens, &w, &out[i], base + m.values_at[i] as i32, m.d / v.len());
                    }
                    // Where zero lies half way between two lane values, half of the weights' sum is due at the end.
                    if v[0].spec().odd() {
                        half = w.2.cast::<f32>().map3(&w.3, &half, fused);
                    }
                } else {
                    out[0] = mma(&tokens.grouped_values::<bf16>(base + m.values_at[0] as i32, v[0].spec().bits, m.d, 16, v[0].spec().group, v[0].spec().shared, |x| v[0].decode(x)), &(p * &v_scale).to_operand(), &out[0]);
                }
            }
            let t = (at + m.pair as i32).min(end) - 1_i32;
            // A leaf's end: fold it into what the warp holds, start afresh.
            if ((t & (TILES as i32 - 1_i32)) == TILES as i32 - 1_i32) | (t >= tiles - 1_i32) {
                anew();
                let log_each = seat(&seats, w, LOG_EACH);
                let each = 1_i32 << (log_each & 31_i32);
                let r = (t / TILES as i32) & (each - 1_i32);
                let height = m.d / v.len() / m.parts;
                let mut o = [acc(height, m.cols, 0.0_f32), acc(height, m.cols, 0.0_f32)];
                if m.steady() {
                    for i in 0..v.len() {
                        out[i] = output_of(m, v[i], &sums[i], &total, m.d / v.len());
                        sums[i] = acc(m.d / v.len(), m.cols, 0_i32);
                        if m.apart {
                            high[i] = output_of(m, v[i], &high_sums[i], &high_total, m.d / v.len());
                            high_sums[i] = acc(m.d / v.len(), m.cols, 0_i32);
                        }
                    }
                    half = total.cast::<f32>();
                    high_half = high_total.cast::<f32>();
                    total = cols(m.cols, 0_i32);
                    high_total = cols(m.cols, 0_i32);
                }
                let unit = if m.steady() { power.map(lift_of).map(down_of) } else { cols(m.cols, 1.0_f32) };
                for i in 0..v.len() {
                    o[i] = closed(m, v[i], &high[i], &out[i], &high_half, &half, &(if m.steady() { leaning.map(fixed_raised) } else { shift.clone() }), &unit, m.d / v.len());
                }
                let l = if m.steady() { count_of(&count.map(counted), m.parts).cast::<f32>() * 1.1920929e-7_f32 } else { total_of(&sum, m.parts).cast::<f32>() * 1.8626451e-9_f32 };
                hold(m, v.len(), &mut held, &mut by, w, r, (r == each - 1_i32) | (t >= tiles - 1_i32), log_each, o, l, top.clone());
                for i in 0..v.len() {
                    out[i] = acc(m.d / v.len(), m.cols, 0.0_f32);
                    high[i] = acc(m.d / v.len(), m.cols, 0.0_f32);
                }
                top = cols(m.cols, f32::NEG_INFINITY);
                power = cols(m.cols, 0.0_f32);
                sum = acc(8, m.cols, 0_i64);
                count = acc(m.counters(), m.cols, 0.0_f32);
                half = cols(m.cols, 0.0_f32);
                high_half = cols(m.cols, 0.0_f32);
                shift = acc(8, m.cols, 0_i64);
                leaning = acc(m.counters(), m.cols, 0.0_f32);
                // Only what walks more leaves than a segment has comes to another one.
                if (m.record > 0) & ((LEAF << m.depth) > m.segment) {
                    let own = (records + ((t + 1_i32).min(tiles - 1_i32) / (m.segment / 32) as i32) as i64) * m.record as i64;
                    let (next, values) = (operands::<T>(q, own, k.len(), m.key_quads, m.cols, m.parts, m.d), lifted(columns::<T>(q, own, m.cols, m.parts, m.d), up));
                    q_hi = next.0;
                    q_lo = next.1;
                    start = values.0;
                    worth = values.1;
                    bias = values.2;
                }
            }
        }
    }
    anew();
    find_faults(m, &seats, &from, status, &mut fault, queries, first, log_crew);
    write_rows::<T>(m, v, maps, scales, out, lse, part, stat, &seats, &fault, &mut held, &mut query, kv_heads, splits, queries, first, slot, blocks, log_crew);
}
