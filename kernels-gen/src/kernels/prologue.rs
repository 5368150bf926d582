//! What a block does before its tiles come: its warps look up lengths and pages and take their seats, then make the queries.

use super::arguments::{Cache, Queries, Share};
use super::decode_attention::DecodeMeta;
use super::many::*;
use super::query::quantise_query;
use super::room::Room;
use super::seats::*;
use crate::codec::Codec;
use kernel_dsl::prelude::*;

/// Takes the seats of a block's warps and lists their pages; says of the columns which have a weight's second byte.
#[device]
pub fn sit_down<T: Float>(m: &DecodeMeta, q: &Queries<T>, cache: &Cache, room: &mut Room, status: &mut Global<i32>, of: &Share) {
    // Bytes of a page of all kv heads, and of those before the own one.
    let page_bytes = (cache.kv_heads / m.fold as i32) as u32 * (m.page_tokens / 32 * m.tile_bytes) as u32;
    let own_bytes = (of.head / m.fold as i32) as i64 * (m.page_tokens / 32 * m.tile_bytes) as i64;
    for w in warps(m.warps) {
        let (own_seq, lead) = (if room.apart { of.short.at(w) } else { of.seq }, lead_of(w, room.log_crew));
        let seq = own_seq.max(0_i32);
        // What does not depend on the length is on its way together with it.
        let len = cache.lens.at(seq);
        list_pages(m, cache.table, &mut room.from, w, room.log_crew, seq * cache.table_stride, first_page(m, of.split, of.unit), cache.table_stride, cache.pages, page_bytes, own_bytes);
        let fits = (len >= 0_i32) & (len <= cache.table_stride * m.page_tokens as i32);
        let n = if fits & (own_seq >= 0_i32) { len } else { 0_i32 };
        sit(m, &mut room.seats, w, room.log_crew, own_seq, of.split, if m.many { sees(n, q.tokens, q.first + (m.queries as i32 - 1_i32)) } else { n }, n, of.unit, of.head);
        for c in lanes(m.cols) {
            room.side.put(c, if c >= (m.cols / 2) as i32 { 1_i32 } else { 0_i32 });
        }
        for c in lanes(m.rows()) {
            if w == lead {
                room.fault.put(lead * m.rows() as i32 + c, 0_i32);
                if (c == 0_i32) & (own_seq >= 0_i32) & !fits {
                    status.put(2, 1_i32);
                    status.put(3, seq);
                }
            }
        }
    }
}

/// Makes the queries of a block, or each warp's own where crews are one warp, while its first tiles are on their way.
#[device]
pub fn make_queries<T: Float>(m: &DecodeMeta, k: &[&dyn Codec], q: &Queries<T>, cache: &Cache, room: &mut Room, of: &Share) {
    for w in warps(m.warps) {
        // First tiles are on their way while queries are made.
        if !room.apart {
            start_tiles(m, &room.ring, cache.bytes, &room.from, &room.seats, w);
        }
        // The ring of a long sequence's warp holds its query first.
        if m.pairs() {
            if room.apart & (room.log_crew > 0_i32) {
                for _ in lanes(1) {
                    let at = seat(&room.seats, w, TILE);
                    if at < end_of(&room.seats, w) {
                        cache.bytes.prefetch_some(tile_at(m, &room.from, seat(&room.seats, w, PAGE), at), m.asked() as i32);
                    }
                }
            }
        }
        if m.many {
            // Blocks without work make no query.
            for c in strided(w, if seat(&room.seats, w, LIVE) > 0_i32 { m.heads() as i32 } else { 0_i32 }, m.warps) {
                let own = c.min(m.rows() as i32 - 1_i32);
                if m.record == 0 {
                    let x = query_row::<T>(m, q, cache.kv_heads, of.head, of.seq, c);
                    quantise_query::<T>(m, k, room, x, c, if own == c { 1_i32 } else { 0_i32 }, q.scale, false, w);
                }
                for part in 0..m.parts {
                    room.zero.put(c + (m.cols + part * m.heads()) as i32, sees(seat(&room.seats, w, TOKENS), q.tokens, q.first + own / m.group as i32));
                }
            }
        } else if m.record == 0 {
            // All warps make one query, or each its own.
            let seq = seat(&room.seats, w, SEQ).max(0_i32);
            let (from_row, step) = (if room.apart { 0_i32 } else { w }, if room.apart { 1_i32 } else { m.warps as i32 });
            let mut x = query_row::<T>(m, q, cache.kv_heads, of.head, seq, from_row.min(m.heads() as i32 - 1_i32));
            for c in strided(from_row, m.heads() as i32, step) {
                let own = c.min(m.rows() as i32 - 1_i32);
                // Nobody else has another one.
                let next = if m.bundles() | (m.heads() > m.warps) { query_row::<T>(m, q, cache.kv_heads, of.head, seq, (c + step).min(m.heads() as i32 - 1_i32)) } else { x.clone() };
                quantise_query::<T>(m, k, room, x.clone(), c, if own == c { 1_i32 } else { 0_i32 }, q.scale, room.apart, w);
                x = next;
            }
        }
    }
}

/// The query row of column `c`; columns past the rows have the last one.
#[device]
fn query_row<T: Float>(m: &DecodeMeta, q: &Queries<T>, kv_heads: i32, head: i32, seq: i32, c: i32) -> Tile<T> {
    q.rows.row(row_of(m, seq, kv_heads, head, q.tokens, q.first, c.min(m.rows() as i32 - 1_i32)) as i64 * m.d as i64, m.d)
}
