//! Decode attention over the PCA codec's pages: as [`super::super::attend`], with a query of its own for every block of 512 tokens, and
//! sums that leave their block's coordinates at the end of every leaf.
//!
//! Leaves, their tree and the join are those of every codec. A block of threads takes 2^unit leaves a warp of one (sequence, kv head).
//! Cost: reads tile_bytes for 32 tokens and a record for 512, and for 256 the map of values; writes as every decode kernel.

use super::super::decode_attention::DecodeMeta;
use super::super::faults::find_faults;
use super::super::keys::{high_half, low_half};
use super::super::kivi::leaves::hold_bands;
use super::super::leaves::{TILES, leave_share};
use super::super::seats::*;
use super::super::softmax::*;
use super::super::values::{peaks, total_of, weights};
use super::unfold::unfolded;
use crate::codec::Codec;
use crate::pca::pages::WAYS;
use kernel_dsl::prelude::*;

/// Attention of a sequence's query row, a block's share of it, as `attend` has it; `records`: of [`super::queries`].
#[device]
#[allow(clippy::too_many_arguments)]
pub fn attend_blocks<T: Float>(
    m: &DecodeMeta,
    k: &dyn Codec,
    v: &dyn Codec,
    records: &Global<T>,
    cache: &Global<u8>,
    table: &Global<i32>,
    lens: &Global<i32>,
    out: &mut Global<T>,
    lse: &mut Global<f32>,
    part: &mut Global<f32>,
    stat: &mut Global<f32>,
    status: &mut Global<i32>,
    kv_heads: i32,
    pages: i32,
    table_stride: i32,
    splits: i32,
    unit: i32,
    head: i32,
    seq: i32,
    split: i32,
) {
    let mut held = shared::<f32>(m.warps * m.run());
    let mut fault = shared::<i32>(m.rows());
    // The page of shared bases, odd where the entry is bad.
    let mut bases = shared::<i64>(m.lead());
    let mut from = shared::<i64>(m.warps * m.listed_by_warp());
    let mut seats = shared::<i32>(m.warps * WORDS);
    let (len, crew) = (lens.at(seq), m.log_warps() as i32);
    let stride = if m.lead() > 0 { table_stride - 1_i32 } else { table_stride };
    let fits = (len >= 0_i32) & (len <= stride * m.page_tokens as i32);
    let n = if fits { len } else { 0_i32 };
    let (page_bytes, own_bytes) = (kv_heads as u32 * m.block_bytes() as u32, head as i64 * m.block_bytes() as i64);
    for w in warps(m.warps) {
        let line = if m.lead() > 0 { seq * table_stride + stride.min(1_i32) } else { seq * table_stride };
        list_pages(m, table, &mut from, w, crew, line, first_page(m, split, unit), stride, pages, page_bytes, own_bytes);
        sit(m, &mut seats, w, crew, seq, split, n, n, unit, head);
    }
    if m.lead() > 0 {
        for _ in threads(1) {
            let entry = table.at(seq * table_stride) as u32;
            bases.put(0, if entry < pages as u32 { entry as i64 * page_bytes as i64 + own_bytes } else { own_bytes + 1_i64 });
        }
    }
    for c in threads(m.rows()) {
        fault.put(c, 0_i32);
        if (c == 0_i32) & !fits {
            status.put(2, 1_i32);
            status.put(3, seq);
        }
    }
    walk::<T>(m, k, v, records, cache, &seats, &from, &bases, &mut held, (seq * kv_heads + head) * table_stride);
    // Read again lest they take registers during the loop.
    let (seq, split, head) = (seat(&seats, 0_i32, SEQ), seat(&seats, 0_i32, SPLIT), seat(&seats, 0_i32, HEAD));
    let (all, live) = (whole(m, seat(&seats, 0_i32, SEEN), seat(&seats, 0_i32, UNIT)), seat(&seats, 0_i32, LIVE));
    find_faults(m, &seats, &from, status, &mut fault, 1_i32, 0_i32, crew);
    if m.lead() > 0 {
        for c in threads(m.rows()) {
            if all & (live > 0_i32) & ((bases.at(0) & 1_i64) > 0_i64) {
                fault.put(c, 1_i32);
                status.put(1, 1_i32);
                status.put(3, seq);
            }
        }
    }
    leave_share::<T>(m, v, &held, &fault, out, lse, part, stat, kv_heads, splits, head, seq, split, live, all);
}

/// A block's queries: high and low bytes in its residuals' coordinates, and along its centres.
#[device]
fn query_of<T: Float>(m: &DecodeMeta, records: &Global<T>, at: i64) -> (Tile<i8>, Tile<i8>, Tile<i8>, Tile<i8>) {
    let (places, rank) = (m.ranks[0] + WAYS, m.ranks[0]);
    let (low, way) = (at + (8 * places) as i64, at + rank as i64);
    (records.operand::<i8>(at, places, 8, rank), records.operand::<i8>(low, places, 8, rank), records.operand::<i8>(way, places, 8, WAYS), records.operand::<i8>(way + (8 * places) as i64, places, 8, WAYS))
}

/// What its sums start from, the worth of a step with residuals and with centres, the bias.
#[device]
fn columns_of<T: Float>(m: &DecodeMeta, records: &Global<T>, at: i64) -> (Tile<i32>, Tile<f32>, Tile<f32>, Tile<f32>) {
    let from = at + (16 * (m.ranks[0] + WAYS)) as i64;
    (records.columns::<i32>(from, 4, 8), records.columns::<f32>(from + 32_i64, 4, 8), records.columns::<f32>(from + 64_i64, 4, 8), records.columns::<f32>(from + 96_i64, 4, 8))
}

/// Every warp's leaves; `line`: number of the sequence's first record.
#[device]
#[allow(clippy::too_many_arguments)]
fn walk<T: Float>(m: &DecodeMeta, k: &dyn Codec, v: &dyn Codec, records: &Global<T>, cache: &Global<u8>, seats: &Shared<i32>, from: &Shared<i64>, bases: &Shared<i64>, held: &mut Shared<f32>, line: i32) {
    let ring = ring(m.stages, m.tile_bytes);
    let mut more = shared::<u8>(m.warps * m.more());
    let (of_block, record, bands) = ((m.page_tokens / 32) as i32, m.folded() as i64, m.ranks[1] / 32);
    for w in warps(m.warps) {
        let tiles = (seat(seats, w, SEEN) + 31_i32) >> 5_u32;
        let (first, page) = (seat(seats, w, TILE), seat(seats, w, PAGE));
        let at = (line + first.min(tiles - 1_i32).max(0_i32) / of_block) as i64 * record;
        let (mut q, mut columns) = (query_of::<T>(m, records, at), columns_of::<T>(m, records, at));
        let (mut top, mut sum) = (cols(m.cols, f32::NEG_INFINITY), acc(8, m.cols, 0_i64));
        // Weighted coordinates of a leaf: residuals' by bands, and centres'.
        let mut sums = [acc(32, m.cols, 0.0_f32), acc(32, m.cols, 0.0_f32), acc(32, m.cols, 0.0_f32), acc(32, m.cols, 0.0_f32)];
        let mut ways = acc(32, m.cols, 0.0_f32);
        for t in stream(first, tiles.min(first + ((TILES as i32) << (seat(seats, w, LOG_EACH) & 31_i32))), 1, m.stages) {
            let tokens = ring.copy(cache, tile_at(m, from, page, t));
            // What the leaf's end will ask for is on its way from its first tile on.
            if t % TILES as i32 == 0_i32 {
                for i in lanes(32) {
                    for u in 0..m.map_lines().div_ceil(32) {
                        let line = (i + (32 * u) as i32).min(m.map_lines() as i32 - 1_i32) * 128_i32;
                        cache.prefetch(page_at(m, from, page, t) + (line + m.behind.values_at as i32) as i64);
                    }
                }
            }
            let pairs = tokens.rows::<u32>(m.sides_at, 4, 32).map(sound);
            let key: Tile<u8> = tokens.keys(m.keys_at[0], k.spec().bits, m.ranks[0], 8, |x| k.decode(x));
            let (mut high, mut low) = (mma(&key, &q.0, 0_i32), acc(32, m.cols, 0_i32) + &columns.0);
            if m.behind.outliers > 0 {
                let beyond = outliers_of(m, &tokens, &mut more, w);
                high = mma(&beyond, &q.0, &high);
                low = mma(&beyond, &q.1, &low);
            }
            let steps = mma(&key, &q.1, &(high * 128_i32 + &low));
            let marks = tokens.key_marks(m.sides_at + 256);
            let along = mma(&marks, &q.3, &(mma(&marks, &q.2, 0_i32) * 128_i32)).cast::<f32>().map3(&(pairs.map(high_half) * &columns.2), &columns.3, fused);
            let mut x = steps.cast::<f32>().map3(&(pairs.map(low_half) * &columns.1), &along, fused);
            if t >= tiles - 1_i32 {
                x = x.map2(&(row_ids(32) - (seat(seats, w, SEEN) - t * 32_i32)), visible);
            }
            // A new maximum is rare: the rescale stays out of the common path.
            if x.map2(&top, above).any() {
                let next = top.map2(&peaks(&x, 1), raised);
                if t % TILES as i32 > 0_i32 {
                    let fade = top.map2(&next, fade_of);
                    for i in 0..bands {
                        sums[i] = &sums[i] * &fade;
                    }
                    ways = &ways * &fade;
                    sum = faded(m, &sum, &top, &next);
                }
                top = next;
            }
            let p = x.map2(&top, weight);
            sum = &sum + &p.lane_sums().map(fixed);
            let pairs = tokens.rows::<u32>(m.sides_at + 128, 4, 32).map(sound);
            let values: Tile<u8> = tokens.values(m.values_at[0], v.spec().bits, m.ranks[1], 8, |x| v.decode(x));
            let of = weights(&p * &pairs.map(low_half));
            let less = &of.2 * -128_i32;
            for i in 0..bands {
                let band = values.band(i, bands);
                sums[i] = (mma(&band, &of.0, 0_i32) * 256_i32 + mma(&band, &of.1, &less)).cast::<f32>().map3(&of.3, &sums[i], fused);
            }
            let of = weights(p * &pairs.map(high_half));
            let marks = tokens.marks(m.sides_at + 288);
            ways = (mma(&marks, &of.0, 0_i32) * 256_i32 + mma(&marks, &of.1, 0_i32)).cast::<f32>().map3(&of.3, &ways, fused);
            // A leaf's end: out of its block's coordinates, folded into what the warp holds; a fresh start.
            if (t % TILES as i32 == TILES as i32 - 1_i32) | (t >= tiles - 1_i32) {
                let log_each = seat(seats, w, LOG_EACH);
                let each = 1_i32 << (log_each & 31_i32);
                let r = (t / TILES as i32) & (each - 1_i32);
                let l = total_of(&sum, 1).cast::<f32>() * 1.8626451e-9_f32;
                let own = page_at(m, from, page, t);
                let base = if m.behind.shared[1] { bases.at(0) & -2_i64 } else { own };
                let o = unfolded(m, cache, base + m.behind.frames_at[1] as i64, own + m.behind.ways_at[1] as i64, &sums, &ways, &l);
                hold_bands(m, held, w, r, (r == each - 1_i32) | (t >= tiles - 1_i32), log_each, o, l, top.clone());
                top = cols(m.cols, f32::NEG_INFINITY);
                sum = acc(8, m.cols, 0_i64);
                for i in 0..bands {
                    sums[i] = acc(32, m.cols, 0.0_f32);
                }
                ways = acc(32, m.cols, 0.0_f32);
                let at = (line + (t + 1_i32).min(tiles - 1_i32) / of_block) as i64 * record;
                q = query_of::<T>(m, records, at);
                columns = columns_of::<T>(m, records, at);
            }
        }
    }
}

/// Lanes that a tile's outliers add, as left operand; they are put together in the warp's `more`.
#[device]
fn outliers_of(m: &DecodeMeta, tokens: &Page, more: &mut Shared<u8>, w: i32) -> Tile<i8> {
    let own = w * m.more() as i32;
    for i in lanes(32) {
        for u in 0..m.more() / 512 {
            more.save4::<u32>(own + (512 * u) as i32 + i * 16_i32, [0_u32; 4]);
        }
    }
    sync_warp();
    // Two at a time.
    for i in lanes(m.behind.outliers / 2) {
        let places = tokens.load::<u32>((m.behind.outliers_at as i32) + i * 4_i32);
        let pair = tokens.load::<u32>((m.behind.outliers_at + 2 * m.behind.outliers) as i32 + (i >> 1_u32) * 4_i32) >> (((i & 1_i32) * 16_i32) as u32 & 31_u32);
        for e in 0..2 {
            let (at, lanes) = ((places >> (16 * e) as u32) & (m.more() as u32 - 1_u32), (pair >> (8 * e) as u32) & 255_u32);
            if lanes > 0_u32 {
                more.put(own + at as i32, lanes as u8);
            }
        }
    }
    sync_warp();
    more.packed_left::<i8>(own, 32, m.ranks[0])
}

/// First byte of the page of tile `t`.
#[device]
fn page_at(m: &DecodeMeta, from: &Shared<i64>, page: i32, t: i32) -> i64 {
    from.at((t as u32 / (m.page_tokens / 32) as u32) as i32 - page) & -2_i64
}
