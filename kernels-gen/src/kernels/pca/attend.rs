//! Decode attention over the PCA codec's pages: as [`super::super::attend`], with a query of its own for every block of 512 tokens, and
//! sums that leave their block's coordinates at the end of every leaf.
//!
//! Leaves, their tree and the join are those of every codec. A block of threads takes 2^unit leaves a warp of one (sequence, kv head).
//! Cost: reads tile_bytes for 32 tokens and a record for 512, and for 256 the map of values; writes as every decode kernel.

use super::super::arguments::{Cache, Outputs, Queries, Share};
use super::super::decode_attention::DecodeMeta;
use super::super::faults::find_faults;
use super::super::leaves::leave_share;
use super::super::seats::*;
use super::walk::walk;
use crate::codec::Codec;
use kernel_dsl::prelude::*;

/// Attention of a sequence's query row, a block's share of it, as `attend` has it; `q` are records of [`super::queries`].
#[device]
pub fn attend_blocks<T: Float>(m: &DecodeMeta, k: &dyn Codec, v: &dyn Codec, q: &Queries<T>, cache: &Cache, to: &mut Outputs<T>, of: &Share) {
    let mut held = shared::<f32>(m.warps * m.run());
    let mut fault = shared::<i32>(m.rows());
    // The page of shared bases, odd where the entry is bad.
    let mut bases = shared::<i64>(m.lead());
    let mut from = shared::<i64>(m.warps * m.listed_by_warp());
    let mut seats = shared::<i32>(m.warps * WORDS);
    let (len, crew) = (cache.lens.at(of.seq), m.log_warps() as i32);
    let stride = if m.lead() > 0 { cache.table_stride - 1_i32 } else { cache.table_stride };
    let fits = (len >= 0_i32) & (len <= stride * m.page_tokens as i32);
    let n = if fits { len } else { 0_i32 };
    let (page_bytes, own_bytes) = (cache.kv_heads as u32 * m.block_bytes() as u32, of.head as i64 * m.block_bytes() as i64);
    for w in warps(m.warps) {
        let line = if m.lead() > 0 { of.seq * cache.table_stride + stride.min(1_i32) } else { of.seq * cache.table_stride };
        list_pages(m, cache.table, &mut from, w, crew, line, first_page(m, of.split, crew + of.unit), stride, cache.pages, page_bytes, own_bytes);
        sit(m, &mut seats, w, crew, of.seq, of.split, n, n, of.unit, of.head);
    }
    if m.lead() > 0 {
        for _ in threads(1) {
            let entry = cache.table.at(of.seq * cache.table_stride) as u32;
            bases.put(0, if entry < cache.pages as u32 { entry as i64 * page_bytes as i64 + own_bytes } else { own_bytes + 1_i64 });
        }
    }
    for c in threads(m.rows()) {
        fault.put(c, 0_i32);
        if (c == 0_i32) & !fits {
            to.status.put(2, 1_i32);
            to.status.put(3, of.seq);
        }
    }
    walk::<T>(m, k, v, q.rows, cache.bytes, &seats, &from, &bases, &mut held, (of.seq * cache.kv_heads + of.head) * cache.table_stride);
    // Read again lest they take registers during the loop.
    let (seq, split, head) = (seat(&seats, 0_i32, SEQ), seat(&seats, 0_i32, SPLIT), seat(&seats, 0_i32, HEAD));
    let of = Share { head, seq, split, other: -1_i32, other_head: 0_i32, other_split: 0_i32, unit: of.unit, log_crew: of.log_crew, short: of.short };
    let (all, live) = (whole(seat(&seats, 0_i32, SEEN), seat(&seats, 0_i32, SHARE)), seat(&seats, 0_i32, LIVE));
    find_faults(m, &seats, &from, to.status, &mut fault, 1_i32, 0_i32, crew);
    if m.lead() > 0 {
        for c in threads(m.rows()) {
            if all & (live > 0_i32) & ((bases.at(0) & 1_i64) > 0_i64) {
                fault.put(c, 1_i32);
                to.status.put(1, 1_i32);
                to.status.put(3, seq);
            }
        }
    }
    leave_share::<T>(m, v, &held, &fault, to, cache.kv_heads, &of, live, all);
}
