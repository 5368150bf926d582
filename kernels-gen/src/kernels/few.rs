//! Which parts of a few sequences a block takes. Every warp finds it by itself, one sequence after another: where a launch takes some ten
//! microseconds, counting as for many ([`super::schedule`]) is one of them. Shares come in the order of sequences, to and fro like
//! those of many.

use super::decode_attention::DecodeMeta;
use super::schedule::{OWN, PAIRS, TURNS, UNIT, leaves_of, place_in, quotient, shares_of, time_of};
use kernel_dsl::prelude::*;

/// Most sequences that are few.
pub const FEW: usize = 8;

/// log2 of a warp's leaves, `unit` or, if that is below 0, what ends first, and how many shares a block takes: into `found`, lest they take registers.
#[device]
#[allow(clippy::too_many_arguments)]
pub fn count_few(m: &DecodeMeta, lens: &Global<i32>, batch: i32, capacity: i32, kv_heads: i32, block: i32, blocks: i32, unit: i32, found: &mut Shared<i32>) {
    let mut all = [0_i32; 6];
    for s in strided(0_i32, batch, 1) {
        let leaves = leaves_of(lens.at(s), capacity);
        for u in 0..m.depth + 1 {
            all[u] = all[u] + shares_of(leaves, (m.log_warps() + u) as i32);
        }
    }
    // Where every share has a block of its own under the least unit, nothing ends sooner.
    let mut best = if unit >= 0_i32 { unit } else { m.least() as i32 };
    if (unit < 0_i32) & (all[m.least()] * kv_heads > blocks) {
        let mut least = f32::INFINITY;
        for down in 0..m.depth + 1 - m.least() {
            let time = time_of(m, all[m.depth - down] * kv_heads, blocks, m.depth - down);
            best = if time <= least { (m.depth - down) as i32 } else { best };
            least = fmin(time, least);
        }
    }
    let mut items = 0_i32;
    for u in 0..m.depth + 1 {
        items = if best == u as i32 { all[u] * kv_heads } else { items };
    }
    let mut turns = if block < items { 1_i32 } else { 0_i32 };
    if items > blocks {
        turns = quotient(items + (blocks - 1_i32), blocks);
        let last = (turns - 1_i32) * blocks + place_in(turns - 1_i32, block, blocks);
        turns = turns - if last >= items { 1_i32 } else { 0_i32 };
    }
    for _ in threads(1) {
        found.put(UNIT, best);
        found.put(PAIRS, 0_i32);
        found.put(OWN, turns);
        found.put(TURNS, turns);
    }
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

/// Sequence and split of a head's `item`-th share where every sequence has `splits` of them: nobody reads a length.
#[device]
pub fn seat_of(item: i32, splits: i32) -> (i32, i32) {
    let seq = quotient(item, splits);
    (seq, item - seq * splits)
}
