//! Rows that stay in registers from the last butterflies to their codes: who turns 32 coordinates of a row codes them too,
//! so that only the largest magnitudes cross shared memory.
//!
//! Of codecs that need no more of a row than these, at 128 dims: a quarter of a row a thread. Cost: half of what the plain
//! phases move through shared memory.

use super::codes::{follow, keep, put_kept, put_planes, put_quads, put_tail};
use super::rows::{at_once, side_of, turned_across};
use super::store::{StoreMeta, add_energy, energy_if_corrected};
use crate::codec::Codec;
use kernel_dsl::prelude::*;

/// Whether a codec's rows may be held. Searches of a lattice, four a thread side by side, would not leave the registers.
pub fn holds(bands: &[&dyn Codec], d: usize) -> bool {
    let s = bands[0].spec();
    d == 128 && bands.len() == 1 && at_once(bands[0]) && !s.corrected && (!s.exact() || s.affine || s.odd())
}

/// The row of thread `i`, and which quarter of it: four lanes share a key, four warps a value.
#[device]
fn share_of(i: i32, values: bool) -> (i32, i32) {
    if values { (i & 31_i32, i >> 5_u32) } else { ((i & 28_i32) + (i >> 5_u32), i & 3_i32) }
}

/// The butterflies that are left.
#[device]
#[allow(clippy::too_many_arguments)]
fn hold(m: &StoreMeta, c: &dyn Codec, values: bool, held: &mut ByTurn<f32>, rows: &Shared<u8>, squares: &Shared<f32>, tops: &mut Shared<f32>) {
    for i in threads(128) {
        let (r, k) = share_of(i, values);
        let x = turned_across(c, k, r, rows, squares, tops, m.d, m.inv_sqrt_d);
        for e in 0..32 {
            held.put(i, e, x[e]);
        }
    }
}

/// The code of the `j`-th block of a thread; its tail waits for others.
#[device]
fn coded(c: &dyn Codec, held: &ByTurn<f32>, i: i32, j: usize, side: [f32; 2], tails: &mut Shared<u32>, r: i32, block: i32) -> [u32; 4] {
    let mut y = [0.0_f32; 8];
    for e in 0..8 {
        y[e] = held.at(i, 8 * j + e);
    }
    let code = c.encode(y, side);
    put_tail(c, tails, r, block, code);
    code
}

/// Keys, turned within, become codes in their pages.
#[device]
#[allow(clippy::too_many_arguments)]
pub fn code_held_keys(m: &StoreMeta, c: &dyn Codec, cache: &mut Global<u8>, held: &mut ByTurn<f32>, rows: &Shared<u8>, squares: &Shared<f32>, tops: &mut Shared<f32>, sides: &Shared<f32>, energies: &mut Shared<i32>, tails: &mut Shared<u32>, tiles: &Shared<i64>, places: &Shared<u32>) {
    hold(m, c, false, held, rows, squares, tops);
    for i in threads(128) {
        let (r, k) = share_of(i, false);
        let (tile, place, side) = (tiles.at(r), places.at(r), side_of(c, squares, tops, sides, r, m.d));
        let mut words = [0_u32; 8];
        let mut energy = 0_i32;
        for j in 0..4 {
            let code = coded(c, held, i, j, side, tails, r, k * 4_i32 + j as i32);
            energy = energy + energy_if_corrected(c, code);
            if m.key_quads {
                words = follow(words, code, c.spec().bits);
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
        }
        add_energy(c, energies, r * 4_i32 + k, energy, 0);
    }
}

/// Values likewise.
#[device]
#[allow(clippy::too_many_arguments)]
pub fn code_held_values(m: &StoreMeta, c: &dyn Codec, cache: &mut Global<u8>, held: &mut ByTurn<f32>, rows: &Shared<u8>, squares: &Shared<f32>, tops: &mut Shared<f32>, sides: &Shared<f32>, energies: &mut Shared<i32>, tails: &mut Shared<u32>, codes: &mut Shared<u32>, tiles: &Shared<i64>, places: &Shared<u32>) {
    hold(m, c, true, held, rows, squares, tops);
    for i in threads(128) {
        let (r, k) = share_of(i, true);
        let (tile, place, side) = (tiles.at(r), places.at(r), side_of(c, squares, tops, sides, r, m.d));
        let mut energy = 0_i32;
        for j in 0..4 {
            let block = k * 4_i32 + j as i32;
            let code = coded(c, held, i, j, side, tails, r, block);
            energy = energy + energy_if_corrected(c, code);
            if m.quads {
                keep(c, codes, r, block, code, m.d / 8);
            } else {
                if tile >= 0_i64 {
                    put_planes(c, cache, tile + m.values_at[0] as i64, place, block as u32, code, true, false, m.d);
                }
            }
        }
        add_energy(c, energies, r * 4_i32 + k, energy, 0);
    }
    if m.quads {
        put_kept(c, cache, codes, tiles, places, m.values_at[0], m.d);
    }
}
