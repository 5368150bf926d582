//! Store: rows of K and V become codes in their pages. A block takes 32 tokens of one kv head, as many as a tile has.
//!
//! Four threads rotate a row; then threads walk code words in an order in which a warp's writes lie side by side if the
//! tokens fill a tile. Any slots will do.
//! Cost: reads d elements a row, writes its code and side bytes; bound by instructions, the nearest point most of all.

use super::codes::{follow, join_quad_tails, join_tails, keep, key_quad_byte, put_kept, put_planes, put_quads, put_tail};
use super::desk::Desk;
use super::groups::{group_tops, own_side, put_groups};
use super::held::{code_held_keys, code_held_values, hold, keeps_sides, take, untouched};
use super::place::put_place;
use super::rope::Rope;
use super::rows::{at_once, block_of, choose, code_of, over_of, side_of, stored_of, turn_across};
use super::search::search_sides;
use super::straight::pass;
use crate::codec::Codec;
use kernel_dsl::prelude::*;

/// Shape of a store kernel.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StoreMeta {
    pub d: usize,
    /// Bytes of an element of k and v.
    pub elem: usize,
    pub page_tokens: usize,
    pub tile_bytes: usize,
    /// First bytes of the codes of each band.
    pub keys_at: [usize; 4],
    pub values_at: [usize; 2],
    pub sides_at: usize,
    pub side_stride: usize,
    /// Values are stored transposed, four tokens to a word.
    pub quads: bool,
    /// Keys are, four blocks to a word.
    pub key_quads: bool,
    /// Words that wait until values of four tokens can leave side by side, at least 1.
    pub kept: usize,
    /// Rows of keys, and of values, are coded as they come: see [`super::straight`].
    pub straight: [bool; 2],
    /// Rows of keys, and of values, stay in registers: see [`super::held`].
    pub held: [bool; 2],
    /// Blocks of a calibrated codec walk groups of tokens: see [`super::maps::walk`].
    pub walks: bool,
    pub warps: usize,
    pub min_blocks: usize,
    pub inv_sqrt_d: f32,
    /// What keys pass before all that, in the kernels of [`super::rope`].
    pub rope: Rope,
}

impl StoreMeta {
    /// Elements from row to row where rows are padded in the place of swizzled, for what writes a quad of eight tokens at once.
    pub fn padded(&self) -> usize {
        self.d + 4
    }

    /// The root of the numbers of a row.
    pub fn root(&self) -> f32 {
        (self.d as f32).sqrt()
    }

    /// One over the numbers of a row.
    pub fn inverse(&self) -> f32 {
        1.0 / self.d as f32
    }
}

impl Meta for StoreMeta {
    fn launch(&self) -> Launch {
        Launch { warps: self.warps, min_blocks: self.min_blocks }
    }
}

/// A block's desk, and room for values' code words that wait for those of other tokens.
#[device]
pub fn desk(m: &StoreMeta, kc: &[&dyn Codec], vc: &[&dyn Codec]) -> (Desk, Shared<u32>) {
    let rows = shared::<u8>(128 * m.d);
    let squares = shared::<f32>(32 * 4);
    // Of quarter rows, of both ends of ranges, of groups.
    let tops = shared::<f32>(if kc[0].spec().affine | vc[0].spec().affine | (kc[0].spec().group + vc[0].spec().group > 0) { 2 * m.d } else { m.d });
    let sides = shared::<f32>(32 * 4);
    let energies = shared::<i32>(if kc[0].spec().corrected | vc[0].spec().corrected { 32 * 4 } else { 1 });
    let tails = shared::<u32>(4 * m.d * kc[0].spec().tail().max(vc[0].spec().tail()).min(1) + 1);
    let codes = shared::<u32>(m.kept);
    let tiles = shared::<i64>(32);
    let places = shared::<u32>(32);
    (Desk { rows, squares, tops, energies, sides, tails, tiles, places, held: by_turn::<f32>(128, 32) }, codes)
}

#[kernel]
pub fn store<T: Float>(
    m: StoreMeta,
    kc: &[&dyn Codec], // one a band
    vc: &[&dyn Codec],
    k: &Global<T>,            // [tokens, kv_heads, d], strided
    v: &Global<T>,            // likewise
    slots: &Global<i64>,      // [tokens]; below 0: padding
    cache: &mut Global<u8>,   // [pages, kv_heads, block]
    status: &mut Global<i32>, // bad slot, bad page, bad length, where
    tokens: i32,
    kv_heads: i32,
    slot_count: i64,
    k_token_stride: i64,
    k_head_stride: i64,
    v_token_stride: i64,
    v_head_stride: i64,
) {
    after_previous();
    release_next();
    let (head, kind) = (block_id(1), block_id(2));
    if m.straight[0] {
        if kind == 0_i32 {
            pass::<T>(&m, kc[0], k, slots, cache, status, false, head, tokens, kv_heads, slot_count, k_token_stride, k_head_stride);
        }
    }
    if m.straight[1] {
        if kind == 1_i32 {
            pass::<T>(&m, vc[0], v, slots, cache, status, true, head, tokens, kv_heads, slot_count, v_token_stride, v_head_stride);
        }
    }
    if !(m.straight[0] & m.straight[1]) {
        let (mut desk, mut codes) = desk(&m, kc, vc);
        if !m.straight[0] {
            if kind == 0_i32 {
                bring::<T>(&m, kc[0], k, slots, status, false, head, tokens, kv_heads, slot_count, k_token_stride, k_head_stride, &mut desk);
                code_as_keys(&m, kc, cache, &mut desk);
            }
        }
        if !m.straight[1] {
            if kind == 1_i32 {
                bring::<T>(&m, vc[0], v, slots, status, true, head, tokens, kv_heads, slot_count, v_token_stride, v_head_stride, &mut desk);
                code_as_values(&m, kc, vc, cache, &mut desk, &mut codes);
            }
        }
    }
}

/// A block's rows, and where each will lie: a warp looks up slots while rows are on their way.
#[device]
#[allow(clippy::too_many_arguments)]
fn bring<T: Float>(m: &StoreMeta, c: &dyn Codec, x: &Global<T>, slots: &Global<i64>, status: &mut Global<i32>, values: bool, head: i32, tokens: i32, kv_heads: i32, slot_count: i64, token_stride: i64, head_stride: i64, desk: &mut Desk) {
    let first = block_id(0) * 32_i32;
    for i in threads(128) {
        let slot = if (i < 32_i32) & (first + i < tokens) { slots.at(first + i) } else { -1_i64 };
        take::<T>(m, c, x, values, i, first, head, tokens, token_stride, head_stride, desk);
        if i < 32_i32 {
            put_place(slot, slot_count, kv_heads, head, m.page_tokens, m.tile_bytes, i, first + i, &mut desk.tiles, &mut desk.places, status);
        }
    }
}

/// Rows of keys that were loaded, through the phases that are left.
#[device]
pub fn code_as_keys(m: &StoreMeta, kc: &[&dyn Codec], cache: &mut Global<u8>, desk: &mut Desk) {
    if m.held[0] {
        if !untouched(m, kc[0], false) {
            hold(m, kc[0], false, desk);
        }
        code_held_keys(m, kc[0], cache, desk);
    } else {
        prepare(kc, &mut desk.rows, &desk.squares, &mut desk.tops, &mut desk.sides, m.d, m.inv_sqrt_d);
        for band in 0..kc.len() {
            code_keys(m, kc, band, cache, desk, m.d);
        }
    }
    if kc[0].spec().group > 0 {
        put_groups(kc[0], cache, &desk.tops, &desk.tiles, &desk.places, m.keys_at[0], m.d, false);
    }
    finish(m, kc[0], cache, desk, m.sides_at, m.keys_at[0], false);
}

/// Likewise rows of values; their sides lie behind those of the keys.
#[device]
pub fn code_as_values(m: &StoreMeta, kc: &[&dyn Codec], vc: &[&dyn Codec], cache: &mut Global<u8>, desk: &mut Desk, codes: &mut Shared<u32>) {
    if m.held[1] {
        if !untouched(m, vc[0], true) {
            hold(m, vc[0], true, desk);
        }
        code_held_values(m, vc[0], kc[0].spec().sides, cache, desk, codes);
    } else {
        prepare(vc, &mut desk.rows, &desk.squares, &mut desk.tops, &mut desk.sides, m.d, m.inv_sqrt_d);
        for band in 0..vc.len() {
            code_values(m, vc, band, cache, desk, codes, m.d);
        }
    }
    if vc[0].spec().group > 0 {
        put_groups(vc[0], cache, &desk.tops, &desk.tiles, &desk.places, m.values_at[0], m.d, true);
    }
    finish(m, vc[0], cache, desk, m.sides_at + 2 * kc[0].spec().sides, m.values_at[0], true);
}

/// Rows, turned, and their side values go to shared memory.
#[device]
pub fn prepare(c: &[&dyn Codec], rows: &mut Shared<u8>, squares: &Shared<f32>, tops: &mut Shared<f32>, sides: &mut Shared<f32>, d: usize, inv_sqrt_d: f32) {
    for i in threads(d) {
        // Rows four apart meet at no bank.
        let k = if d == 64 { i & 1_i32 } else { (i & 3_i32) + ((i >> 7_u32) << 2_u32) };
        let r = if d == 64 { i >> 1_u32 } else { (i & 28_i32) + ((i >> 5_u32) & 3_i32) };
        turn_across(c[0], k, r, rows, squares, tops, d, inv_sqrt_d);
    }
    if c[0].spec().searches > 0 {
        search_sides(c, rows, sides, d, d);
    } else {
        if !at_once(c[0]) {
            for r in threads(32) {
                choose(c, rows, squares, tops, sides, r, d);
            }
        }
    }
    if c[0].spec().group > 0 {
        group_tops(c[0], rows, tops, d);
    }
}

/// A band, coded with the sides that the first one chooses; `line`: elements from row to row. Four lanes share a token, a quarter of its blocks each:
/// their words lie side by side.
#[device]
pub fn code_keys(m: &StoreMeta, bands: &[&dyn Codec], band: usize, cache: &mut Global<u8>, desk: &mut Desk, line: usize) {
    let width = m.d / bands.len();
    for i in threads(32 * m.warps) {
        let own = width / 32;
        for q in strided(i >> 5_u32, 4_i32, m.warps) {
            let r = ((i & 31_i32) >> 2_u32) * 4_i32 + q;
            let (tile, place, side) = (desk.tiles.at(r), desk.places.at(r), side_of(bands[0], &desk.squares, &desk.tops, &desk.sides, r, m.d));
            let mut energy = 0_i32;
            if m.key_quads {
                for from in strided(0_i32, own as i32, 4) {
                    let mut words = [0_u32; 8];
                    for j in strided(from, (own as i32).min(from + 4_i32), 1) {
                        let code = coded(m, bands, band, desk, side, r, (i & 3_i32) * own as i32 + j, line);
                        energy = energy + energy_if_corrected(bands[band], code);
                        words = follow(words, code, bands[band].spec().bits);
                    }
                    if tile >= 0_i64 {
                        put_quads(bands[band], cache, tile + m.keys_at[band] as i64, place, ((i & 3_i32) * own as i32 + from) as u32, words, width);
                    }
                }
            } else {
                for j in strided(0_i32, own as i32, 1) {
                    let block = (i & 3_i32) * own as i32 + j;
                    let code = coded(m, bands, band, desk, side, r, block, line);
                    energy = energy + energy_if_corrected(bands[band], code);
                    if tile >= 0_i64 {
                        put_planes(bands[band], cache, tile + m.keys_at[band] as i64, place, block as u32, code, false, false, width);
                    }
                }
            }
            add_energy(bands[band], &mut desk.energies, r * 4_i32 + (i & 3_i32), energy, band);
        }
    }
}

/// The code of a block of a band; its tail waits for others.
#[device]
#[allow(clippy::too_many_arguments)]
fn coded(m: &StoreMeta, bands: &[&dyn Codec], band: usize, desk: &mut Desk, side: [f32; 2], r: i32, block: i32, line: usize) -> [u32; 4] {
    let x = block_of(&desk.rows, r, block + (band * (m.d / bands.len() / 8)) as i32, line);
    let code = code_of(bands[band], x, if bands[band].spec().group > 0 { own_side(bands[band], &desk.tops, side, r, block, m.d) } else { side }, over_of(bands[band], &desk.squares, r, m.root()));
    put_tail(bands[band], &mut desk.tails, r, block, code);
    code
}

/// As `code_keys` for bands of 32 dims stored transposed, a warp each: a lane codes a block of four tokens, whose bytes make a
/// word where the tokens lie side by side.
#[device]
pub fn code_narrow_keys(m: &StoreMeta, bands: &[&dyn Codec], cache: &mut Global<u8>, desk: &Desk, line: usize) {
    for i in threads(128) {
        let (r, block) = ((i & 28_i32), i & 3_i32);
        for band in 0..bands.len() {
            if i >> 5_u32 == band as i32 {
                let mut words = [0_u32; 8];
                let (tile, place) = (desk.tiles.at(r), desk.places.at(r));
                let mut beside = (tile >= 0_i64) & ((place & 3_u32) == 0_u32);
                for q in strided(0_i32, 4_i32, 1) {
                    let code = bands[band].encode(block_of(&desk.rows, r + q, block + (4 * band) as i32, line), [desk.sides.at((r + q) * 4_i32), desk.sides.at((r + q) * 4_i32 + 1_i32)]);
                    for b in 0..bands[band].spec().bits / 8 {
                        words[b] = words[b] | (((code[b / 4] >> (b % 4 * 8)) & 255_u32) << ((q << 3_u32) as u32 & 31_u32));
                    }
                    beside = beside & (desk.tiles.at(r + q) == tile) & (desk.places.at(r + q) == place + q as u32);
                }
                for b in 0..bands[band].spec().bits / 8 {
                    if beside {
                        cache.save::<u32>(tile + m.keys_at[band] as i64 + key_quad_byte(place, block as u32, b, bands[band].spec().bits, 4) as i64, words[b]);
                    } else {
                        for q in strided(0_i32, 4_i32, 1) {
                            if desk.tiles.at(r + q) >= 0_i64 {
                                cache.save::<u8>(desk.tiles.at(r + q) + m.keys_at[band] as i64 + key_quad_byte(desk.places.at(r + q), block as u32, b, bands[band].spec().bits, 4) as i64, (words[b] >> ((q << 3_u32) as u32 & 31_u32)) as u8);
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Likewise a band of values. A lane walks the blocks of its token: the bytes of 32 tokens lie side by side.
#[device]
pub fn code_values(m: &StoreMeta, bands: &[&dyn Codec], band: usize, cache: &mut Global<u8>, desk: &mut Desk, codes: &mut Shared<u32>, line: usize) {
    let width = m.d / bands.len();
    for i in threads(32 * m.warps) {
        let r = i & 31_i32;
        let (tile, place, side) = (desk.tiles.at(r), desk.places.at(r), side_of(bands[0], &desk.squares, &desk.tops, &desk.sides, r, m.d));
        let mut energy = 0_i32;
        for block in strided(i >> 5_u32, (width / 8) as i32, m.warps) {
            let code = coded(m, bands, band, desk, side, r, block, line);
            energy = energy + energy_if_corrected(bands[band], code);
            if m.quads {
                keep(bands[band], codes, r, block, code, width / 8);
            } else {
                if tile >= 0_i64 {
                    put_planes(bands[band], cache, tile + m.values_at[band] as i64, place, block as u32, code, true, false, width);
                }
            }
        }
        add_energy(bands[band], &mut desk.energies, r * 4_i32 + (i >> 5_u32), energy, band);
    }
    if m.quads {
        put_kept(bands[band], cache, codes, &desk.tiles, &desk.places, m.values_at[band], width);
    }
}

/// What side values are corrected by.
#[device]
pub fn energy_if_corrected(c: &dyn Codec, code: [u32; 4]) -> i32 {
    if c.spec().corrected { c.energy(code) } else { 0_i32 }
}

/// A quarter of a row's energy, of one band more.
#[device]
pub fn add_energy(c: &dyn Codec, energies: &mut Shared<i32>, at: i32, energy: i32, band: usize) {
    if c.spec().corrected {
        energies.put(at, if band == 0 { energy } else { energies.at(at) + energy });
    }
}

/// What tokens store once: side values and the bytes of tails.
#[device]
pub fn finish(m: &StoreMeta, c: &dyn Codec, cache: &mut Global<u8>, desk: &Desk, sides_at: usize, codes_at: usize, values: bool) {
    let quads = if values { m.quads } else { m.key_quads };
    if (c.spec().sides > 0) & !keeps_sides(m, c, values) {
        for r in threads(32) {
            if desk.tiles.at(r) >= 0_i64 {
                let at = desk.tiles.at(r) + (sides_at as u32 + desk.places.at(r) * m.side_stride as u32) as i64;
                let side = stored_of(c, &desk.squares, &desk.tops, &desk.sides, &desk.energies, r, m.d);
                for e in 0..c.spec().sides {
                    cache.save::<f16>(at + (2 * e) as i64, f16::from_f32(side[e]));
                }
            }
        }
    }
    let w = c.spec().tail();
    if (w > 0) & quads {
        for i in threads(128) {
            let (r, part) = (i & 31_i32, i >> 5_u32);
            if desk.tiles.at(r) >= 0_i64 {
                join_quad_tails(c, cache, desk.tiles.at(r) + codes_at as i64, &desk.tails, r, desk.places.at(r), part, values, m.d);
            }
        }
    }
    if (w > 0) & !quads {
        for i in threads(32 * (m.d / 64)) {
            let (r, part) = (i & 31_i32, i >> 5_u32);
            if desk.tiles.at(r) >= 0_i64 {
                let from = codes_at + m.d / 2 * (c.spec().bits - w);
                let at = desk.tiles.at(r) + (from as u32 + desk.places.at(r) * (m.d / 64 * w) as u32) as i64 + (part * w as i32) as i64;
                join_tails(c, cache, at, &desk.tails, r, part * 8_i32);
            }
        }
    }
}
