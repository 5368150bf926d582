//! How decode kernels are cut into warps, stages, blocks and shares: by rules that were measured, unless a tuning says otherwise.
//! No cut changes a bit of a result.

use super::decode_attention::DecodeMeta;
use super::fits::AWAY;
use super::{LEAF, SEGMENT, chunk, keys_at, maps, values_at};
use crate::codec::Lane;
use crate::registry::CodecInfo;

/// How many sums a head's weights take: with values of u8 lanes their two bytes are summed apart, under units that stay. Part of the result's
/// definition.
pub fn parts(c: &CodecInfo) -> usize {
    if c.k.lane != Lane::U16 && c.v.lane == Lane::U8 { 2 } else { 1 }
}

/// Shared memory that rings may take of an SM, what the rest of a block needs left out.
const RING_BUDGET: usize = 216 * 1024;

/// Lanes of two bytes: decoded they are twice as many words.
pub(super) fn two_bytes(c: &CodecInfo) -> bool {
    [&c.k, &c.v].iter().any(|half| half.lane == Lane::U16)
}

/// Kv heads that each one is taken for, so that its `group` query heads are rows whose sums registers hold: of sixteen, and of 256 dims.
pub(super) fn fold(c: &CodecInfo, d: usize, group: usize) -> usize {
    let most = match (parts(c), d) {
        (2, ..=128) | (1, 129..) => 8,
        (1, _) => {
            if two_bytes(c) {
                8
            } else {
                16
            }
        }
        _ => 4,
    };
    [1, 2, 4].into_iter().find(|&n| group.div_ceil(n) <= most).unwrap_or(1)
}

/// Meta value of the decode kernel. `d`: 64, 128 or 256; `group`: 1 to 8, or 16.
///
/// Two blocks an SM hide each other's latency where shared memory and registers allow it.
pub fn decode_meta(c: &CodecInfo, d: usize, group: usize, page_tokens: usize) -> DecodeMeta {
    cut(c, shape(c, d, group, page_tokens))
}

/// Warps, stages and blocks an SM for a kernel of that shape.
pub(super) fn cut(c: &CodecInfo, shape: DecodeMeta) -> DecodeMeta {
    let (d, group) = (shape.d, shape.group);
    let (tile, cols) = (c.tile_bytes(d), group.div_ceil(8) * 8);
    // Sixteen columns of 64 dims and eight full ones of 128 take more registers a thread, and so do heavy codecs, and for more than four
    // rows float keys beside values with offsets:
    // twelve warps an SM in the place of sixteen, in smaller blocks, so that powers of two still divide the leaves evenly.
    let few = (cols > 8 || group > 4 && (d > 64 || !c.k.exact() && c.v.affine) || c.k.heavy || c.v.heavy) && cols * d <= 1024;
    // Of larger tiles eight warps with twice the registers and all parts at hand are faster than sixteen.
    let light = cols * d <= 1024 && 2 * 8 * 2 * tile <= RING_BUDGET && tile <= AWAY;
    let of = |warps, min_blocks| {
        let with = |stages, pair| DecodeMeta { warps, min_blocks, stages, pair, ..shape }.within(usize::MAX);
        let (two, three, pairs) = (with(2, 1), with(3, 1), with(2, 2));
        let as_many = |m: &DecodeMeta| (m.warps, m.min_blocks) == (two.warps, two.min_blocks) && m.depth == two.depth && m.away == two.away;
        // Copies of less than 4 KiB do not keep the memory busy: two tiles each where pages have them side by side.
        if tile < 4096 && shape.page_tokens % 64 == 0 && as_many(&pairs) {
            return pairs;
        }
        // Two at a time keep the memory busy, unless warps are few. A third is not worth a smaller share.
        if warps < 8 && (tile < 4096 || min_blocks == 1) && as_many(&three) { three } else { two }
    };
    let shapes: &[(usize, usize)] = match (few, light) {
        // Eight rows' sums of both bytes: twelve warps would fit, but a third block an SM is a third of a turn.
        (true, _) if shape.apart => &[(4, 2), (4, 1)],
        // Floats of few bytes: two blocks' warps have nothing to hide behind one another.
        (true, _) if shape.floats && tile <= AWAY && group > 4 => &[(8, 1), (4, 2)],
        (true, _) => &[(4, 3), (4, 2)],
        (_, true) => &[(8, 2), (4, 3)],
        _ => &[(8, 1), (4, 1), (2, 1)],
    };
    // The first of them that need not do with fewer warps or blocks.
    shapes.iter().map(|&at| (at, of(at.0, at.1))).find(|(at, m)| (m.warps, m.min_blocks) == *at).map_or_else(|| of(8, 1), |(_, m)| m)
}

/// What a decode kernel's meta value says of its codec and rows.
pub(crate) fn shape(c: &CodecInfo, d: usize, group: usize, page_tokens: usize) -> DecodeMeta {
    let fold = fold(c, d, group);
    DecodeMeta { fold, sharing: group, ..rows_of(c, d, group.div_ceil(fold), page_tokens) }
}

/// Likewise for so many rows.
pub(super) fn rows_of(c: &CodecInfo, d: usize, group: usize, page_tokens: usize) -> DecodeMeta {
    let (layout, tile, cols) = (c.layout(d), c.tile_bytes(d), group.div_ceil(8) * 8);
    DecodeMeta {
        d,
        group,
        fold: 1,
        sharing: group,
        cols,
        parts: if group <= 4 { parts(c) } else { 1 },
        floats: !c.k.exact(),
        many: false,
        queries: 1,
        apart: parts(c) == 2 && group > 4,
        wide: 0,
        page_tokens,
        tile_bytes: tile,
        keys_at: keys_at(c, d),
        values_at: values_at(c, d),
        sides_at: layout.sides_at(),
        quads: layout.quads(),
        key_quads: layout.key_quads(),
        key_twos: layout.key_quads() && c.k.twos && c.k.bands.len() == 1 && d >= 64,
        record: 0,
        segment: SEGMENT,
        warps: 8,
        depth: 2,
        stages: 2,
        pair: 1,
        min_blocks: 1,
        kivi: false,
        ranks: [0; 2],
        behind: super::pca::Behind::NONE,
        away: false,
        scarce: false,
        // Where reading sets the pace: four bits a number with few rows, and plain floats. Others gain nothing, or lose.
        early: !c.k.affine && !c.v.affine && if c.k.exact() { group <= 4 && tile / (8 * d) == 4 } else { tile / (8 * d) == 16 },
        inv_sqrt_d: 1.0 / (d as f32).sqrt(),
    }
}

/// Meta value of the decode kernel of a calibrated codec: it takes the records of [`super::map_queries`] and maps outputs back.
pub fn calibrated_meta(c: &CodecInfo, d: usize, group: usize, page_tokens: usize) -> DecodeMeta {
    let m = shape(c, d, group, page_tokens);
    cut(c, DecodeMeta { record: maps::record(d, m.cols, m.parts), ..m })
}

/// Parts of a sequence as long as its table, of `capacity` tokens, when a warp takes 2^unit leaves.
pub fn splits_of(m: &DecodeMeta, capacity: usize, unit: usize) -> usize {
    capacity.div_ceil(LEAF << log_share(m, unit)).max(1)
}

/// What a launch takes whose `rows` (sequence, kv head) are as long as their tables, as [`super::schedule::best_unit`] has it.
fn time_of(m: &DecodeMeta, rows: usize, capacity: usize, resident: usize, unit: usize) -> f32 {
    let turns = (rows.max(1) * splits_of(m, capacity, unit)) as f32 / resident.max(1) as f32;
    let last = if turns.ceil() > turns.floor() { (turns - turns.floor()).max(0.5) } else { 0.0 };
    turns.ceil() * m.pause() + (turns.floor() + last) * (4 << unit) as f32
}

/// log2 of a warp's leaves that ends first for rows as long as their tables; the smaller one of two.
pub fn best_unit(m: &DecodeMeta, rows: usize, capacity: usize, resident: usize) -> usize {
    if m.wide > 0 {
        return chunk::best_unit(m, rows, capacity, resident);
    }
    (m.least()..=m.depth).min_by(|&a, &b| time_of(m, rows, capacity, resident, a).total_cmp(&time_of(m, rows, capacity, resident, b))).unwrap_or(m.depth)
}

/// The log2 of a warp's leaves with which a block has all of any sequence, if that costs little more than the best: then
/// there is nothing to join.
pub fn whole_unit(m: &DecodeMeta, rows: usize, capacity: usize, resident: usize) -> Option<usize> {
    let time = |unit| time_of(m, rows, capacity, resident, unit);
    let whole = (m.least()..=m.depth).find(|&unit| splits_of(m, capacity, unit) == 1)?;
    (time(whole) <= 1.2 * time(best_unit(m, rows, capacity, resident))).then_some(whole)
}

/// Two blocks of half as many warps in the place of the only one of a multiprocessor, if each takes shares as large. They hide each
/// other's starts and ends.
pub fn halved(m: &DecodeMeta) -> Option<DecodeMeta> {
    let of = DecodeMeta { warps: m.warps / 2, min_blocks: 2, ..*m }.within(usize::MAX);
    let own = m.min_blocks == 1 && m.warps == 8 && m.steady() && !m.many && m.record == 0 && !m.kivi;
    (own && log_share(&of, of.depth) == log_share(m, m.depth)).then_some(of)
}

/// Eight warps of the only block of a multiprocessor, a leaf each, for launches with no more blocks than that: the next launch's blocks then
/// cannot lie two and two either, so they may begin while this one works. Of what decodes slowly two blocks are faster, unless their warps are fewer.
pub fn lone(m: &DecodeMeta) -> Option<DecodeMeta> {
    let stages = if m.tile_bytes < AWAY { 3 } else { 2 };
    let of = DecodeMeta { warps: 8, min_blocks: 1, stages, ..*m }.within(usize::MAX);
    let quick = m.early && m.parts == 2;
    let own = m.min_blocks > 1 && (quick || m.warps < 8) && m.plain();
    (own && (of.warps, of.min_blocks) == (8, 1)).then_some(of)
}

/// Whether they serve so many rows (sequence, kv head) as long as their tables: every part that there can be has a block of its own; or, in the
/// place of blocks of fewer warps, rows are few.
pub fn scatters(m: &DecodeMeta, lone: &DecodeMeta, rows: usize, capacity: usize, resident: usize) -> bool {
    let splits = splits_of(lone, capacity, lone.least());
    splits > 1 && (rows * splits <= resident || m.warps < lone.warps && 4 * rows <= resident)
}

/// One block of a multiprocessor in the place of two, if only then a warp has room for as many leaves as it may take: for whole
/// sequences that are too long for two. Keys that are floats take longer than a second turn.
pub fn deep(m: &DecodeMeta) -> Option<DecodeMeta> {
    let of = DecodeMeta { min_blocks: 1, ..*m }.within(usize::MAX);
    ((m.warps, m.min_blocks) == (8, 2) && m.depth < of.depth && !m.floats && m.plain()).then_some(of)
}

/// Whether they serve.
pub fn deepens(m: &DecodeMeta, deep: &DecodeMeta, rows: usize, capacity: usize, resident: [usize; 2]) -> bool {
    whole_unit(m, rows, capacity, resident[0]).is_none() && fills(deep, rows, capacity, resident[1])
}

/// Whether blocks that have whole sequences, as long as their tables, fill the device well to the last turn.
pub fn fills(m: &DecodeMeta, rows: usize, capacity: usize, resident: usize) -> bool {
    let last = rows % resident.max(1);
    whole_unit(m, rows, capacity, resident).is_some() && rows > 0 && (last == 0 || 4 * last >= 3 * resident)
}

/// log2 of the leaves of a block.
pub fn log_share(m: &DecodeMeta, unit: usize) -> usize {
    if m.wide > 0 { unit } else { m.log_warps() + unit }
}
