//! Decode attention over KIVI's tiles: as [`super::super::attend`], with a query of its own in every tile and weights of their own
//! in every band of 32 channels.
//!
//! Leaves, their tree and the join are those of every codec. A block takes 2^unit leaves a warp of one (sequence, kv head).
//! Cost: reads tile_bytes for 32 tokens; writes d elements a head, or (d + 2) * 4 bytes a head and block.

use super::super::arguments::{Cache, Outputs, Queries, Share};
use super::super::decode_attention::DecodeMeta;
use super::super::faults::find_faults;
use super::super::keys::high_half;
use super::super::leaves::{TILES, leave_share};
use super::super::offset::fixed_raised;
use super::super::seats::*;
use super::super::softmax::*;
use super::super::units::{bytes_of, down_of, fitted, larger_half, largest, minus, misfit_lanes, move_sums, move_totals, sunk, up_of};
use super::super::values::{count_of, peaks, rounded};
use super::leaves::{closed_band, hold_bands, waiting_bands};
use super::queries::{measure, quantise, take_rows};
use super::values::{either, pairs_of, weighted};
use crate::codec::Codec;
use kernel_dsl::prelude::*;

/// Attention of a sequence's query row, a block's share of it, as `attend` has it.
#[device]
pub fn attend_tiles<T: Float>(m: &DecodeMeta, k: &dyn Codec, v: &dyn Codec, q: &Queries<T>, cache: &Cache, to: &mut Outputs<T>, of: &Share) {
    let mut rows = shared::<f32>(m.heads() * m.d);
    let ring = ring(m.stages, m.tile_bytes);
    let mut held = if m.away { ring.between::<f32>(m.warps * m.run()) } else { shared::<f32>(m.warps * m.run()) };
    let mut fault = shared::<i32>(m.rows());
    let mut from = shared::<i64>(m.warps * m.listed_by_warp());
    let mut seats = shared::<i32>(m.warps * WORDS);
    let (len, crew) = (cache.lens.at(of.seq), m.log_warps() as i32);
    let fits = (len >= 0_i32) & (len <= cache.table_stride * m.page_tokens as i32);
    let n = if fits { len } else { 0_i32 };
    take_rows::<T>(m, q.rows, &mut rows, (of.seq * cache.kv_heads + of.head) * m.group as i32);
    for w in warps(m.warps) {
        let page_bytes = cache.kv_heads as u32 * (m.page_tokens / 32 * m.tile_bytes) as u32;
        list_pages(m, cache.table, &mut from, w, crew, of.seq * cache.table_stride, first_page(m, of.split, crew + of.unit), cache.table_stride, cache.pages, page_bytes, of.head as i64 * (m.page_tokens / 32 * m.tile_bytes) as i64);
        sit(m, &mut seats, w, crew, of.seq, of.split, n, n, of.unit, of.head);
    }
    let (all, live) = (whole(n, crew + of.unit), seat(&seats, 0_i32, LIVE));
    for c in threads(m.rows()) {
        fault.put(c, 0_i32);
        if (c == 0_i32) & !fits {
            to.status.put(2, 1_i32);
            to.status.put(3, of.seq);
        }
    }
    walk(m, k, v, &ring, cache.bytes, &rows, &seats, &from, &mut held, n, q.scale);
    find_faults(m, &seats, &from, to.status, &mut fault, 1_i32, 0_i32, crew);
    leave_share::<T>(m, v, &held, &fault, to, cache.kv_heads, of, live, all);
}

/// Scores of a tile in log2 units, from a warp's integers.
#[device]
fn scores(m: &DecodeMeta, k: &dyn Codec, tokens: &Page, query: &Shared<u8>, units: &Shared<f32>, w: i32) -> Tile<f32> {
    let (at, column) = (w * m.query_bytes() as i32, w * (2 * m.cols) as i32);
    let q = query.operand::<i8>(at, m.row_bytes(), m.cols, m.d).quad_order();
    // Digits may stay at the height where they are stored: their sums are so much larger, exactly.
    let up = if m.d >= 128 { k.spec().raised[7] } else { 0 };
    let key: Tile<u8> = tokens.key_quads(m.keys_at[0], k.spec().bits, m.d, 8, |x| if up > 0 { k.raised4(x) } else { k.decode4(x) });
    let high = if up > 0 { mma_raised(&key, &q, k.spec().raised) } else { mma(&key, &q, 0_i32) };
    let s = if m.parts == 2 {
        high.fold_halves(128)
    } else {
        let q = query.operand::<i8>(at + (m.cols * m.row_bytes()) as i32, m.row_bytes(), m.cols, m.d).quad_order();
        high * 128_i32 + &(if up > 0 { mma_raised(&key, &q, k.spec().raised) } else { mma(&key, &q, 0_i32) })
    };
    let x = s.cast::<f32>();
    (if up > 0 { x * f32::from_bits((127_u32 - up as u32) << 23) } else { x }).map3(&units.cols(column, 1, m.cols), &units.cols(column + m.cols as i32, 1, m.cols), fused)
}

/// Every warp's leaves of the first `n` tokens.
#[device]
#[allow(clippy::too_many_arguments)]
fn walk(m: &DecodeMeta, k: &dyn Codec, v: &dyn Codec, ring: &Ring, cache: &Global<u8>, rows: &Shared<f32>, seats: &Shared<i32>, from: &Shared<i64>, held: &mut Shared<f32>, n: i32, scale: f32) {
    let mut query = shared::<u8>(m.warps * m.query_bytes());
    let mut tops = shared::<i32>(m.warps * 8 * m.heads());
    let mut leans = shared::<f32>(m.warps * 8 * m.heads());
    let mut units = shared::<f32>(m.warps * 2 * m.cols);
    let mut side = shared::<i32>(m.cols);
    for c in threads(m.cols) {
        side.put(c, if c >= (m.cols / 2) as i32 { 1_i32 } else { 0_i32 });
    }
    let tiles = (n + 31_i32) / 32_i32;
    for w in warps(m.warps) {
        let (first, log_each, page) = (seat(seats, w, TILE), seat(seats, w, LOG_EACH), seat(seats, w, PAGE));
        let each = 1_i32 << (log_each & 31_i32);
        let (low, mut by) = (side.cols(0, 1, m.cols), waiting_bands(m));
        let (mut top, mut count) = (cols(m.cols, f32::NEG_INFINITY), acc(m.counters(), m.cols, 0.0_f32));
        // Of each band: the unit of its weights, their total and sums under it, those of high bytes apart or beside; and what least values come to.
        let mut lift = [cols(m.cols, 0_i32), cols(m.cols, 0_i32), cols(m.cols, 0_i32), cols(m.cols, 0_i32)];
        let mut total = [cols(m.cols, 0_i32), cols(m.cols, 0_i32), cols(m.cols, 0_i32), cols(m.cols, 0_i32)];
        let mut sums = [acc(32, m.cols, 0_i32), acc(32, m.cols, 0_i32), acc(32, m.cols, 0_i32), acc(32, m.cols, 0_i32)];
        let mut high_total = [cols(m.cols, 0_i32), cols(m.cols, 0_i32), cols(m.cols, 0_i32), cols(m.cols, 0_i32)];
        let mut high_sums = [acc(32, m.cols, 0_i32), acc(32, m.cols, 0_i32), acc(32, m.cols, 0_i32), acc(32, m.cols, 0_i32)];
        let mut leaning = [acc(m.counters(), m.cols, 0.0_f32), acc(m.counters(), m.cols, 0.0_f32), acc(m.counters(), m.cols, 0.0_f32), acc(m.counters(), m.cols, 0.0_f32)];
        for t in stream(first, tiles.min(first + each * TILES as i32), 1, m.stages) {
            let tokens = ring.copy(cache, tile_at(m, from, page, t));
            measure(m, &tokens, rows, &mut tops, &mut leans, w);
            quantise(m, &tokens, rows, &tops, &leans, &mut query, &mut units, w, scale);
            let mut x = scores(m, k, &tokens, &query, &units, w);
            if t >= tiles - 1_i32 {
                x = x.map2(&((if m.parts == 2 { pair_ids() } else { row_ids(32) }) - (n - t * 32_i32)), visible);
            }
            let fresh = t % TILES as i32 == 0_i32;
            // A new maximum is rare: the rescale stays out of the common path.
            if x.map2(&top, above).any() {
                let next = top.map2(&peaks(&x, m.parts), raised);
                if !fresh {
                    let fade = top.map2(&next, fade_of);
                    for i in 0..m.bands() {
                        lift[i] = lift[i].map3(&top, &next, sunk);
                        leaning[i] = &leaning[i] * &fade;
                    }
                    count = &count * &fade;
                }
                top = next;
            }
            let p = (x - &top).map(exp2_raised);
            count = &count + &lane_sums(m, &p);
            for i in 0..m.bands() {
                let least = pairs_of(m, &tokens, i).map(high_half);
                leaning[i] = &leaning[i] + &lane_sums(m, &(&p * &least));
            }
            let height = 32 / m.parts;
            let mut ints = [acc(height, m.cols, 0_i32), acc(height, m.cols, 0_i32), acc(height, m.cols, 0_i32), acc(height, m.cols, 0_i32)];
            for i in 0..m.bands() {
                ints[i] = weighted(m, &tokens, i, &p).map2(&lift[i].map(up_of), rounded);
            }
            let mut wrong = misfit_lanes(&ints[0], m.parts);
            for i in 1..m.bands() {
                wrong = wrong.map2(&misfit_lanes(&ints[i], m.parts), either);
            }
            // One choice for all bands: those that fit keep their unit, and nothing moves.
            if wrong.any() {
                for i in 0..m.bands() {
                    let pv = weighted(m, &tokens, i, &p);
                    let most = if m.apart { total[i].map2(&high_total[i], larger) } else { larger_half(&total[i]) };
                    let next = lift[i].map3(&largest(&pv, m.parts), &most, fitted);
                    if !fresh {
                        let by = next.map2(&lift[i], minus);
                        let moved = move_sums(m, v, &sums[i], &high_sums[i], &low, &by, 32);
                        let totals = move_totals(m, &total[i], &high_total[i], &low, &by);
                        sums[i] = moved.0;
                        high_sums[i] = moved.1;
                        total[i] = totals.0;
                        high_total[i] = totals.1;
                    }
                    lift[i] = next;
                    ints[i] = pv.map2(&lift[i].map(up_of), rounded);
                }
            }
            // Here, lest what is decoded wait in registers across the branch.
            let values: Tile<u8> = tokens.quads(m.values_at[0], v.spec().bits, m.d, 8, |x| v.decode4(x));
            for i in 0..m.bands() {
                let (bytes, band) = (bytes_of(&ints[i], m.parts), values.band(i, m.bands()));
                total[i] = &total[i] + &bytes.1.sum_k();
                sums[i] = mma(&band, &bytes.1, &sums[i]);
                if m.apart {
                    high_total[i] = &high_total[i] + &bytes.0.sum_k();
                    high_sums[i] = mma(&band, &bytes.0, &high_sums[i]);
                }
            }
            // A leaf's end: fold it into what the warp holds, start afresh.
            if (t % TILES as i32 == TILES as i32 - 1_i32) | (t >= tiles - 1_i32) {
                let r = (t / TILES as i32) & (each - 1_i32);
                let mut o = [acc(height, m.cols, 0.0_f32), acc(height, m.cols, 0.0_f32), acc(height, m.cols, 0.0_f32), acc(height, m.cols, 0.0_f32)];
                for i in 0..m.bands() {
                    o[i] = closed_band(m, &sums[i], &high_sums[i], &lift[i].map(down_of), &leaning[i].map(fixed_raised));
                    lift[i] = cols(m.cols, 0_i32);
                    total[i] = cols(m.cols, 0_i32);
                    sums[i] = acc(32, m.cols, 0_i32);
                    high_total[i] = cols(m.cols, 0_i32);
                    high_sums[i] = acc(32, m.cols, 0_i32);
                    leaning[i] = acc(m.counters(), m.cols, 0.0_f32);
                }
                let l = count_of(&count.map(counted), m.parts).cast::<f32>() * 1.1920929e-7_f32;
                hold_bands(m, held, &mut by, w, r, (r == each - 1_i32) | (t >= tiles - 1_i32), log_each, o, l, top.clone());
                top = cols(m.cols, f32::NEG_INFINITY);
                count = acc(m.counters(), m.cols, 0.0_f32);
            }
        }
    }
}
