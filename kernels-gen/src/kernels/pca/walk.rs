//! What a warp does with its leaves of a sequence's blocks: scores, softmax, weighted values; at a leaf's end the sums leave their block's
//! coordinates and are folded into what the warp holds.

use super::super::decode_attention::DecodeMeta;
use super::super::kivi::leaves::{hold_bands, waiting_bands};
use super::super::leaves::TILES;
use super::super::seats::*;
use super::super::softmax::*;
use super::super::units::{lift_of, sunk, up_of};
use super::super::values::{count_of, peaks, total_of};
use super::scores::{columns_of, query_of, scores};
use super::turned::{foresee, keep, put_turns, turned_scores};
use super::unfold::{unfolded, unfolded_halves};
use super::weigh::{weighed, weighed_apart};
use crate::codec::Codec;
use kernel_dsl::prelude::*;

/// Every warp's leaves; `line`: number of the sequence's first record, `bases`: where the page of shared bases begins.
#[device]
#[allow(clippy::too_many_arguments)]
pub fn walk<T: Float>(m: &DecodeMeta, k: &dyn Codec, v: &dyn Codec, records: &Global<T>, cache: &Global<u8>, seats: &Shared<i32>, from: &Shared<i64>, bases: &Shared<i64>, held: &mut Shared<f32>, line: i32) {
    let ring = ring(m.stages, m.tile_bytes);
    let mut more = shared::<u8>(m.warps * m.more());
    // 1 in columns of low bytes.
    let mut low = shared::<i32>(m.cols);
    for c in threads(m.cols) {
        low.put(c, if c >= (m.cols / 2) as i32 { 1_i32 } else { 0_i32 });
    }
    let mut turns = shared::<f32>(m.turns());
    let mut pairs = shared::<u32>(m.speeds());
    let mut kept = shared::<u8>(m.warps * m.kept());
    let mut queries = shared::<i8>(m.warps * m.turned_back());
    if m.behind.before {
        put_turns(m, cache, &mut turns, &mut pairs, from.at(0) & -2_i64);
    }
    let (of_block, record, bands) = ((m.page_tokens / 32) as i32, m.folded() as i64, m.ranks[1] / 32);
    for w in warps(m.warps) {
        let tiles = tiles_of(seats, w);
        let (first, page) = (seat(seats, w, TILE), seat(seats, w, PAGE));
        let at = (line + first.min(tiles - 1_i32).max(0_i32) / of_block) as i64 * record;
        let (mut q, mut columns) = (query_of::<T>(m, records, at), columns_of::<T>(m, records, at));
        // Of weights; of each lane's where units stay.
        let (mut top, mut sum, mut count) = (cols(m.cols, f32::NEG_INFINITY), acc(8, m.cols, 0_i64), acc(8, m.cols, 0.0_f32));
        // Weighted coordinates of a leaf, residuals' by bands and centres': floats, or integers, the total of their weights, and what these
        // are multiplied by.
        let mut sums = [acc(32, m.cols, 0.0_f32), acc(32, m.cols, 0.0_f32), acc(32, m.cols, 0.0_f32), acc(32, m.cols, 0.0_f32)];
        let mut ways = acc(32, m.cols, 0.0_f32);
        let mut whole = [acc(32, m.cols, 0_i32), acc(32, m.cols, 0_i32), acc(32, m.cols, 0_i32), acc(32, m.cols, 0_i32)];
        let (mut whole_ways, mut total) = (acc(32, m.cols, 0_i32), cols(m.cols, 0_i32));
        let mut by = waiting_bands(m);
        let (mut power, mut along) = (cols(m.cols, 0.0_f32), cols(m.cols, 0.0_f32));
        let end = tiles.min(first + ((TILES as i32) << (seat(seats, w, LOG_EACH) & 31_i32)));
        for t in stream(first, end, 1, m.stages) {
            // Sixteen columns leave no registers for what lies in shared memory.
            let (tiles, page) = if m.parts == 1 { (tiles_of(seats, w), seat(seats, w, PAGE)) } else { (tiles, page) };
            let tokens = ring.copy(cache, tile_at(m, from, page, t));
            let fresh = t % TILES as i32 == 0_i32;
            // What the leaf's end will ask for is on its way from its first tile on.
            if fresh {
                for i in lanes(32) {
                    for u in 0..m.map_lines().div_ceil(32) {
                        let line = (i + (32 * u) as i32).min(m.map_lines() as i32 - 1_i32) * 128_i32;
                        cache.prefetch(page_at(m, from, page, t) + (line + m.behind.values_at as i32) as i64);
                    }
                }
            }
            if m.behind.before {
                if t == first {
                    keep(m, cache, &mut kept, w, page_at(m, from, page, t));
                }
                if (t % of_block == 0_i32) | (t == first) {
                    brought();
                    sync_warp();
                }
                if t % of_block == of_block / 2_i32 {
                    foresee(m, cache, page_at(m, from, page, (t + of_block).min(tiles - 1_i32)));
                }
            }
            let at = (line + t / of_block) as i64 * record;
            let mut x = if m.behind.before { turned_scores::<T>(m, k, records, &tokens, &mut more, &turns, &pairs, &kept, &mut queries, at, w, t) } else { scores(m, k, &tokens, &mut more, &q, &columns, w) };
            if m.behind.before {
                // The next block's come while this one's last tile is weighted and its leaf ends.
                if (t % of_block == of_block - 1_i32) & (t + 1_i32 < end) {
                    keep(m, cache, &mut kept, w, page_at(m, from, page, t + 1_i32));
                }
            }
            if t >= tiles - 1_i32 {
                x = x.map2(&((if m.parts == 2 { pair_ids() } else { row_ids(32) }) - (seat(seats, w, SEEN) - t * 32_i32)), visible);
            }
            // A new maximum is rare: the rescale stays out of the common path.
            if x.map2(&top, above).any() {
                let next = top.map2(&peaks(&x, m.parts), raised);
                if !fresh {
                    let fade = top.map2(&next, fade_of);
                    if m.parts == 2 {
                        power = power.map(lift_of).map3(&top, &next, sunk).map(up_of);
                        along = along.map(lift_of).map3(&top, &next, sunk).map(up_of);
                        count = &count * &fade;
                    } else {
                        for i in 0..bands {
                            sums[i] = &sums[i] * &fade;
                        }
                        ways = &ways * &fade;
                        sum = faded(m, &sum, &top, &next);
                    }
                }
                top = next;
            }
            if m.parts == 2 {
                let p = (x - &top).map(exp2_raised);
                count = &count + &p.lane_sums();
                let of = weighed_apart(m, v, &tokens, &mut more, w, &p, fresh, &low, whole, &whole_ways, &total, &mut power, &mut along);
                whole = of.0;
                whole_ways = of.1;
                total = of.2;
            } else {
                let p = x.map2(&top, weight);
                sum = &sum + &p.lane_sums().map(fixed);
                let of = weighed(m, v, &tokens, &mut more, w, &p, sums, &ways);
                sums = of.0;
                ways = of.1;
            }
            // A leaf's end: out of its block's coordinates, folded into what the warp holds; a fresh start.
            if (t % TILES as i32 == TILES as i32 - 1_i32) | (t >= tiles - 1_i32) {
                let log_each = seat(seats, w, LOG_EACH);
                let each = 1_i32 << (log_each & 31_i32);
                let r = (t / TILES as i32) & (each - 1_i32);
                let own = page_at(m, from, page, t);
                let base = if m.behind.shared[1] { bases.at(0) & -2_i64 } else { own };
                let (frame, map) = (base + m.behind.frames_at[1] as i64, own + m.behind.ways_at[1] as i64);
                let l = if m.parts == 2 { count_of(&count.map(counted), 2).cast::<f32>() * 1.1920929e-7_f32 } else { total_of(&sum, 1).cast::<f32>() * 1.8626451e-9_f32 };
                let o = if m.parts == 2 { unfolded_halves(m, cache, frame, map, &whole, &total, &whole_ways, &power, &along, &low, &l) } else { unfolded(m, cache, frame, map, &sums, &ways, &l) };
                hold_bands(m, held, &mut by, w, r, (r == each - 1_i32) | (t >= tiles - 1_i32), log_each, o, l, top.clone());
                top = cols(m.cols, f32::NEG_INFINITY);
                sum = acc(8, m.cols, 0_i64);
                count = acc(8, m.cols, 0.0_f32);
                for i in 0..bands {
                    sums[i] = acc(32, m.cols, 0.0_f32);
                    whole[i] = acc(32, m.cols, 0_i32);
                }
                ways = acc(32, m.cols, 0.0_f32);
                whole_ways = acc(32, m.cols, 0_i32);
                total = cols(m.cols, 0_i32);
                power = cols(m.cols, 0.0_f32);
                along = cols(m.cols, 0.0_f32);
                if m.parts == 1 {
                    anew();
                }
                let at = (line + (t + 1_i32).min(tiles - 1_i32) / of_block) as i64 * record;
                q = query_of::<T>(m, records, at);
                columns = columns_of::<T>(m, records, at);
            }
        }
    }
}

/// First byte of the page of tile `t`.
#[device]
fn page_at(m: &DecodeMeta, from: &Shared<i64>, page: i32, t: i32) -> i64 {
    from.at((t as u32 / (m.page_tokens / 32) as u32) as i32 - page) & -2_i64
}
