//! What a warp knows of its share, and where the pages are that it reads.
//!
//! Warps that take a share together are a crew: all of a block's, or one where short sequences lie side by side. A crew has pages,
//! rows and a query of its own. What a warp needs again later lies in shared memory, lest it take registers during the loop.

use super::decode_attention::DecodeMeta;
use super::leaves::{LEAF, TILES, log_each};
use kernel_dsl::prelude::*;

/// Words of a warp's seat: sequence, split, tokens that the last row sees, tokens of the sequence, first tile of the warp, log2 of
/// its leaves, warps of the crew that have any, page of the sequence that the crew's list of pages would begin with at 0, log2 of the
/// leaves of the crew's share, kv head.
pub const SEQ: usize = 0;
pub const SPLIT: usize = 1;
pub const SEEN: usize = 2;
pub const TOKENS: usize = 3;
pub const TILE: usize = 4;
pub const LOG_EACH: usize = 5;
pub const LIVE: usize = 6;
pub const PAGE: usize = 7;
pub const SHARE: usize = 8;
pub const HEAD: usize = 9;
pub const WORDS: usize = 10;

/// First warp of a warp's crew.
#[device]
pub fn lead_of(w: i32, log_crew: i32) -> i32 {
    (w >> (log_crew & 31_i32)) << (log_crew & 31_i32)
}

/// First page of a share, in the order of its sequence.
#[device]
pub fn first_page(m: &DecodeMeta, split: i32, log_share: i32) -> i32 {
    (split << (log_share & 31_i32)) * LEAF as i32 / m.page_tokens as i32
}

/// The page of its sequence that tile `t` lies in.
#[device]
pub fn page_of(m: &DecodeMeta, t: i32) -> i32 {
    (t as u32 / (m.page_tokens / 32) as u32) as i32
}

/// The warp takes its seat in a share of a sequence of `tokens` tokens, of which its rows see `seen`.
#[device]
#[allow(clippy::too_many_arguments)]
pub fn sit(m: &DecodeMeta, seats: &mut Shared<i32>, w: i32, log_crew: i32, seq: i32, split: i32, seen: i32, tokens: i32, unit: i32, head: i32) {
    let (lead, at) = (lead_of(w, log_crew), w * WORDS as i32);
    let leaves = (seen + (LEAF as i32 - 1_i32)) / LEAF as i32;
    let log_share = log_crew + unit;
    let (begin, most) = (split << (log_share & 31_i32), 1_i32 << (log_share & 31_i32));
    let log_each = log_each(leaves, unit, log_crew, m.depth);
    let each = 1_i32 << (log_each & 31_i32);
    for _ in lanes(1) {
        seats.put(at + SEQ as i32, seq);
        seats.put(at + SPLIT as i32, split);
        seats.put(at + SEEN as i32, seen);
        seats.put(at + TOKENS as i32, tokens);
        seats.put(at + TILE as i32, (begin + (w - lead) * each) * TILES as i32);
        seats.put(at + LOG_EACH as i32, log_each);
        seats.put(at + LIVE as i32, ((leaves - begin).min(most).max(0_i32) + (each - 1_i32)) >> (log_each & 31_i32));
        seats.put(at + PAGE as i32, first_page(m, split, log_share) - lead * m.listed_by_warp() as i32);
        seats.put(at + SHARE as i32, log_share);
        seats.put(at + HEAD as i32, head);
    }
}

/// A word of warp `w`'s seat.
#[device]
pub fn seat(seats: &Shared<i32>, w: i32, word: usize) -> i32 {
    seats.at(w * WORDS as i32 + word as i32)
}

/// Whether a crew has all that its rows see.
#[device]
pub fn whole(seen: i32, log_share: i32) -> bool {
    (seen + (LEAF as i32 - 1_i32)) / LEAF as i32 <= 1_i32 << (log_share & 31_i32)
}

/// Where the pages begin that a crew's share may need, from entry `first` of a line of the table on: warp `w`'s part. A bad entry reads
/// page 0 and is marked by an odd number; whoever finishes the row drops it.
#[device]
#[allow(clippy::too_many_arguments)]
pub fn list_pages(m: &DecodeMeta, table: &Global<i32>, from: &mut Shared<i64>, w: i32, log_crew: i32, line: i32, first: i32, stride: i32, pages: i32, page_bytes: u32, own_bytes: i64) {
    let (each, rank) = (m.listed_by_warp() as i32, w - lead_of(w, log_crew));
    for i in lanes(m.listed_by_warp()) {
        let entry = table.at(line + (first + rank * each + i).min(stride - 1_i32).max(0_i32)) as u32;
        from.put(w * each + i, if entry < pages as u32 { entry as i64 * page_bytes as i64 + own_bytes } else { own_bytes + 1_i64 });
    }
}

/// The entry of a list of pages that tile `t` lies in; `page`: of the warp's seat.
#[device]
fn entry_of(m: &DecodeMeta, t: i32, page: i32) -> i32 {
    page_of(m, t) - page
}

/// First byte of tile `t`, with which a copy begins, in a page that begins at `from`.
#[device]
pub fn within(m: &DecodeMeta, from: i64, t: i32) -> i64 {
    let page = from & -2_i64;
    // A copy may be a page.
    if 32 * m.pair == m.page_tokens { page } else { page + (t as u32 % (m.page_tokens / 32) as u32 * m.tile_bytes as u32) as i64 }
}

/// First byte of tile `t`; `page`: of the warp's seat.
#[device]
pub fn tile_at(m: &DecodeMeta, from: &Shared<i64>, page: i32, t: i32) -> i64 {
    within(m, from.at(entry_of(m, t, page)), t)
}

/// The tile of a lane, of those from `first` up to `end`: those past the end are the last one.
#[device]
fn tile_of(lane: i32, first: i32, end: i32) -> i32 {
    (first + ((lane - first) & 31_i32)).min((end - 1_i32).max(first))
}

/// First bytes of a warp's tiles, 32 at most, that of tile t in lane t % 32: a copy then looks up no page.
#[device]
pub fn homes(m: &DecodeMeta, from: &Shared<i64>, page: i32, first: i32, end: i32) -> Tile<i64> {
    let tiles = vector_ids(32).map3(&vector(32, first), &vector(32, end), tile_of);
    from.gather(&tiles.map2(&vector(32, page), |t, page| entry_of(m, t, page))).map2(&tiles, |from, t| within(m, from, t))
}

/// Tiles of a warp's sequence.
#[device]
pub fn tiles_of(seats: &Shared<i32>, w: i32) -> i32 {
    (seat(seats, w, SEEN) + 31_i32) >> 5
}

/// The tile after a warp's last one.
#[device]
pub fn end_of(seats: &Shared<i32>, w: i32) -> i32 {
    tiles_of(seats, w).min(seat(seats, w, TILE) + ((TILES as i32) << (seat(seats, w, LOG_EACH) & 31_i32)))
}

/// Bytes of the copy from tile `at` on, of a warp's tiles up to `end`.
#[device]
pub fn bytes_of_copy(m: &DecodeMeta, at: i32, end: i32) -> i32 {
    if m.pair > 1 { (end - at).min(m.pair as i32) * m.tile_bytes as i32 } else { m.tile_bytes as i32 }
}

/// The first copies of a warp's tiles, from the `first`-th on.
#[device]
pub fn start_tiles(m: &DecodeMeta, ring: &Ring, cache: &Global<u8>, from: &Shared<i64>, seats: &Shared<i32>, w: i32, first: usize) {
    let (page, end) = (seat(seats, w, PAGE), end_of(seats, w));
    for turn in first..m.stages - 1 {
        let at = seat(seats, w, TILE) + (turn * m.pair) as i32;
        if at < end {
            ring.start(cache, tile_at(m, from, page, at), bytes_of_copy(m, at, end), turn);
        }
    }
}
