//! The fused kernels: written once, built for every codec.
//!
//! The functions here pick the meta values of a configuration and build; the `_ir` functions stop before the passes.

pub mod arguments;
pub mod asked;
pub mod attend;
pub mod back;
pub mod chunk;
pub mod codes;
mod cuts;
pub mod decode_attention;
pub mod desk;
pub mod early;
pub mod faults;
pub mod few;
pub mod finish;
mod fits;
pub mod forward;
pub mod groups;
pub mod held;
pub mod join_splits;
pub mod keys;
pub mod kivi;
pub mod latent;
pub mod leaf;
pub mod leaves;
pub mod load;
pub mod many;
pub mod maps;
pub mod merge;
pub mod offset;
pub mod pca;
pub mod place;
pub mod prefill_attention;
pub mod prologue;
pub mod query;
pub mod room;
pub mod rope;
pub mod rows;
pub mod schedule;
pub mod scores;
pub mod search;
pub mod seats;
pub mod slots;
pub mod softmax;
pub mod store;
pub mod straight;
pub mod units;
pub mod values;

pub use cuts::{best_unit, calibrated_meta, decode_meta, deep, deepens, fills, halved, log_share, lone, parts, scatters, splits_of, whole_unit};
pub use decode_attention::SEGMENT;
pub use leaves::{LEAF, TREE};

use crate::layout::Operand;
use crate::registry::CodecInfo;
use back::BackMeta;
use decode_attention::DecodeMeta;
use join_splits::JoinMeta;
use kernel_dsl::dtype::bf16;
use kernel_dsl::ir::Program;
use kernel_dsl::{Report, Source};
use maps::MapMeta;
use rope::Rope;
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
    // Codecs that search no lattice and look at no decoded code need fewer registers; codes of two words need shared memory that the L1 cache lacks then.
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
        straight: [c.k.bands, c.v.bands].map(|bands| bands.len() == 1 && straight::straight(bands[0])),
        held: [held::holds(c.k.bands, d), held::holds(c.v.bands, d)],
        walks: false,
        warps: 4,
        // A thread holds a quarter of a row, and with bands the maps' coordinates are f32.
        min_blocks: if d > 128 {
            1024 / d + 1
        } else if c.k.bands.len() > 1 {
            7
        } else if light && words == 1 {
            9
        } else {
            8
        },
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
    let held = [held::holds_mapped(c.k.bands, d) && held::holds_mapped(c.v.bands, d); 2];
    StoreMeta {
        held,
        min_blocks: if d > 128 {
            2
        } else if held[0] && elem == Elem::Bf16 {
            7
        } else {
            4
        },
        ..store_meta(c, d, page_tokens, elem)
    }
}

/// Of the one whose blocks walk, see [`maps::walk`], for devices whose tensor core reads shared memory: elsewhere its registers do not suffice. None where
/// rows are not bf16, not held or not stored transposed.
pub fn walked_store_meta(c: &CodecInfo, d: usize, page_tokens: usize, elem: Elem) -> Option<StoreMeta> {
    let m = mapped_store_meta(c, d, page_tokens, elem);
    (elem == Elem::Bf16 && m.held[0] && m.quads && m.key_quads).then_some(StoreMeta { walks: true, min_blocks: 4, ..m })
}

/// Tile IR of either kernel.
pub fn mapped_store_ir(c: &CodecInfo, m: &StoreMeta, elem: Elem) -> Result<Program, Report> {
    match elem {
        Elem::Bf16 if m.walks => maps::walk::store_walked::build::<bf16>(m, c.k.bands[0], c.v.bands[0]),
        Elem::F32 if m.walks => maps::walk::store_walked::build::<f32>(m, c.k.bands[0], c.v.bands[0]),
        Elem::Bf16 => maps::store::store_mapped::build::<bf16>(m, c.k.bands, c.v.bands),
        Elem::F32 => maps::store::store_mapped::build::<f32>(m, c.k.bands, c.v.bands),
    }
}

/// The store kernel of a calibrated codec. Grid: [`mapped_grid`].
pub fn mapped_store(c: &CodecInfo, d: usize, page_tokens: usize, elem: Elem) -> Result<Source, Report> {
    Source::of(&mapped_store_ir(c, &mapped_store_meta(c, d, page_tokens, elem), elem)?)
}

/// Meta value of the store kernel that takes keys as projections leave them; `calibrated`: of a codec whose rows are mapped.
pub fn rope_store_meta(c: &CodecInfo, d: usize, page_tokens: usize, elem: Elem, rope: Rope, calibrated: bool) -> StoreMeta {
    let m = if calibrated { mapped_store_meta(c, d, page_tokens, elem) } else { store_meta(c, d, page_tokens, elem) };
    // The table, the weights and rows of f32 take registers besides.
    let most = if d > 128 {
        m.min_blocks - 1
    } else if elem == Elem::F32 {
        5
    } else {
        7
    };
    StoreMeta { straight: [false; 2], rope, min_blocks: m.min_blocks.min(most), ..m }
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

/// Blocks of the store kernel of a calibrated codec: where they walk, no more than [`maps::walk::BLOCKS`].
pub fn mapped_grid(m: &StoreMeta, tokens: usize, kv_heads: usize) -> [u32; 3] {
    if !m.walks {
        return store_grid(tokens, kv_heads);
    }
    let most = (maps::walk::BLOCKS / (2 * kv_heads)).max(1);
    [tokens.div_ceil(maps::walk::GROUP).min(most) as u32, kv_heads as u32, 2]
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
    JoinMeta { d, page_tokens, lead: 0, warps: 8, group: 1, queries: 1, fold: 1, sharing: 0, mapped: false, inv_sqrt_d: 1.0 / (d as f32).sqrt() }
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
    let tiles =
        TileMeta { page_tokens: tile_tokens, tile_bytes: store.tile_bytes, keys_at: store.keys_at[0], values_at: store.values_at[0], sides_at: store.sides_at, side_stride: store.side_stride, quads: store.quads, key_quads: store.key_quads };
    Some(SlotMeta { d, elem: store.elem, page_tokens, values_at: c.k.slot_bytes(d), warps: 4, min_blocks: 1, inv_sqrt_d: store.inv_sqrt_d, tiles })
}

/// Tile IR of the kernel that codes rows into slots.
pub fn store_slots_ir(c: &CodecInfo, m: &SlotMeta, elem: Elem) -> Result<Program, Report> {
    match elem {
        Elem::Bf16 => slots::store::store_slots::build::<bf16>(m, c.k.bands, c.v.bands),
        Elem::F32 => slots::store::store_slots::build::<f32>(m, c.k.bands, c.v.bands),
    }
}

/// Tile IR of the kernel that moves tokens from slots to tiles. Grid of all three: [`store_grid`].
pub fn import_slots_ir(c: &CodecInfo, m: &SlotMeta) -> Result<Program, Report> {
    slots::moves::import_slots::build(m, c.k.bands, c.v.bands)
}

/// Tile IR of the kernel that moves tokens from tiles to slots.
pub fn export_slots_ir(c: &CodecInfo, m: &SlotMeta) -> Result<Program, Report> {
    slots::moves::export_slots::build(m, c.k.bands, c.v.bands)
}

/// Meta value of the join kernel after a decode kernel of `m`.
pub fn join_after(m: &DecodeMeta) -> JoinMeta {
    JoinMeta { lead: m.lead(), fold: m.fold, sharing: if m.laps() { m.sharing } else { 0 }, mapped: m.record > 0, ..join_meta(m.d, m.page_tokens) }
}

/// Meta value of the kernel that maps queries for the attention kernel of `m`.
pub fn queries_meta(m: &DecodeMeta, elem: Elem) -> MapMeta {
    let (elem, min_blocks) = (if elem == Elem::Bf16 { 2 } else { 4 }, if m.d > 128 { 2 } else { 4 });
    MapMeta {
        d: m.d,
        group: m.group,
        fold: m.fold,
        sharing: if m.laps() { m.sharing } else { 0 },
        queries: m.queries,
        cols: if m.wide > 0 { m.lines() } else { m.cols },
        parts: m.parts,
        page_tokens: m.page_tokens,
        segment: SEGMENT,
        elem,
        warps: 4,
        min_blocks,
    }
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
