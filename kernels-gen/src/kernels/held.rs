//! Rows that stay in registers from the last butterflies to their codes: who turns 32 coordinates of a row codes them too,
//! so that only the largest magnitudes cross shared memory.
//!
//! Of codecs that need no more of a row than these, at 128 dims: a quarter of a row a thread. Cost: half of what the plain
//! phases move through shared memory. Rows of calibrated codecs are held likewise, from the first step of their search.

use super::codes::{follow, in_lines, keep, put_kept, put_line, put_planes, put_quads, put_tail};
use super::desk::Desk;
use super::rows::{at_once, code_of, ends_of, half_of, little, loaded, nearly_squared, over_of, put_top, sanitised, side_of, squared, top_of, turn_within, turned_across};
use super::store::{StoreMeta, add_energy, energy_if_corrected};
use crate::codec::Codec;
use kernel_dsl::prelude::*;

/// Whether a codec's rows may be held.
pub fn holds(bands: &[&dyn Codec], d: usize) -> bool {
    d == 128 && bands.len() == 1 && at_once(bands[0]) && !bands[0].spec().alone
}

/// Whether those of a calibrated codec may.
pub fn holds_mapped(bands: &[&dyn Codec], d: usize) -> bool {
    d == 128 && bands.len() == 1 && bands[0].spec().searches > 0
}

/// Whether a held row is coded as it comes, not turned by RoPE either: then who codes a quarter loads it, and nothing but what it tells the other three passes
/// through shared memory.
#[device]
pub fn untouched(m: &StoreMeta, c: &dyn Codec, values: bool) -> bool {
    (if values { m.held[1] } else { m.held[0] & (m.rope.dims == 0) }) & !(c.spec().rotate | c.spec().unit)
}

/// The row of thread `i`, and which quarter of it: four lanes share a key, four warps a value.
#[device]
fn share_of(i: i32, values: bool) -> (i32, i32) {
    if values { (i & 31_i32, i >> 5_u32) } else { ((i & 28_i32) + (i >> 5_u32), i & 3_i32) }
}

/// Of an untouched row, which thread has which of its quarters; of others which every fourth block.
#[device]
fn part_of(i: i32, values: bool, whole: bool) -> (i32, i32) {
    if whole { share_of(i, values) } else { (i >> 2_u32, i & 3_i32) }
}

/// A block's rows from memory: what each thread takes of a row of tokens from token `first` on.
#[device]
#[allow(clippy::too_many_arguments)]
pub fn take<T: Float>(m: &StoreMeta, c: &dyn Codec, x: &Global<T>, values: bool, i: i32, first: i32, head: i32, tokens: i32, token_stride: i64, head_stride: i64, desk: &mut Desk) {
    let (r, k) = part_of(i, values, untouched(m, c, values));
    let at = ((first + r).min(tokens - 1_i32) as i64 * token_stride + head as i64 * head_stride) * m.elem as i64;
    if untouched(m, c, values) {
        let (row, words) = loaded::<T>(x, at, k * 4_i32, 1, 4, m.elem);
        let near = if m.elem == 2 { nearly_squared(words, 16) } else { squared(row, 32) };
        let row = sanitised(row, near, c.spec().limit, 32);
        let mut own = [0.0_f32; 32];
        for e in 0..32 {
            own[e] = row[e];
            desk.held.put(i, e, row[e]);
        }
        let mut top = top_of(c, own);
        if c.spec().affine & (m.elem == 2) {
            if little(near, c.spec().limit) {
                top = ends_of(words);
            }
        }
        put_top(c, top, k, r, &mut desk.tops, m.d);
    } else {
        turn_within::<T>(c, x, at, k, r, &mut desk.rows, &mut desk.squares, m.d, m.elem);
    }
}

/// The butterflies that are left.
#[device]
pub fn hold(m: &StoreMeta, c: &dyn Codec, values: bool, desk: &mut Desk) {
    for i in threads(128) {
        let (r, k) = share_of(i, values);
        let x = turned_across(c, k, r, &desk.rows, &desk.squares, &mut desk.tops, m.d, m.inv_sqrt_d);
        for e in 0..32 {
            desk.held.put(i, e, x[e]);
        }
    }
}

/// Bytes from row to row of coordinates that the tensor core made: quarters are 16 bytes apart besides, so that neither those who
/// leave them nor those who hold them meet at a bank.
#[device]
pub fn mapped_line() -> usize {
    592
}

/// Byte of 32 coordinates of row `r`.
#[device]
pub fn mapped_at(r: i32, k: i32) -> i32 {
    r * mapped_line() as i32 + k * 144_i32
}

/// The scale of rows of coordinates, searched for as [`super::search`] says, a quarter of a row a thread, which holds it from then on.
/// `scratch`: what threads found in each step, then the scales they had.
#[device]
pub fn search_held(c: &dyn Codec, values: bool, desk: &mut Desk, scratch: &mut Shared<u32>) {
    let n = c.spec().searches;
    for step in 0..n {
        for i in threads(128) {
            let (r, k) = share_of(i, values);
            let mut scale = 1.0_f32;
            if step == 0 {
                let at = mapped_at(r, k);
                for q in 0..8 {
                    let w = desk.rows.load4::<f32>(at + (16 * q) as i32);
                    for e in 0..4 {
                        desk.held.put(i, 4 * q + e, w[e]);
                    }
                }
            } else {
                scale = searched(c, scratch, r, step - 1, n);
            }
            let mut pull = 0.0_f32;
            for j in 0..4 {
                pull = pull + c.pull(block_of(&desk.held, i, j), scale);
            }
            scratch.save::<f32>((512 * step) as i32 + r * 16_i32 + k * 4_i32, pull);
            if k == 0_i32 {
                scratch.save::<f32>((512 * n + 128 * step) as i32 + r * 4_i32, scale);
            }
        }
    }
    for r in threads(32) {
        let side = half_of(searched(c, scratch, r, n - 1, n));
        desk.sides.save4::<f32>(r * 16_i32, [side, 0.0_f32, side, 0.0_f32]);
    }
}

/// The scale of row `r` after a step of `n`.
#[device]
fn searched(c: &dyn Codec, scratch: &Shared<u32>, r: i32, step: usize, n: usize) -> f32 {
    let p = scratch.load4::<f32>((512 * step) as i32 + r * 16_i32);
    c.search(scratch.load::<f32>((512 * n + 128 * step) as i32 + r * 4_i32), (p[0] + p[1]) + (p[2] + p[3]), step)
}

/// The `j`-th block of a thread.
#[device]
fn block_of(held: &ByTurn<f32>, i: i32, j: usize) -> [f32; 8] {
    let mut y = [0.0_f32; 8];
    for e in 0..8 {
        y[e] = held.at(i, 8 * j + e);
    }
    y
}

/// Its code; its tail waits for others.
#[device]
#[allow(clippy::too_many_arguments)]
fn coded(c: &dyn Codec, desk: &mut Desk, i: i32, j: usize, side: [f32; 2], over: f32, r: i32, block: i32) -> [u32; 4] {
    let code = code_of(c, block_of(&desk.held, i, j), side, over);
    put_tail(c, &mut desk.tails, r, block, code);
    code
}

/// Whether who holds a row's first quarter stores its sides too: those that it is coded with.
#[device]
pub fn keeps_sides(m: &StoreMeta, c: &dyn Codec, values: bool) -> bool {
    (if values { m.held[1] } else { m.held[0] }) & at_once(c) & !c.spec().corrected
}

/// Those sides.
#[device]
#[allow(clippy::too_many_arguments)]
fn put_sides(m: &StoreMeta, c: &dyn Codec, cache: &mut Global<u8>, tile: i64, place: u32, side: [f32; 2], k: i32, at: usize) {
    if at_once(c) & !c.spec().corrected & (c.spec().sides > 0) {
        if (k == 0_i32) & (tile >= 0_i64) {
            for e in 0..c.spec().sides {
                cache.save::<f16>(tile + ((at + 2 * e) as u32 + place * m.side_stride as u32) as i64, f16::from_f32(half_of(side[e])));
            }
        }
    }
}

/// Keys that are held become codes in their pages.
#[device]
pub fn code_held_keys(m: &StoreMeta, c: &dyn Codec, cache: &mut Global<u8>, desk: &mut Desk) {
    for i in threads(128) {
        let (r, k) = share_of(i, false);
        let (tile, place, side) = (desk.tiles.at(r), desk.places.at(r), side_of(c, &desk.squares, &desk.tops, &desk.sides, r, m.d));
        let over = over_of(c, &desk.squares, r, m.root());
        let mut words = [0_u32; 8];
        let mut energy = 0_i32;
        for j in 0..4 {
            let code = coded(c, desk, i, j, side, over, r, k * 4_i32 + j as i32);
            energy = energy + energy_if_corrected(c, code);
            if m.key_quads {
                words = follow(words, code, c.spec().bits);
            } else if in_lines(c) {
                for w in 0..c.spec().bits / 32 {
                    words[c.spec().bits / 32 * j + w] = code[w];
                }
            } else {
                if tile >= 0_i64 {
                    put_planes(c, cache, tile + m.keys_at[0] as i64, place, (k * 4_i32 + j as i32) as u32, code, false, false, m.d);
                }
            }
        }
        if m.key_quads {
            if tile >= 0_i64 {
                put_quads(c, cache, tile + m.keys_at[0] as i64, place, (k * 4_i32) as u32, words, m.d);
            }
        } else {
            if in_lines(c) {
                if tile >= 0_i64 {
                    put_line(c, cache, tile + m.keys_at[0] as i64, place, (k * 4_i32) as u32, words, m.d);
                }
            }
        }
        add_energy(c, &mut desk.energies, r * 4_i32 + k, energy, 0);
        put_sides(m, c, cache, tile, place, side, k, m.sides_at);
    }
}

/// Values likewise.
#[device]
pub fn code_held_values(m: &StoreMeta, c: &dyn Codec, key_sides: usize, cache: &mut Global<u8>, desk: &mut Desk, codes: &mut Shared<u32>) {
    for i in threads(128) {
        let (r, k) = share_of(i, true);
        let (tile, place, side) = (desk.tiles.at(r), desk.places.at(r), side_of(c, &desk.squares, &desk.tops, &desk.sides, r, m.d));
        let over = over_of(c, &desk.squares, r, m.root());
        let mut energy = 0_i32;
        for j in 0..4 {
            let block = k * 4_i32 + j as i32;
            let code = coded(c, desk, i, j, side, over, r, block);
            energy = energy + energy_if_corrected(c, code);
            if m.quads {
                keep(c, codes, r, block, code, m.d / 8);
            } else {
                if tile >= 0_i64 {
                    put_planes(c, cache, tile + m.values_at[0] as i64, place, block as u32, code, true, false, m.d);
                }
            }
        }
        add_energy(c, &mut desk.energies, r * 4_i32 + k, energy, 0);
        put_sides(m, c, cache, tile, place, side, k, m.sides_at + 2 * key_sides);
    }
    if m.quads {
        put_kept(c, cache, codes, &desk.tiles, &desk.places, m.values_at[0], m.d);
    }
}
