//! Store: rows of K and V become codes in their pages. A block takes 32 tokens of one kv head, as many as a tile has.
//!
//! Four threads rotate a row; then threads walk code words in an order in which a warp's writes lie side by side if the
//! tokens fill a tile. Any slots will do.
//! Cost: reads d elements a row, writes its code and side bytes; bound by instructions, the nearest point most of all.

use super::codes::{follow, join_quad_tails, join_tails, keep, key_quad_byte, put_kept, put_planes, put_quads, put_tail};
use super::groups::{group_tops, own_side, put_groups};
use super::held::{code_held_keys, code_held_values, hold};
use super::place::put_place;
use super::rope::Rope;
use super::rows::{at_once, block_of, choose, energy_of, side_of, stored_of, turn_across, turn_within};
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
    /// Rows are coded as they come: see [`super::straight`].
    pub straight: bool,
    /// Rows of keys, and of values, stay in registers: see [`super::held`].
    pub held: [bool; 2],
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

/// Largest magnitudes that a block keeps: of quarter rows, of both ends of ranges, of groups.
#[device]
pub fn tops_of(kc: &[&dyn Codec], vc: &[&dyn Codec], d: usize) -> usize {
    if kc[0].spec().affine | vc[0].spec().affine | (kc[0].spec().group + vc[0].spec().group > 0) { 2 * d } else { d }
}

/// Energies of quarter rows that a block keeps.
#[device]
pub fn energies_of(kc: &[&dyn Codec], vc: &[&dyn Codec]) -> usize {
    if kc[0].spec().corrected | vc[0].spec().corrected { 32 * 4 } else { 1 }
}

/// Words of tails that wait in a block.
#[device]
pub fn tails_of(kc: &[&dyn Codec], vc: &[&dyn Codec], d: usize) -> usize {
    4 * d * kc[0].spec().tail().max(vc[0].spec().tail()).min(1) + 1
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
    let (first, head, kind) = (block_id(0) * 32_i32, block_id(1), block_id(2));
    if m.straight {
        if kind == 0_i32 {
            pass::<T>(&m, kc[0], k, slots, cache, status, false, head, tokens, kv_heads, slot_count, k_token_stride, k_head_stride);
        } else {
            pass::<T>(&m, vc[0], v, slots, cache, status, true, head, tokens, kv_heads, slot_count, v_token_stride, v_head_stride);
        }
    } else {
        let mut rows = shared::<u8>(128 * m.d);
        let mut squares = shared::<f32>(32 * 4);
        let mut tops = shared::<f32>(tops_of(kc, vc, m.d));
        let mut sides = shared::<f32>(32 * 4);
        let mut energies = shared::<i32>(energies_of(kc, vc));
        let mut tails = shared::<u32>(tails_of(kc, vc, m.d));
        let mut codes = shared::<u32>(m.kept);
        let mut tiles = shared::<i64>(32);
        let mut places = shared::<u32>(32);
        let mut held = by_turn::<f32>(128, 32);
        for i in threads(128) {
            // Four threads a row; a warp looks up slots while rows are on their way.
            let (r, j) = (i >> 2_u32, i & 3_i32);
            let token = (first + r).min(tokens - 1_i32);
            let slot = if (i < 32_i32) & (first + i < tokens) { slots.at(first + i) } else { -1_i64 };
            if kind == 0_i32 {
                turn_within::<T>(kc[0], k, (token as i64 * k_token_stride + head as i64 * k_head_stride) * m.elem as i64, j, r, &mut rows, &mut squares, m.d, m.elem);
            } else {
                turn_within::<T>(vc[0], v, (token as i64 * v_token_stride + head as i64 * v_head_stride) * m.elem as i64, j, r, &mut rows, &mut squares, m.d, m.elem);
            }
            if i < 32_i32 {
                put_place(slot, slot_count, kv_heads, head, m.page_tokens, m.tile_bytes, i, first + i, &mut tiles, &mut places, status);
            }
        }
        if kind == 0_i32 {
            code_as_keys(&m, kc, cache, &mut held, &mut rows, &squares, &mut tops, &mut sides, &mut energies, &mut tails, &tiles, &places);
        } else {
            code_as_values(&m, kc, vc, cache, &mut held, &mut rows, &squares, &mut tops, &mut sides, &mut energies, &mut tails, &mut codes, &tiles, &places);
        }
    }
}

/// Rows of keys that were loaded, through the phases that are left.
#[device]
#[allow(clippy::too_many_arguments)]
pub fn code_as_keys(m: &StoreMeta, kc: &[&dyn Codec], cache: &mut Global<u8>, held: &mut ByTurn<f32>, rows: &mut Shared<u8>, squares: &Shared<f32>, tops: &mut Shared<f32>, sides: &mut Shared<f32>, energies: &mut Shared<i32>, tails: &mut Shared<u32>, tiles: &Shared<i64>, places: &Shared<u32>) {
    if m.held[0] {
        hold(m, kc[0], false, held, rows, squares, tops);
        code_held_keys(m, kc[0], cache, held, squares, tops, sides, energies, tails, tiles, places);
    } else {
        prepare(kc, rows, squares, tops, sides, m.d, m.inv_sqrt_d);
        for band in 0..kc.len() {
            code_keys(kc[0], kc[band], cache, rows, squares, tops, sides, tiles, places, tails, energies, m.warps, m.d, m.d / kc.len(), band, m.keys_at[band], m.key_quads, m.d);
        }
    }
    if kc[0].spec().group > 0 {
        put_groups(kc[0], cache, tops, tiles, places, m.keys_at[0], m.d, false);
    }
    finish(kc[0], cache, squares, tops, sides, energies, tiles, places, tails, m.sides_at, m.side_stride, m.keys_at[0], false, m.key_quads, m.d);
}

/// Likewise rows of values; their sides lie behind those of the keys.
#[device]
#[allow(clippy::too_many_arguments)]
pub fn code_as_values(m: &StoreMeta, kc: &[&dyn Codec], vc: &[&dyn Codec], cache: &mut Global<u8>, held: &mut ByTurn<f32>, rows: &mut Shared<u8>, squares: &Shared<f32>, tops: &mut Shared<f32>, sides: &mut Shared<f32>, energies: &mut Shared<i32>, tails: &mut Shared<u32>, codes: &mut Shared<u32>, tiles: &Shared<i64>, places: &Shared<u32>) {
    if m.held[1] {
        hold(m, vc[0], true, held, rows, squares, tops);
        code_held_values(m, vc[0], cache, held, squares, tops, sides, energies, tails, codes, tiles, places);
    } else {
        prepare(vc, rows, squares, tops, sides, m.d, m.inv_sqrt_d);
        for band in 0..vc.len() {
            code_values(vc[0], vc[band], cache, rows, squares, tops, sides, tiles, places, tails, energies, codes, m.warps, m.d, m.d / vc.len(), band, m.values_at[band], m.quads, m.d);
        }
    }
    if vc[0].spec().group > 0 {
        put_groups(vc[0], cache, tops, tiles, places, m.values_at[0], m.d, true);
    }
    finish(vc[0], cache, squares, tops, sides, energies, tiles, places, tails, m.sides_at + 2 * kc[0].spec().sides, m.side_stride, m.values_at[0], true, m.quads, m.d);
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

/// A band of `width` dims, coded with the sides that the `first` band chooses. Four lanes share a token, a quarter of its blocks each: their words
/// lie side by side.
#[device]
#[allow(clippy::too_many_arguments)]
pub fn code_keys(first: &dyn Codec, c: &dyn Codec, cache: &mut Global<u8>, rows: &Shared<u8>, squares: &Shared<f32>, tops: &Shared<f32>, sides: &Shared<f32>, tiles: &Shared<i64>, places: &Shared<u32>, tails: &mut Shared<u32>, energies: &mut Shared<i32>, n: usize, d: usize, width: usize, band: usize, codes_at: usize, quads: bool, line: usize) {
    for i in threads(32 * n) {
        let own = width / 32;
        for q in strided(i >> 5_u32, 4_i32, n) {
            let r = ((i & 31_i32) >> 2_u32) * 4_i32 + q;
            let (tile, place, side) = (tiles.at(r), places.at(r), side_of(first, squares, tops, sides, r, d));
            let mut energy = 0_i32;
            if quads {
                for from in strided(0_i32, own as i32, 4) {
                    let mut words = [0_u32; 8];
                    for j in strided(from, (own as i32).min(from + 4_i32), 1) {
                        let code = coded(c, rows, tops, side, tails, r, (i & 3_i32) * own as i32 + j, band, width, d, line);
                        energy = energy + energy_if_corrected(c, code);
                        words = follow(words, code, c.spec().bits);
                    }
                    if tile >= 0_i64 {
                        put_quads(c, cache, tile + codes_at as i64, place, ((i & 3_i32) * own as i32 + from) as u32, words, width);
                    }
                }
            } else {
                for j in strided(0_i32, own as i32, 1) {
                    let block = (i & 3_i32) * own as i32 + j;
                    let code = coded(c, rows, tops, side, tails, r, block, band, width, d, line);
                    energy = energy + energy_if_corrected(c, code);
                    if tile >= 0_i64 {
                        put_planes(c, cache, tile + codes_at as i64, place, block as u32, code, false, false, width);
                    }
                }
            }
            add_energy(c, energies, r * 4_i32 + (i & 3_i32), energy, band);
        }
    }
}

/// The code of a block of a band; its tail waits for others.
#[device]
#[allow(clippy::too_many_arguments)]
fn coded(c: &dyn Codec, rows: &Shared<u8>, tops: &Shared<f32>, side: [f32; 2], tails: &mut Shared<u32>, r: i32, block: i32, band: usize, width: usize, d: usize, line: usize) -> [u32; 4] {
    let code = c.encode(block_of(rows, r, block + (band * (width / 8)) as i32, line), if c.spec().group > 0 { own_side(c, tops, side, r, block, d) } else { side });
    put_tail(c, tails, r, block, code);
    code
}

/// As `code_keys` for bands of 32 dims stored transposed, a warp each: a lane codes a block of four tokens, whose bytes make a
/// word where the tokens lie side by side.
#[device]
#[allow(clippy::too_many_arguments)]
pub fn code_narrow_keys(bands: &[&dyn Codec], cache: &mut Global<u8>, rows: &Shared<u8>, sides: &Shared<f32>, tiles: &Shared<i64>, places: &Shared<u32>, codes_at: [usize; 4], line: usize) {
    for i in threads(128) {
        let (r, block) = ((i & 28_i32), i & 3_i32);
        for band in 0..bands.len() {
            if i >> 5_u32 == band as i32 {
                let mut words = [0_u32; 8];
                let (tile, place) = (tiles.at(r), places.at(r));
                let mut beside = (tile >= 0_i64) & ((place & 3_u32) == 0_u32);
                for q in strided(0_i32, 4_i32, 1) {
                    let code = bands[band].encode(block_of(rows, r + q, block + (4 * band) as i32, line), [sides.at((r + q) * 4_i32), sides.at((r + q) * 4_i32 + 1_i32)]);
                    for b in 0..bands[band].spec().bits / 8 {
                        words[b] = words[b] | (((code[b / 4] >> (b % 4 * 8)) & 255_u32) << ((q << 3_u32) as u32 & 31_u32));
                    }
                    beside = beside & (tiles.at(r + q) == tile) & (places.at(r + q) == place + q as u32);
                }
                for b in 0..bands[band].spec().bits / 8 {
                    if beside {
                        cache.save::<u32>(tile + codes_at[band] as i64 + key_quad_byte(place, block as u32, b, bands[band].spec().bits, 4) as i64, words[b]);
                    } else {
                        for q in strided(0_i32, 4_i32, 1) {
                            if tiles.at(r + q) >= 0_i64 {
                                cache.save::<u8>(tiles.at(r + q) + codes_at[band] as i64 + key_quad_byte(places.at(r + q), block as u32, b, bands[band].spec().bits, 4) as i64, (words[b] >> ((q << 3_u32) as u32 & 31_u32)) as u8);
                            }
                        }
                    }
                }
            }
        }
    }
}

/// A band of `width` dims. A lane walks the blocks of its token: the bytes of 32 tokens lie side by side.
#[device]
#[allow(clippy::too_many_arguments)]
pub fn code_values(first: &dyn Codec, c: &dyn Codec, cache: &mut Global<u8>, rows: &Shared<u8>, squares: &Shared<f32>, tops: &Shared<f32>, sides: &Shared<f32>, tiles: &Shared<i64>, places: &Shared<u32>, tails: &mut Shared<u32>, energies: &mut Shared<i32>, codes: &mut Shared<u32>, n: usize, d: usize, width: usize, band: usize, codes_at: usize, quads: bool, line: usize) {
    for i in threads(32 * n) {
        let r = i & 31_i32;
        let (tile, place, side) = (tiles.at(r), places.at(r), side_of(first, squares, tops, sides, r, d));
        let mut energy = 0_i32;
        for block in strided(i >> 5_u32, (width / 8) as i32, n) {
            let code = coded(c, rows, tops, side, tails, r, block, band, width, d, line);
            energy = energy + energy_if_corrected(c, code);
            if quads {
                keep(c, codes, r, block, code, width / 8);
            } else {
                if tile >= 0_i64 {
                    put_planes(c, cache, tile + codes_at as i64, place, block as u32, code, true, false, width);
                }
            }
        }
        add_energy(c, energies, r * 4_i32 + (i >> 5_u32), energy, band);
    }
    if quads {
        put_kept(c, cache, codes, tiles, places, codes_at, width);
    }
}

/// What side values are corrected by.
#[device]
pub fn energy_if_corrected(c: &dyn Codec, code: [u32; 4]) -> i32 {
    if c.spec().corrected { energy_of(c, code) } else { 0_i32 }
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
#[allow(clippy::too_many_arguments)]
pub fn finish(c: &dyn Codec, cache: &mut Global<u8>, squares: &Shared<f32>, tops: &Shared<f32>, sides: &Shared<f32>, energies: &Shared<i32>, tiles: &Shared<i64>, places: &Shared<u32>, tails: &Shared<u32>, sides_at: usize, side_stride: usize, codes_at: usize, values: bool, quads: bool, d: usize) {
    for r in threads(32) {
        if tiles.at(r) >= 0_i64 {
            let at = tiles.at(r) + (sides_at as u32 + places.at(r) * side_stride as u32) as i64;
            let side = stored_of(c, squares, tops, sides, energies, r, d);
            for e in 0..c.spec().sides {
                cache.save::<f16>(at + (2 * e) as i64, f16::from_f32(side[e]));
            }
        }
    }
    let w = c.spec().tail();
    if (w > 0) & quads {
        for i in threads(128) {
            let (r, part) = (i & 31_i32, i >> 5_u32);
            if tiles.at(r) >= 0_i64 {
                join_quad_tails(c, cache, tiles.at(r) + codes_at as i64, tails, r, places.at(r), part, values, d);
            }
        }
    }
    if (w > 0) & !quads {
        for i in threads(32 * (d / 64)) {
            let (r, part) = (i & 31_i32, i >> 5_u32);
            if tiles.at(r) >= 0_i64 {
                let from = codes_at + d / 2 * (c.spec().bits - w);
                let at = tiles.at(r) + (from as u32 + places.at(r) * (d / 64 * w) as u32) as i64 + (part * w as i32) as i64;
                join_tails(c, cache, at, tails, r, part * 8_i32);
            }
        }
    }
}
