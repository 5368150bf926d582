//! Which parts of a few sequences a block takes. Each warp finds it by itself, with no word of shared memory and no barrier: where a
//! launch takes some ten microseconds, counting as for many ([`super::schedule`]) is one of them. Shares come in the order of
//! sequences, to and fro like those of many.

use super::decode_attention::DecodeMeta;
use super::schedule::{leaves_of, place_in, quotient, shares_of, time_of};
use kernel_dsl::prelude::*;

/// Most sequences that are few.
pub const FEW: usize = 8;

/// log2 of a warp's leaves, `unit` or, if that is below 0, what ends first; and how many shares a block takes.
#[device]
#[allow(clippy::too_many_arguments)]
pub fn count_few(m: &DecodeMeta, lens: &Global<i32>, batch: i32, capacity: i32, kv_heads: i32, block: i32, blocks: i32, unit: i32) -> (i32, i32) {
    let mut all = [0_i32; 6];
    for s in strided(0_i32, batch, 1) {
        let leaves = leaves_of(lens.at(s), capacity);
        for u in 0..m.depth + 1 {
            all[u] = all[u] + shares_of(leaves, (m.log_warps() + u) as i32);
        }
    }
    let (mut best, mut items, mut least) = (m.depth as i32, 0_i32, f32::INFINITY);
    for down in 0..m.depth + 1 {
        let u = m.depth - down;
        let shares = all[u] * kv_heads;
        let time = if u < m.least() { f32::INFINITY } else { time_of(shares, blocks, u) };
        let better = if unit >= 0_i32 { unit == u as i32 } else { time <= least };
        best = if better { u as i32 } else { best };
        items = if better { shares } else { items };
        least = fmin(time, least);
    }
    let turns = quotient(items + (blocks - 1_i32), blocks);
    let last = (turns - 1_i32) * blocks + place_in(turns - 1_i32, block, blocks);
    (best, turns - if last >= items { 1_i32 } else { 0_i32 })
}

/// Sequence and split of the `item`-th share of a head.
#[device]
pub fn find_few(m: &DecodeMeta, lens: &Global<i32>, batch: i32, capacity: i32, unit: i32, item: i32) -> (i32, i32) {
    let (mut seq, mut split) = (0_i32, item);
    for s in strided(0_i32, batch - 1_i32, 1) {
        let count = shares_of(leaves_of(lens.at(s), capacity), unit + m.log_warps() as i32);
        let after = (seq == s) & (split >= count);
        split = split - if after { count } else { 0_i32 };
        seq = seq + if after { 1_i32 } else { 0_i32 };
    }
    (seq, split)
}
