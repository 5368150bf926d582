//! The fused kernels: written once, built for every codec.
//!
//! The functions here pick the meta values of a configuration and build; the `_ir` functions stop before the passes.

pub mod attend;
pub mod back;
pub mod codes;
pub mod decode_attention;
pub mod faults;
pub mod forward;
pub mod groups;
pub mod held;
pub mod join_splits;
pub mod keys;
pub mod kivi;
pub mod leaves;
pub mod load;
pub mod many;
pub mod maps;
pub mod merge;
pub mod offset;
pub mod prefill_attention;
pub mod query;
pub mod rope;
pub mod rows;
pub mod schedule;
pub mod search;
pub mod slots;
pub mod softmax;
pub mod store;
pub mod straight;
pub mod units;
pub mod values;

pub use decode_attention::SEGMENT;
pub use leaves::{LEAF, TREE};

use crate::codec::Lane;
use crate::layout::Operand;
use crate::registry::CodecInfo;
use back::BackMeta;
use decode_attention::DecodeMeta;
use join_splits::JoinMeta;
use maps::MapMeta;
use rope::Rope;
use kernel_dsl::dtype::bf16;
use kernel_dsl::ir::Program;
use kernel_dsl::{Report, Source};
use slots::{SlotMeta, TileMeta};
use store::StoreMeta;

/// Type of q, k, v and of the output in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Elem {
    Bf16,
    F32,
}

/// Meta value of the store kernel. `d`: 64, 128, 256 or 512; `page_tokens`: a multiple of 32.
pub fn store_meta(c: &CodecInfo, d: usize, page_tokens: usize, elem: Elem) -> StoreMeta {
    let layout = c.layout(d);
    // Codecs that search no lattice and look at no decoded code need fewer registers.
    let corrected = c.k.bands.iter().chain(c.v.bands).any(|half| half.spec().corrected);
    let words = c.v.bands.iter().map(|band| (band.spec().bits / 8).div_ceil(4)).max().unwrap_or(0);
    let light = !corrected && [&c.k, &c.v].iter().all(|half| !half.exact() || half.affine || half.odd());
    StoreMeta {
        d,
        elem: if elem == Elem::Bf16 { 2 } else { 4 },
        page_tokens,
        tile_bytes: layout.tile_bytes(),
        keys_at: keys_at(c, d),
        values_at: values_at(c, d),
        sides_at: layout.sides_at(),
        side_stride: layout.side_stride(),
        quads: layout.quads(),
        key_quads: layout.key_quads(),
        kept: if layout.quads() { 4 * d * words / c.v.bands.len() } else { 1 },
        straight: [c.k.bands, c.v.bands].iter().all(|bands| bands.len() == 1 && straight::straight(bands[0])),
        held: [held::holds(c.k.bands, d), held::holds(c.v.bands, d)],
        warps: 4,
        // A thread holds a quarter of a row, and with bands the maps' coordinates are f32.
        min_blocks: if d > 128 { 1024 / d + 1 } else if c.k.bands.len() > 1 { 7 } else if light { 9 } else { 8 },
        inv_sqrt_d: 1.0 / (d as f32).sqrt(),
        rope: Rope::default(),
    }
}

/// First bytes of the bands of a tile's keys; 0 where there is none.
fn keys_at(c: &CodecInfo, d: usize) -> [usize; 4] {
    std::array::from_fn(|i| if i < c.k.bands.len() { c.layout(d).band_at(Operand::K, i) } else { 0 })
}

/// Of its values.
fn values_at(c: &CodecInfo, d: usize) -> [usize; 2] {
    std::array::from_fn(|i| if i < c.v.bands.len() { c.layout(d).band_at(Operand::V, i) } else { 0 })
}

/// How many columns a head's weights take: with u8 lanes and up to 4 heads their two bytes are summed apart,
/// side by side in the tensor core's 8 columns. Part of the result's definition.
pub fn parts(c: &CodecInfo, group: usize) -> usize {
    if c.k.lane == Lane::U8 && c.v.lane == Lane::U8 && group <= 4 { 2 } else { 1 }
}

/// Shared memory that rings may take of an SM, what the rest of a block needs left out.
const RING_BUDGET: usize = 216 * 1024;

/// Meta value of the decode kernel. `d`: 64, 128 or 256; `group`: 1 to 8, or 16.
///
/// Two blocks an SM hide each other's latency where shared memory and registers allow it.
pub fn decode_meta(c: &CodecInfo, d: usize, group: usize, page_tokens: usize) -> DecodeMeta {
    cut(c, shape(c, d, group, page_tokens))
}

/// Warps, stages and blocks an SM for a kernel of that shape.
fn cut(c: &CodecInfo, shape: DecodeMeta) -> DecodeMeta {
    let (d, group) = (shape.d, shape.group);
    let (tile, cols) = (c.tile_bytes(d), group.div_ceil(8) * 8);
    // Sixteen columns of 64 dims and eight full ones of 128 take more registers a thread, and so do float keys beside values with
    // offsets and heavy codecs:
    // twelve warps an SM in the place of sixteen, in smaller blocks, so that powers of two still divide the leaves evenly.
    let few = (cols > 8 || group > 4 && d > 64 || !c.k.exact() && c.v.affine || c.k.heavy || c.v.heavy) && cols * d <= 1024;
    // Of larger tiles eight warps with twice the registers and all parts at hand are faster than sixteen.
    let light = cols * d <= 1024 && 2 * 8 * 2 * tile <= RING_BUDGET && tile <= decode_attention::AWAY;
    let of = |warps, min_blocks| {
        let with = |stages, pair| DecodeMeta { warps, min_blocks, stages, pair, ..shape }.within(usize::MAX);
        let (two, three, pairs) = (with(2, 1), with(3, 1), with(2, 2));
        let as_many = |m: &DecodeMeta| m.warps == two.warps && m.depth == two.depth && m.away == two.away;
        // Copies of less than 4 KiB do not keep the memory busy: two tiles each where pages have them side by side.
        if tile < 4096 && shape.page_tokens % 64 == 0 && as_many(&pairs) {
            return pairs;
        }
        // Two at a time keep the memory busy, unless warps are few. A third is not worth a smaller share.
        if warps < 8 && (tile < 4096 || min_blocks == 1) && as_many(&three) { three } else { two }
    };
    let shapes: &[(usize, usize)] = match (few, light) {
        (true, _) => &[(4, 3), (4, 2)],
        (_, true) => &[(8, 2), (4, 3)],
        _ => &[(8, 1), (4, 1), (2, 1)],
    };
    // The first of them that need not do with fewer warps.
    shapes.iter().map(|&(warps, blocks)| (warps, of(warps, blocks))).find(|(warps, m)| m.warps == *warps).map_or_else(|| of(8, 1), |(_, m)| m)
}

/// What a decode kernel's meta value says of its codec and rows.
pub(crate) fn shape(c: &CodecInfo, d: usize, group: usize, page_tokens: usize) -> DecodeMeta {
    let (layout, tile, cols) = (c.layout(d), c.tile_bytes(d), group.div_ceil(8) * 8);
    DecodeMeta {
        d,
        group,
        cols,
        parts: parts(c, group),
        many: false,
        queries: 1,
        apart: false,
        page_tokens,
        tile_bytes: tile,
        keys_at: keys_at(c, d),
        values_at: values_at(c, d),
        sides_at: layout.sides_at(),
        quads: layout.quads(),
        key_quads: layout.key_quads(),
        record: 0,
        segment: SEGMENT,
        warps: 8,
        depth: 2,
        stages: 2,
        pair: 1,
        min_blocks: 1,
        kivi: false,
        away: false,
        inv_sqrt_d: 1.0 / (d as f32).sqrt(),
    }
}

/// Tile IR of the store kernel.
pub fn store_ir(c: &CodecInfo, m: &StoreMeta, elem: Elem) -> Result<Program, Report> {
    match elem {
        Elem::Bf16 => store::store::build::<bf16>(m, c.k.bands, c.v.bands),
        Elem::F32 => store::store::build::<f32>(m, c.k.bands, c.v.bands),
    }
}

/// Tile IR of the decode kernel.
pub fn decode_ir(c: &CodecInfo, m: &DecodeMeta, elem: Elem) -> Result<Program, Report> {
    match elem {
        Elem::Bf16 => decode_attention::decode_attention::build::<bf16>(m, c.k.bands, c.v.bands),
        Elem::F32 => decode_attention::decode_attention::build::<f32>(m, c.k.bands, c.v.bands),
    }
}

/// Tile IR of the join kernel.
pub fn join_ir(c: &CodecInfo, m: &JoinMeta, elem: Elem) -> Result<Program, Report> {
    match elem {
        Elem::Bf16 => join_splits::join_splits::build::<bf16>(m, c.v.bands[0]),
        Elem::F32 => join_splits::join_splits::build::<f32>(m, c.v.bands[0]),
    }
}

/// The kernel of that tile IR, with one argument more in which it counts the bytes of the cache that it reads and writes: see
/// [`kernel_dsl::passes::count`].
pub fn counted(tile: &Program) -> Result<Source, Report> {
    Source::counted(tile, "cache")
}

/// The store kernel. Grid: [`store_grid`].
pub fn store(c: &CodecInfo, d: usize, page_tokens: usize, elem: Elem) -> Result<Source, Report> {
    Source::of(&store_ir(c, &store_meta(c, d, page_tokens, elem), elem)?)
}

/// Meta value of the store kernel of a calibrated codec, which maps rows first.
pub fn mapped_store_meta(c: &CodecInfo, d: usize, page_tokens: usize, elem: Elem) -> StoreMeta {
    StoreMeta { min_blocks: if d > 128 { 2 } else { 4 }, ..store_meta(c, d, page_tokens, elem) }
}

/// Tile IR of that kernel.
pub fn mapped_store_ir(c: &CodecInfo, m: &StoreMeta, elem: Elem) -> Result<Program, Report> {
    match elem {
        Elem::Bf16 => maps::store::store_mapped::build::<bf16>(m, c.k.bands, c.v.bands),
        Elem::F32 => maps::store::store_mapped::build::<f32>(m, c.k.bands, c.v.bands),
    }
}

/// The store kernel of a calibrated codec. Grid: [`store_grid`].
pub fn mapped_store(c: &CodecInfo, d: usize, page_tokens: usize, elem: Elem) -> Result<Source, Report> {
    Source::of(&mapped_store_ir(c, &mapped_store_meta(c, d, page_tokens, elem), elem)?)
}

/// Meta value of the store kernel that takes keys as projections leave them; `calibrated`: of a codec whose rows are mapped.
pub fn rope_store_meta(c: &CodecInfo, d: usize, page_tokens: usize, elem: Elem, rope: Rope, calibrated: bool) -> StoreMeta {
    let m = if calibrated { mapped_store_meta(c, d, page_tokens, elem) } else { store_meta(c, d, page_tokens, elem) };
    // The table, the weights and rows of f32 take registers besides.
    let most = if d > 128 { m.min_blocks - 1 } else if elem == Elem::F32 { 5 } else { 7 };
    StoreMeta { straight: false, rope, min_blocks: m.min_blocks.min(most), ..m }
}

/// Tile IR of that kernel.
pub fn rope_store_ir(c: &CodecInfo, m: &StoreMeta, elem: Elem) -> Result<Program, Report> {
    match elem {
        Elem::Bf16 => rope::store::store_rope::build::<bf16>(m, c.k.bands, c.v.bands),
        Elem::F32 => rope::store::store_rope::build::<f32>(m, c.k.bands, c.v.bands),
    }
}

/// Of that of a calibrated codec.
pub fn mapped_rope_store_ir(c: &CodecInfo, m: &StoreMeta, elem: Elem) -> Result<Program, Report> {
    match elem {
        Elem::Bf16 => rope::mapped::store_rope_mapped::build::<bf16>(m, c.k.bands, c.v.bands),
        Elem::F32 => rope::mapped::store_rope_mapped::build::<f32>(m, c.k.bands, c.v.bands),
    }
}

/// The kernel that normalises and turns keys, and queries beside them, then stores. Grid: [`rope_grid`].
pub fn rope_store(c: &CodecInfo, d: usize, page_tokens: usize, elem: Elem, rope: Rope, calibrated: bool) -> Result<Source, Report> {
    let ir = if calibrated { mapped_rope_store_ir } else { rope_store_ir };
    Source::of(&ir(c, &rope_store_meta(c, d, page_tokens, elem, rope, calibrated), elem)?)
}

/// The kernel that normalises and turns heads and stores nothing. Grid: [blocks of 32 tokens, heads, 1].
pub fn turn_heads(c: &CodecInfo, d: usize, page_tokens: usize, elem: Elem, rope: Rope) -> Result<Source, Report> {
    let m = rope_store_meta(c, d, page_tokens, elem, rope, false);
    Source::of(&match elem {
        Elem::Bf16 => rope::rows::turn_heads::build::<bf16>(&m)?,
        Elem::F32 => rope::rows::turn_heads::build::<f32>(&m)?,
    })
}

/// Blocks of the store with rope: those of the store, then those of each query head of a kv head.
pub fn rope_grid(rope: &Rope, tokens: usize, kv_heads: usize) -> [u32; 3] {
    [tokens.div_ceil(32) as u32, kv_heads as u32, 2 + rope.group as u32]
}

/// Tile IR of the kernel that gives back what was stored, as `elem`. Grid: [`store_grid`].
pub fn load_ir(c: &CodecInfo, m: &StoreMeta, elem: Elem) -> Result<Program, Report> {
    match elem {
        Elem::Bf16 => load::load::build::<bf16>(m, c.k.bands, c.v.bands),
        Elem::F32 => load::load::build::<f32>(m, c.k.bands, c.v.bands),
    }
}

/// The load kernel.
pub fn load(c: &CodecInfo, d: usize, page_tokens: usize, elem: Elem) -> Result<Source, Report> {
    Source::of(&load_ir(c, &store_meta(c, d, page_tokens, elem), elem)?)
}

/// Meta value of the kernel that maps loaded coordinates back.
pub fn back_meta(d: usize) -> BackMeta {
    BackMeta { d, segment: SEGMENT, rows: 8 }
}

/// Tile IR of that kernel.
pub fn back_ir(m: &BackMeta, elem: Elem) -> Result<Program, Report> {
    match elem {
        Elem::Bf16 => back::map_back::build::<bf16>(m),
        Elem::F32 => back::map_back::build::<f32>(m),
    }
}

/// The kernel that maps loaded coordinates of a calibrated codec back to rows. Grid: [`back_grid`].
pub fn map_back(d: usize, elem: Elem) -> Result<Source, Report> {
    Source::of(&back_ir(&back_meta(d), elem)?)
}

/// Blocks that map `tokens` rows of keys and of values back.
pub fn back_grid(m: &BackMeta, tokens: usize, kv_heads: usize) -> [u32; 3] {
    [tokens.div_ceil(m.block()) as u32, kv_heads as u32, 2]
}

/// Blocks of the store kernel for `tokens` rows of `kv_heads` heads.
pub fn store_grid(tokens: usize, kv_heads: usize) -> [u32; 3] {
    [tokens.div_ceil(32) as u32, kv_heads as u32, 2]
}

/// Parts of a sequence as long as its table, of `capacity` tokens, when a warp takes 2^unit leaves.
pub fn splits_of(m: &DecodeMeta, capacity: usize, unit: usize) -> usize {
    capacity.div_ceil(LEAF << unit).div_ceil(m.warps).max(1)
}

/// What a launch takes whose `rows` (sequence, kv head) are as long as their tables, as [`schedule::best_unit`] has it.
fn time_of(m: &DecodeMeta, rows: usize, capacity: usize, resident: usize, unit: usize) -> usize {
    (rows.max(1) * splits_of(m, capacity, unit)).div_ceil(resident.max(1)) * ((4 << unit) + 1)
}

/// log2 of a warp's leaves that ends first for rows as long as their tables; the larger one of two.
pub fn best_unit(m: &DecodeMeta, rows: usize, capacity: usize, resident: usize) -> usize {
    (m.least()..=m.depth).rev().min_by_key(|&unit| time_of(m, rows, capacity, resident, unit)).unwrap_or(m.depth)
}

/// The log2 of a warp's leaves with which a block has all of any sequence, if that costs little more than the best: then
/// there is nothing to join.
pub fn whole_unit(m: &DecodeMeta, rows: usize, capacity: usize, resident: usize) -> Option<usize> {
    let time = |unit| time_of(m, rows, capacity, resident, unit);
    let whole = (m.least()..=m.depth).find(|&unit| splits_of(m, capacity, unit) == 1)?;
    (10 * time(whole) <= 12 * time(best_unit(m, rows, capacity, resident))).then_some(whole)
}

/// log2 of the leaves of a block.
pub fn log_share(m: &DecodeMeta, unit: usize) -> usize {
    m.warps.ilog2() as usize + unit
}

/// The decode kernel. Grid: [blocks, kv_heads, 1].
pub fn decode_attention(c: &CodecInfo, d: usize, group: usize, page_tokens: usize, elem: Elem) -> Result<Source, Report> {
    decode_of(c, &decode_meta(c, d, group, page_tokens), elem)
}

/// The decode kernel of a meta value, as [`DecodeMeta::within`] may have changed it.
pub fn decode_of(c: &CodecInfo, m: &DecodeMeta, elem: Elem) -> Result<Source, Report> {
    Source::of(&decode_ir(c, m, elem)?)
}

/// Meta value of the join kernel.
pub fn join_meta(d: usize, page_tokens: usize) -> JoinMeta {
    JoinMeta { d, page_tokens, warps: 8, group: 1, queries: 1, mapped: false, inv_sqrt_d: 1.0 / (d as f32).sqrt() }
}

/// The join kernel. Grid: [group, kv_heads, batch]. Not needed after [`whole_unit`].
pub fn join_splits(c: &CodecInfo, d: usize, page_tokens: usize, elem: Elem) -> Result<Source, Report> {
    join_of(c, &join_meta(d, page_tokens), elem)
}

/// The join kernel of a meta value.
pub fn join_of(c: &CodecInfo, m: &JoinMeta, elem: Elem) -> Result<Source, Report> {
    Source::of(&join_ir(c, m, elem)?)
}

/// Meta value of the kernels of slots. `page_tokens`: of the pages of slots; `tile_tokens`: of the pages of tiles, a
/// multiple of 32. None for codecs without slots, see [`CodecInfo::has_slots`].
pub fn slot_meta(c: &CodecInfo, d: usize, page_tokens: usize, tile_tokens: usize, elem: Elem) -> Option<SlotMeta> {
    if !c.has_slots() {
        return None;
    }
    let store = store_meta(c, d, tile_tokens, elem);
    let tiles = TileMeta { page_tokens: tile_tokens, tile_bytes: store.tile_bytes, keys_at: store.keys_at[0], values_at: store.values_at[0], sides_at: store.sides_at, side_stride: store.side_stride, quads: store.quads };
    Some(SlotMeta { d, elem: store.elem, page_tokens, values_at: c.k.slot_bytes(d), warps: 4, min_blocks: 1, inv_sqrt_d: store.inv_sqrt_d, tiles })
}

/// Tile IR of the kernel that codes rows into slots.
pub fn store_slots_ir(c: &CodecInfo, m: &SlotMeta, elem: Elem) -> Result<Program, Report> {
    match elem {
        Elem::Bf16 => slots::store_slots::build::<bf16>(m, c.k.bands, c.v.bands),
        Elem::F32 => slots::store_slots::build::<f32>(m, c.k.bands, c.v.bands),
    }
}

/// Tile IR of the kernel that moves tokens from slots to tiles. Grid of all three: [`store_grid`].
pub fn import_slots_ir(c: &CodecInfo, m: &SlotMeta) -> Result<Program, Report> {
    slots::import_slots::build(m, c.k.bands, c.v.bands)
}

/// Tile IR of the kernel that moves tokens from tiles to slots.
pub fn export_slots_ir(c: &CodecInfo, m: &SlotMeta) -> Result<Program, Report> {
    slots::export_slots::build(m, c.k.bands, c.v.bands)
}

/// Meta value of the decode kernel of a calibrated codec: it takes the records of [`map_queries`] and maps outputs back.
pub fn calibrated_meta(c: &CodecInfo, d: usize, group: usize, page_tokens: usize) -> DecodeMeta {
    let m = shape(c, d, group, page_tokens);
    cut(c, DecodeMeta { record: maps::record(d, m.cols, m.parts), ..m })
}

/// Meta value of its join kernel.
pub fn mapped_join_meta(d: usize, page_tokens: usize) -> JoinMeta {
    JoinMeta { mapped: true, ..join_meta(d, page_tokens) }
}

/// Meta value of the kernel that maps queries for the attention kernel of `m`.
pub fn queries_meta(m: &DecodeMeta, elem: Elem) -> MapMeta {
    let (elem, min_blocks) = (if elem == Elem::Bf16 { 2 } else { 4 }, if m.d > 128 { 2 } else { 4 });
    MapMeta { d: m.d, group: m.group, queries: m.queries, cols: m.cols, parts: m.parts, page_tokens: m.page_tokens, segment: SEGMENT, elem, warps: 4, min_blocks }
}

/// Tile IR of the kernel that maps queries.
pub fn queries_ir(c: &CodecInfo, m: &MapMeta) -> Result<Program, Report> {
    match m.elem {
        2 => maps::queries::map_queries::build::<bf16>(m, c.k.bands),
        _ => maps::queries::map_queries::build::<f32>(m, c.k.bands),
    }
}

/// The kernel that maps queries. Grid: [`queries_grid`].
pub fn map_queries(c: &CodecInfo, m: &MapMeta) -> Result<Source, Report> {
    Source::of(&queries_ir(c, m)?)
}

/// Blocks that map the queries of a block of attention over up to `segments` segments: a power of two.
pub fn query_parts(m: &MapMeta, segments: usize) -> usize {
    (segments.max(1) * m.rows()).div_ceil(32).next_power_of_two()
}

/// Blocks that map the queries of `blocks` blocks of query tokens a sequence.
pub fn queries_grid(m: &MapMeta, segments: usize, kv_heads: usize, batch: usize, blocks: usize) -> [u32; 3] {
    [(query_parts(m, segments) * blocks) as u32, kv_heads as u32, batch as u32]
}
