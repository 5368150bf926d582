//! What a block does before its tiles come: its warps look up lengths and pages and take their seats, then make the queries.

use super::decode_attention::DecodeMeta;
use super::many::*;
use super::query::quantise_query;
use super::seats::*;
use crate::codec::Codec;
use kernel_dsl::prelude::*;

/// Takes the seats of a block's warps and lists their pages; says of the columns which have a weight's second byte.
#[device]
#[allow(clippy::too_many_arguments)]
pub fn sit_down(
    m: &DecodeMeta,
    table: &Global<i32>,
    lens: &Global<i32>,
    short: &Shared<i32>,
    status: &mut Global<i32>,
    side: &mut Shared<i32>,
    fault: &mut Shared<i32>,
    from: &mut Shared<i64>,
    seats: &mut Shared<i32>,
    kv_heads: i32,
    pages: i32,
    table_stride: i32,
    split: i32,
    unit: i32,
    head: i32,
    seq: i32,
    log_crew: i32,
    apart: bool,
    queries: i32,
    first: i32,
) {
    // Bytes of a page of all kv heads, and of those before the own one.
    let page_bytes = (kv_heads / m.fold as i32) as u32 * (m.page_tokens / 32 * m.tile_bytes) as u32;
    let own_bytes = (head / m.fold as i32) as i64 * (m.page_tokens / 32 * m.tile_bytes) as i64;
    for w in warps(m.warps) {
        let (own_seq, lead) = (if apart { short.at(w) } else { seq }, lead_of(w, log_crew));
        let seq = own_seq.max(0_i32);
        // What does not depend on the length is on its way together with it.
        let len = lens.at(seq);
        list_pages(m, table, from, w, log_crew, seq * table_stride, first_page(m, split, unit), table_stride, pages, page_bytes, own_bytes);
        let fits = (len >= 0_i32) & (len <= table_stride * m.page_tokens as i32);
        let n = if fits & (own_seq >= 0_i32) { len } else { 0_i32 };
        sit(m, seats, w, log_crew, own_seq, split, if m.many { sees(n, queries, first + (m.queries as i32 - 1_i32)) } else { n }, n, unit, head);
        for c in lanes(m.cols) {
            side.put(c, if c >= (m.cols / 2) as i32 { 1_i32 } else { 0_i32 });
        }
        for c in lanes(m.rows()) {
            if w == lead {
                fault.put(lead * m.rows() as i32 + c, 0_i32);
                if (c == 0_i32) & (own_seq >= 0_i32) & !fits {
                    status.put(2, 1_i32);
                    status.put(3, seq);
                }
            }
        }
    }
}

/// Makes the queries of a block, or each warp's own where crews are one warp (`apart`), while its first tiles are on their way. `up`: how many bits
/// high sums of keys and queries stand.
#[device]
#[allow(clippy::too_many_arguments)]
pub fn make_queries<T: Float>(
    m: &DecodeMeta,
    k: &[&dyn Codec],
    q: &Global<T>,
    ring: &Ring,
    cache: &Global<u8>,
    from: &Shared<i64>,
    seats: &Shared<i32>,
    zeros: &Shared<i32>,
    query: &mut Shared<u8>,
    rings: &mut Shared<u8>,
    zero: &mut Shared<i32>,
    worths: &mut Shared<f32>,
    leans: &mut Shared<f32>,
    kv_heads: i32,
    head: i32,
    seq: i32,
    scale: f32,
    up: usize,
    apart: bool,
    queries: i32,
    first: i32,
) {
    for w in warps(m.warps) {
        // First tiles are on their way while queries are made.
        if !apart {
            start_tiles(m, ring, cache, from, seats, w);
        }
        if m.many {
            // Blocks without work make no query.
            for c in strided(w, if seat(seats, w, LIVE) > 0_i32 { m.heads() as i32 } else { 0_i32 }, m.warps) {
                let own = c.min(m.rows() as i32 - 1_i32);
                if m.record == 0 {
                    let x = query_row::<T>(m, q, seq, kv_heads, head, queries, first, c);
                    quantise_query::<T>(m, k, zeros, x, c, if own == c { 1_i32 } else { 0_i32 }, scale, up, false, w, query, rings, zero, worths, leans);
                }
                for part in 0..m.parts {
                    zero.put(c + (m.cols + part * m.heads()) as i32, sees(seat(seats, w, TOKENS), queries, first + own / m.group as i32));
                }
            }
        } else if m.record == 0 {
            // All warps make one query, or each its own.
            let seq = seat(seats, w, SEQ).max(0_i32);
            let (from_row, step) = (if apart { 0_i32 } else { w }, if apart { 1_i32 } else { m.warps as i32 });
            let mut x = query_row::<T>(m, q, seq, kv_heads, head, queries, first, from_row.min(m.heads() as i32 - 1_i32));
            for c in strided(from_row, m.heads() as i32, step) {
                let own = c.min(m.rows() as i32 - 1_i32);
                // Nobody else has another one.
                let next = if m.bundles() | (m.heads() > m.warps) { query_row::<T>(m, q, seq, kv_heads, head, queries, first, (c + step).min(m.heads() as i32 - 1_i32)) } else { x.clone() };
                quantise_query::<T>(m, k, zeros, x.clone(), c, if own == c { 1_i32 } else { 0_i32 }, scale, up, apart, w, query, rings, zero, worths, leans);
                x = next;
            }
        }
    }
}

/// The query row of column `c`; columns past the rows have the last one.
#[device]
#[allow(clippy::too_many_arguments)]
fn query_row<T: Float>(m: &DecodeMeta, q: &Global<T>, seq: i32, kv_heads: i32, head: i32, queries: i32, first: i32, c: i32) -> Tile<T> {
    q.row(row_of(m, seq, kv_heads, head, queries, first, c.min(m.rows() as i32 - 1_i32)) as i64 * m.d as i64, m.d)
}
