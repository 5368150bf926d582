//! The kernel: see [`super`].
//!
//! Cost: reads tile_bytes for 32 tokens and unpacks them once for 128 rows; 512 products of bytes a row, token and 128 dims, bound by the
//! tensor core and by what becomes of a score; writes (d + 2) * 4 bytes a row and share.

use super::super::decode_attention::DecodeMeta;
use super::super::leaves::{LEAF, TILES, finish, finished, leave, nothing};
use super::super::many::{row_of, sees};
use super::super::maps::outputs::{put_rows, settle, values_of_rows};
use super::super::query::zeros_of;
use super::ROWS;
use super::fold::{put_leaf, stat_at};
use super::rows::{make_rows, see_rows, take_rows};
use super::tiles::{SIDES, UNITS, bring, find};
use super::walk::{halves_of, walk};
use crate::codec::Codec;
use kernel_dsl::prelude::*;

/// What a page is that is not bad.
const NEVER: i32 = 2_147_483_647;

/// Grid: [blocks << log_splits | split, kv_heads, batch], for the blocks of query tokens from `first` on.
#[kernel]
pub fn chunk_attention<T: Float>(
    m: DecodeMeta,
    k: &[&dyn Codec],
    v: &[&dyn Codec],
    q: &Global<T>,                              // [batch, queries, heads, d], or records [batch, kv_heads, blocks, segments, m.record]
    #[when(m.record > 0)] maps: &Global<i8>,    // a layer's, as `preset::LayerMaps::packed` has them
    #[when(m.record > 0)] scales: &Global<f32>, // likewise
    cache: &Global<u8>,                         // [pages, kv_heads, block]
    table: &Global<i32>,                        // [batch, table_stride]
    lens: &Global<i32>,                         // [batch], the queries' own tokens included
    out: &mut Global<T>,                        // [batch, queries, heads, d]
    lse: &mut Global<f32>,                      // [batch, queries, heads], natural logarithm
    part: &mut Global<f32>,                     // [batch, kv_heads, blocks, splits, rows, d]
    stat: &mut Global<f32>,                     // [batch, kv_heads, blocks, splits, rows, 2]: maximum, sum
    status: &mut Global<i32>,                   // bad slot, bad page, bad length, where
    kv_heads: i32,
    pages: i32,
    table_stride: i32,
    splits: i32, // blocks that the longest sequence takes
    unit: i32,   // log2 of the leaves of a block
    scale: f32,
    queries: i32, // query tokens a sequence
    first: i32,
    blocks: i32,
    log_splits: i32,
) {
    if m.record > 0 {
        after_previous();
    }
    release_next();
    let (split, slot) = (block_id(0) & ((1_i32 << (log_splits & 31_i32)) - 1_i32), block_id(0) >> (log_splits & 31_i32));
    let (head, seq, first) = (block_id(1), block_id(2), (first + slot) * m.queries as i32);
    // Bytes of two leaves; outputs at the end.
    let mut room = shared::<f32>(m.half_bytes());
    let mut sides = shared::<u32>(2 * SIDES * LEAF);
    let mut query = shared::<i8>(2 * m.lines() * m.d);
    let mut zero = shared::<i32>(m.lines());
    let mut worths = shared::<f32>(m.lines());
    let mut leans = shared::<f32>(if k[0].spec().affine | (m.record > 0) { m.lines() } else { 0 });
    let mut ends = shared::<i32>(m.lines());
    let mut zeros = shared::<i32>(if m.record > 0 { 0 } else { m.d });
    let mut halves = shared::<i32>(if v[0].spec().mixed { m.d } else { 0 });
    // Outputs to be mapped back, what a step of them is worth, whether there are tokens.
    let mut ints = shared::<u8>(m.mapped_lines() * m.int_line());
    let mut units = shared::<f32>(m.mapped_lines());
    let mut some = shared::<i32>(m.mapped_lines());
    let mut from = shared::<i64>(2 * UNITS);
    let mut bad = shared::<i32>(UNITS);
    let mut waits = shared::<f32>(m.waiting());
    let mut by = [put_by_warp::<f32>(m.warps, m.waits(), ROWS, m.d), put_by_warp::<f32>(m.warps, if m.wide > 1 { m.waits() } else { 0 }, ROWS, m.d)];
    let (len, line) = (lens.at(seq), seq * table_stride);
    let fits = (len >= 0_i32) & (len <= table_stride * m.page_tokens as i32);
    let n = if fits { len } else { 0_i32 };
    let seen = sees(n, queries, first + (m.queries as i32 - 1_i32));
    let (leaves, begin) = ((seen + (LEAF as i32 - 1_i32)) / LEAF as i32, split << (unit & 31_i32));
    let end = leaves.min(begin + (1_i32 << (unit & 31_i32)));
    let (live, whole) = (begin < end, leaves <= 1_i32 << (unit & 31_i32));
    if m.record == 0 {
        zeros_of(k, &mut zeros, m.d);
    }
    halves_of(v[0], &mut halves, m.d);
    for u in threads(UNITS) {
        from.put((begin & 1_i32) * UNITS as i32 + u, find(&m, table, line, table_stride, pages, kv_heads, head, begin * TILES as i32 + (u >> 1_u32)));
        bad.put(u, NEVER);
        if (u == 0_i32) & !fits {
            status.put(2, 1_i32);
            status.put(3, seq);
        }
    }
    for w in warps(m.warps) {
        if live {
            bring(&m, k[0], v[0], cache, table, &mut from, &mut bad, &mut room, &mut sides, w, begin, seen, n, line, table_stride, pages, kv_heads, head);
            if m.record > 0 {
                see_rows(&m, &mut ends, w, n, queries, first);
            } else {
                make_rows::<T>(&m, k, &zeros, q, &mut query, &mut zero, &mut worths, &mut leans, &mut ends, w, seq, kv_heads, head, n, queries, first, scale);
            }
        }
    }
    for leaf in strided(begin, end, 1) {
        for w in warps(m.warps) {
            let (one, last) = (w * (ROWS * m.wide) as i32, ((w + 1_i32) * (ROWS * m.wide) as i32).min(m.rows() as i32) - 1_i32);
            // What the last of the warp's rows sees, and the first tile that its first row does not see to the end.
            let own = if one <= last { sees(n, queries, first + last / m.group as i32) } else { 0_i32 };
            let tiles = ((own + 31_i32) / 32_i32 - leaf * TILES as i32).max(0_i32).min(TILES as i32);
            let edge = sees(n, queries, first + one / m.group as i32) / 32_i32;
            // Each segment has queries of its own.
            if m.record > 0 {
                if (leaf == begin) | ((leaf & (m.segment / LEAF - 1) as i32) == 0_i32) {
                    let (segment, segments) = (leaf / (m.segment / LEAF) as i32, (table_stride * m.page_tokens as i32 + (m.segment as i32 - 1_i32)) / m.segment as i32);
                    let at = (((seq * kv_heads + head) * blocks + slot) as i64 * segments as i64 + segment as i64) * m.record as i64;
                    take_rows::<T>(&m, q, at, if segment + 1_i32 < segments { at + m.record as i64 } else { at }, &mut query, &mut zero, &mut worths, &mut leans, w);
                }
            }
            // Half of the warps bring their share of the next leaf while the others attend to this one: who waits for memory, and who computes.
            let late = (w >> 3_u32) & 1_i32;
            for step in strided(0_i32, 2_i32, 1) {
                if step == late {
                    bring(&m, k[0], v[0], cache, table, &mut from, &mut bad, &mut room, &mut sides, w, leaf + 1_i32, if leaf + 1_i32 < end { seen } else { 0_i32 }, n, line, table_stride, pages, kv_heads, head);
                } else {
                    let of = walk(&m, k, v, &room, &sides, &query, &zero, &worths, &leans, &ends, &halves, w, leaf, tiles, edge);
                    for g in 0..m.wide {
                        put_leaf(&m, &mut by[g], &mut waits, w, g, leaf - begin, leaf == end - 1_i32, unit, [of.0[g].clone(), of.1[g].clone(), of.2[g].clone()]);
                    }
                }
            }
        }
    }
    for w in warps(m.warps) {
        if live {
            for g in 0..m.wide {
                room.put_acc((w * m.wide as i32 + g as i32) * (ROWS * m.line()) as i32, m.line(), 1, m.d, &by[g].at(w, 0_i32));
            }
        }
        sync_warp();
        let mut worst = NEVER;
        for i in 0..TILES {
            worst = worst.min(bad.at(2 * i as i32));
        }
        for c in strided(w * (ROWS * m.wide) as i32, if live | (whole & (split == 0_i32)) { ((w + 1_i32) * (ROWS * m.wide) as i32).min(m.rows() as i32) } else { 0_i32 }, 1) {
            let (of, own) = (row_of(&m, seq, kv_heads, head, queries, first, c), first + c / (m.group as i32) < queries);
            if live {
                let at = stat_at(&m, c / ROWS as i32, 0_i32) + 2_i32 * (c % ROWS as i32);
                let (o, l, top) = (room.row(c * m.line() as i32, m.d), waits.at(at + 1_i32), waits.at(at));
                if whole {
                    let good = worst >= ends.at(c);
                    if own {
                        if m.record > 0 {
                            let (y, of_all) = finished(v[0], m.d, m.inv_sqrt_d, good & (l > 0.0_f32), &o, l, top);
                            settle(&y, good & (l > 0.0_f32), c, &mut ints, &mut units, &mut some, m.d);
                            lse.put(of, of_all);
                        } else {
                            finish::<T>(v[0], out, lse, of, m.d, m.inv_sqrt_d, good & (l > 0.0_f32), &o, l, top);
                        }
                    }
                    for _ in lanes(if good { 0_i32 } else { 1_i32 }) {
                        status.put(1, 1_i32);
                        status.put(3, seq);
                    }
                } else {
                    let row = (((seq * kv_heads + head) * blocks + slot) as i64 * splits as i64 + split as i64) * m.rows() as i64 + c as i64;
                    leave(part, stat, row, m.d, &o, l, top);
                }
            } else if own {
                nothing::<T>(out, lse, of, m.d);
            }
        }
    }
    if m.record > 0 {
        put_mapped::<T>(&m, maps, scales, &ints, &units, &some, &mut room, out, kv_heads, head, seq, queries, first, live & whole);
    }
}

/// Rows as values again, eight rows and 32 dims a warp at a time, where their outputs were; then in memory, if the block is to write them.
#[device]
#[allow(clippy::too_many_arguments)]
fn put_mapped<T: Float>(
    m: &DecodeMeta,
    maps: &Global<i8>,
    scales: &Global<f32>,
    ints: &Shared<u8>,
    units: &Shared<f32>,
    some: &Shared<i32>,
    room: &mut Shared<f32>,
    out: &mut Global<T>,
    kv_heads: i32,
    head: i32,
    seq: i32,
    queries: i32,
    first: i32,
    on: bool,
) {
    for w in warps(m.warps) {
        for part in strided(w, if on { (m.d / 32 * m.lines() / ROWS) as i32 } else { 0_i32 }, m.warps) {
            let (column, rows) = (part % (m.d / 32) as i32 * 32_i32, part / (m.d / 32) as i32 * ROWS as i32);
            room.put_acc(column + rows * m.d as i32, 1, m.d, ROWS, &values_of_rows(maps, scales, ints, units, kv_heads, head, column, rows, m.d));
        }
    }
    put_rows::<T>(m, room, some, out, kv_heads, head, seq, queries, first, on);
}
