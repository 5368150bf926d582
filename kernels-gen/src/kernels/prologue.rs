//! What a block does before its tiles come: each warp looks up lengths and pages, takes its seat, sends for its first tiles and makes its part of
//! the queries. All that it looks up is on its way together, and no warp waits for another before its tiles are.

use super::arguments::{Cache, Queries, Share};
use super::decode_attention::DecodeMeta;
use super::leaves::TILES;
use super::many::*;
use super::query::quantise_query;
use super::room::Room;
use super::seats::*;
use crate::codec::Codec;
use kernel_dsl::prelude::*;

/// What a warp's crew takes: a part of a sequence, below 0 none, for a kv head.
#[device]
struct Part {
    seq: i32,
    split: i32,
    head: i32,
}

/// Takes the seats of a block's warps, lists their pages, starts their first copies and makes the queries; says of the columns which have a
/// weight's second byte.
#[device]
pub fn prepare<T: Float>(m: &DecodeMeta, k: &[&dyn Codec], q: &Queries<T>, cache: &Cache, room: &mut Room, status: &mut Global<i32>, of: &Share) {
    let tiles = (m.page_tokens / 32 * m.tile_bytes) as u32;
    // Bytes of a page of all kv heads.
    let page_bytes = (cache.kv_heads / m.fold as i32) as u32 * tiles;
    for w in warps(m.warps) {
        let (part, lead, log_share) = (part_of(m, room, of, w), lead_of(w, room.log_crew), room.log_crew + of.unit);
        let (seq, own_bytes) = (part.seq.max(0_i32), (part.head / m.fold as i32) as i64 * tiles as i64);
        let line = seq * cache.table_stride;
        let len = cache.lens.at(seq);
        let firsts = first_entries(m, cache, line, part.split << (log_share & 31_i32), w - lead);
        let row = if m.many | (m.record > 0) { vector(m.d, 0.0_f32).to::<T>() } else { query_row::<T>(m, q, cache.kv_heads, part.head, seq, if room.apart { 0_i32 } else { w - lead }) };
        list_pages(m, cache.table, &mut room.from, w, room.log_crew, line, first_page(m, part.split, log_share), cache.table_stride, cache.pages, page_bytes, own_bytes);
        let fits = (len >= 0_i32) & (len <= cache.table_stride * m.page_tokens as i32);
        let n = if fits & (part.seq >= 0_i32) { len } else { 0_i32 };
        sit(m, &mut room.seats, w, room.log_crew, part.seq, part.split, if m.many { sees(n, q.tokens, q.first + (m.queries as i32 - 1_i32)) } else { n }, n, of.unit, part.head);
        // The ring of a short sequence's warp holds its query first.
        if !room.apart {
            start_first(m, cache, room, firsts, page_bytes, own_bytes, w);
        }
        mark(m, room, status, w, lead, part.seq, fits);
        make_queries::<T>(m, k, q, cache, room, &part, row, w, lead);
    }
}

#[device]
fn part_of(m: &DecodeMeta, room: &Room, of: &Share, w: i32) -> Part {
    let (mut seq, mut split, mut head) = (if room.apart { of.short.at(w) } else { of.seq }, of.split, of.head);
    if m.pairs() {
        if !room.apart & (lead_of(w, room.log_crew) > 0_i32) {
            seq = of.other;
            split = of.other_split;
            head = of.other_head;
        }
    }
    Part { seq, split, head }
}

/// Entries of the table for the first tile of the `rank`-th warp of a crew, for each number of leaves that its warps may have.
#[device]
fn first_entries(m: &DecodeMeta, cache: &Cache, line: i32, leaf: i32, rank: i32) -> [i32; 6] {
    let mut entries = [0_i32; 6];
    for log in 0..m.depth + 1 {
        entries[log] = cache.table.at(line + page_of(m, (leaf + rank * (1 << log)) * TILES as i32).min(cache.table_stride - 1_i32));
    }
    entries
}

/// Starts the first copy of a warp: nobody else need have listed its page.
#[device]
fn start_first(m: &DecodeMeta, cache: &Cache, room: &Room, firsts: [i32; 6], page_bytes: u32, own_bytes: i64, w: i32) {
    let (at, end, each) = (seat(&room.seats, w, TILE), end_of(&room.seats, w), seat(&room.seats, w, LOG_EACH));
    let mut entry = firsts[0];
    for log in 1..m.depth + 1 {
        entry = if each == log as i32 { firsts[log] } else { entry };
    }
    if at < end {
        let from = if (entry as u32) < cache.pages as u32 { entry as u32 as i64 * page_bytes as i64 + own_bytes } else { own_bytes };
        room.ring.start(cache.bytes, within(m, from, at), bytes_of_copy(m, at, end), 0);
    }
}

/// Which columns have a weight's second byte; that no row is dropped yet, and whether the length is one.
#[device]
fn mark(m: &DecodeMeta, room: &mut Room, status: &mut Global<i32>, w: i32, lead: i32, seq: i32, fits: bool) {
    for c in lanes(m.cols) {
        room.side.put(c, if c >= (m.cols / 2) as i32 { 1_i32 } else { 0_i32 });
    }
    for c in lanes(m.rows()) {
        if w == lead {
            room.fault.put(lead * m.rows() as i32 + c, 0_i32);
            if (c == 0_i32) & (seq >= 0_i32) & !fits {
                status.put(2, 1_i32);
                status.put(3, seq);
            }
        }
    }
}

/// A warp's part of its crew's query, from its first row on; of several query tokens what each row sees too.
#[device]
#[allow(clippy::too_many_arguments)]
fn make_queries<T: Float>(m: &DecodeMeta, k: &[&dyn Codec], q: &Queries<T>, cache: &Cache, room: &mut Room, part: &Part, row: Tile<T>, w: i32, lead: i32) {
    if m.many {
        // Blocks without work make no query.
        for c in strided(w, if seat(&room.seats, w, LIVE) > 0_i32 { m.heads() as i32 } else { 0_i32 }, m.warps) {
            let own = c.min(m.rows() as i32 - 1_i32);
            if m.record == 0 {
                let x = query_row::<T>(m, q, cache.kv_heads, part.head, part.seq, c);
                quantise_query::<T>(m, k, room, x, c, if own == c { 1_i32 } else { 0_i32 }, q.scale, w);
            }
            for of in 0..m.parts {
                room.zero.put(c + (m.cols + of * m.heads()) as i32, sees(seat(&room.seats, w, TOKENS), q.tokens, q.first + own / m.group as i32));
            }
        }
    } else if m.record == 0 {
        let mut x = row;
        let step = 1_i32 << (room.log_crew & 31_i32);
        for c in strided(w - lead, m.heads() as i32, step) {
            let own = c.min(m.rows() as i32 - 1_i32);
            // Nobody else has another one.
            let next = if m.bundles() | (m.heads() > m.warps) { query_row::<T>(m, q, cache.kv_heads, part.head, part.seq.max(0_i32), c + step) } else { x.clone() };
            quantise_query::<T>(m, k, room, x.clone(), c, if own == c { 1_i32 } else { 0_i32 }, q.scale, w);
            x = next;
        }
    }
}

/// The query row of column `c`; columns past the rows have the last one.
#[device]
fn query_row<T: Float>(m: &DecodeMeta, q: &Queries<T>, kv_heads: i32, head: i32, seq: i32, c: i32) -> Tile<T> {
    q.rows.row(row_of(m, seq, kv_heads, head, q.tokens, q.first, c.min(m.rows() as i32 - 1_i32)) as i64 * m.d as i64, m.d)
}
