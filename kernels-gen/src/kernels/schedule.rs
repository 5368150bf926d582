//! Which part of which sequence a block takes, from lengths that only the device knows: a captured graph serves new ones.
//!
//! A launch has as many blocks a kv head as run at once, or one for every sequence. Each counts, in its first warp, what all
//! sequences of the batch come to in shares of 2^unit leaves a warp, settles on the unit that ends first, and takes every so
//! manyth share. Shares that are more than half full come first, so that no long one begins when the others have ended: long
//! sequences are spread, short ones fill what is left. All blocks count alike, and no choice changes a bit of the result.

use super::decode_attention::DecodeMeta;
use super::leaves::LEAF;
use kernel_dsl::prelude::*;

/// Lanes that count, a run of sequences each.
pub const LANES: usize = 32;

/// What `count_shares` finds, in words of its array; the first two are the sequence and the split of a block's turn.
pub const UNIT: usize = 2;
pub const ALL: usize = 3;

/// Leaves of a block whose warps take 2^unit each.
#[device]
pub fn share(warps: usize, unit: i32) -> i32 {
    (warps as i32) << (unit & 31_i32)
}

#[device]
fn leaves_of(len: i32, capacity: i32) -> i32 {
    let n = if (len >= 0_i32) & (len <= capacity) { len } else { 0_i32 };
    (n + (LEAF as i32 - 1_i32)) / LEAF as i32
}

/// Shares of so many leaves, one at least: somebody must write the rows.
#[device]
fn shares_of(leaves: i32, log_share: i32) -> i32 {
    ((leaves + ((1_i32 << (log_share & 31_i32)) - 1_i32)) >> (log_share & 31_i32)).max(1_i32)
}

/// Those of them, the first ones, that are more than half full.
#[device]
fn large_of(leaves: i32, log_share: i32) -> i32 {
    ((leaves + ((1_i32 << (log_share & 31_i32)) / 2_i32 - 1_i32)) >> (log_share & 31_i32)).max(0_i32)
}

/// Row of a unit's counts: of large shares, then of all.
#[device]
fn row_of(unit: i32) -> i32 {
    unit * (2 * LANES) as i32
}

/// Shares of each lane's sequences, [unit, large or all, lane], the places of its first large and its first small one under the
/// unit that is chosen, [2, lane], and what blocks must know: the unit, below 0 what ends first, and the number of shares.
#[device]
#[allow(clippy::too_many_arguments)]
pub fn count_shares(m: &DecodeMeta, lens: &Global<i32>, batch: i32, capacity: i32, blocks: i32, unit: i32, counts: &mut Shared<i32>, places: &mut Shared<i32>, found: &mut Shared<i32>) {
    let each = (batch + (LANES as i32 - 1_i32)) / LANES as i32;
    for _ in warps(1) {
        for t in lanes(LANES) {
            let (mut large, mut all) = ([0_i32; 6], [0_i32; 6]);
            for s in strided(t * each, batch.min((t + 1_i32) * each), 1) {
                let leaves = leaves_of(lens.at(s), capacity);
                for u in 0..m.depth + 1 {
                    large[u] = large[u] + large_of(leaves, (m.log_warps() + u) as i32);
                    all[u] = all[u] + shares_of(leaves, (m.log_warps() + u) as i32);
                }
            }
            for u in 0..m.depth + 1 {
                counts.put(t + (2 * LANES * u) as i32, large[u]);
                counts.put(t + (2 * LANES * u + LANES) as i32, all[u]);
            }
        }
        sync_warp();
        let best = if unit >= 0_i32 { unit } else { best_unit(m, counts, blocks) };
        let small_from = counts.row(row_of(best), LANES).sum();
        for t in lanes(LANES) {
            let (mut large, mut all) = (0_i32, 0_i32);
            for i in strided(0_i32, batch.min(LANES as i32 - 1_i32), 1) {
                large = large + if i < t { counts.at(row_of(best) + i) } else { 0_i32 };
                all = all + if i < t { counts.at(row_of(best) + LANES as i32 + i) } else { 0_i32 };
            }
            places.put(t, large);
            places.put(t + LANES as i32, small_from + all - large);
        }
        let total = counts.row(row_of(best) + LANES as i32, LANES).sum();
        for _ in lanes(1) {
            found.put(UNIT, best);
            found.put(ALL, total);
        }
    }
}

/// The unit that ends first, the larger one of two: so many turns of `blocks` blocks, a turn takes its leaves and a quarter of
/// one for its start and end.
#[device]
fn best_unit(m: &DecodeMeta, counts: &Shared<i32>, blocks: i32) -> i32 {
    let mut best = m.depth as i32;
    let mut least = f32::INFINITY;
    for down in 0..m.depth + 1 - m.least() {
        let unit = (m.depth - down) as i32;
        let all = counts.row(row_of(unit) + LANES as i32, LANES).sum();
        let turns = (all as f32 / blocks as f32).ceil();
        let time = turns * ((4 << (m.depth - down)) + 1) as f32;
        best = if time < least { unit } else { best };
        least = fmin(least, time);
    }
    best
}

/// Sequence and split of the `item`-th share go into `found`, if there is one.
#[device]
#[allow(clippy::too_many_arguments)]
pub fn find_share(m: &DecodeMeta, lens: &Global<i32>, batch: i32, capacity: i32, counts: &Shared<i32>, places: &Shared<i32>, found: &mut Shared<i32>, unit: i32, item: i32) {
    let (each, log) = ((batch + (LANES as i32 - 1_i32)) / LANES as i32, unit + m.log_warps() as i32);
    for _ in warps(1) {
        for t in lanes(LANES) {
            let large = counts.at(row_of(unit) + t);
            let small = counts.at(row_of(unit) + LANES as i32 + t) - large;
            let (of_large, of_small) = (item - places.at(t), item - places.at(t + LANES as i32));
            let is_large = (of_large >= 0_i32) & (of_large < large);
            if is_large | (of_small >= 0_i32) & (of_small < small) {
                let mut left = if is_large { of_large } else { of_small };
                for s in strided(t * each, batch.min((t + 1_i32) * each), 1) {
                    let leaves = leaves_of(lens.at(s), capacity);
                    let large = large_of(leaves, log);
                    let count = if is_large { large } else { shares_of(leaves, log) - large };
                    if (left >= 0_i32) & (left < count) {
                        found.put(0, s);
                        found.put(1, if is_large { left } else { large + left });
                    }
                    left = left - count;
                }
            }
        }
    }
}
