//! Attention over the coded cache, for one query token a sequence and for several: the loop of a warp, and what stands around it.

use super::arguments::{Cache, Outputs, Queries, Share};
use super::asked::*;
use super::decode_attention::DecodeMeta;
use super::faults::find_own_faults;
use super::finish::write_rows;
use super::leaf::*;
use super::leaves::{LEAF, TILES, hold, waiting};
use super::many::hidden;
use super::prologue::prepare;
use super::query::{nothing_of, query_at, zeros_of};
use super::room::{Room, room};
use super::scores::scores;
use super::seats::*;
use super::softmax::{above, kept, visible};
use crate::codec::Codec;
use kernel_dsl::prelude::*;

/// Attention of a block's query rows, the first `m.rows()` of the columns, over its share of a sequence: 2^unit leaves
/// a warp; or, where a crew is one warp, of each warp's over a sequence of its own.
///
/// Who has all of a sequence writes the output; another leaves its part for the join kernel.
#[device]
pub fn attend<T: Float>(m: &DecodeMeta, k: &[&dyn Codec], v: &[&dyn Codec], q: &Queries<T>, cache: &Cache, to: &mut Outputs<T>, of: &Share) {
    let room = &mut room(m, k, of);
    if m.record == 0 {
        zeros_of(k, &mut room.zeros, m.d);
    }
    prepare::<T>(m, k, q, cache, room, to.status, of);
    for w in warps(m.warps) {
        walk::<T>(m, k, v, q, cache, room, to.status, of, w);
    }
    anew();
    write_rows::<T>(m, v, q, cache, to, room);
}

/// Every tile of a warp: scores, softmax, weighted values. A leaf's end folds it into what the warp holds.
#[device]
#[allow(clippy::too_many_arguments)]
fn walk<T: Float>(m: &DecodeMeta, k: &[&dyn Codec], v: &[&dyn Codec], q: &Queries<T>, cache: &Cache, room: &mut Room, status: &mut Global<i32>, of: &Share, w: i32) {
    let own = own_of::<T>(m, k, q, cache, room, of, w);
    let mut query = first_query::<T>(m, k, q, &own);
    // While first tiles are on their way.
    find_own_faults(m, &room.seats, &room.from, status, &mut room.fault, q.tokens, q.first, room.log_crew, w);
    let mut leaf = fresh(m, v.len());
    let mut by = waiting(m, v.len());
    let end = end_of(&room.seats, w);
    let homes = if m.homes() { homes(m, &room.from, own.page, own.tile, end) } else { vector(32, 0_i64) };
    for at in stream(own.tile, end, m.pair, m.stages) {
        let tokens = room.ring.copy_some(cache.bytes, if m.homes() { homes.of_lane(at) } else { tile_at(m, &room.from, own.page, at) }, bytes_of_copy(m, at, end));
        // A loop on the device: its code is large, and the last copy may have one tile.
        for i in strided(0_i32, if m.pair > 1 { (end - at).min(m.pair as i32) } else { 1_i32 }, 1) {
            let (t, base) = (at + i, i * m.tile_bytes as i32);
            let operands = if m.reloads() { query_at(m, &room.query, nothing_of(t), k.len()) } else { (query.operands.0.clone(), query.operands.1.clone(), own.floats.clone()) };
            let (mut x, mut v_scale, pairs) = scores(m, k, v, &tokens, base, &operands, &own, &query.columns, room);
            let ends = t >= own.edge;
            // One vote and one branch for both, which are rare.
            let mut higher = x.map2(&leaf.top, |x, top| above(x, top) | ends).any();
            if higher {
                if ends {
                    anew();
                    let past = (if m.parts == 2 { pair_ids() } else { row_ids(32) }) - (seat(&room.seats, w, SEEN) - t * 32_i32);
                    x = if m.many { x.map2(&hidden(&room.zero, t, m.cols, m.parts), visible) } else { x.map2(&past, visible) };
                    v_scale = v_scale.map2(&past, kept);
                    higher = x.map2(&leaf.top, above).any();
                }
                // Rare too: the rescale stays out of the common path.
                if higher {
                    raise_top(m, v, &mut leaf, &x, t);
                }
            }
            let p = weigh(m, &mut leaf, &x);
            if v[0].spec().affine {
                lean(m, k[0], v[0], &mut leaf, &tokens, base, &pairs.1, &p);
            }
            add_values(m, v, &mut leaf, &tokens, base, &p, &v_scale, &room.side, t);
        }
        let t = (at + m.pair as i32).min(end) - 1_i32;
        if ends_leaf(t) | (t >= own.tiles - 1_i32) {
            anew();
            let log_each = seat(&room.seats, w, LOG_EACH);
            let each = 1_i32 << (log_each & 31_i32);
            let r = (t / TILES as i32) & (each - 1_i32);
            let (o, l) = outputs(m, v, &leaf);
            hold(m, v.len(), &mut room.held, &mut by, w, r, (r == each - 1_i32) | (t >= own.tiles - 1_i32), log_each, o, l, leaf.top.clone());
            leaf = fresh(m, v.len());
            // Only what walks more leaves than a segment has comes to another one.
            if (m.record > 0) & ((LEAF << m.depth) > m.segment) {
                query = query_of::<T>(m, k, q, &own, (t + 1_i32).min(own.tiles - 1_i32));
            }
        }
    }
}
