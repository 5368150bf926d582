//! Which part of which sequence a block takes, from lengths that only the device knows: a captured graph serves new ones.
//!
//! A launch has as many blocks as run at once. Each counts, in its first warp, what all sequences of the batch come to in shares of
//! 2^unit leaves a warp, settles on the unit that ends first, and takes every so manyth share of a head. Shares that are more than
//! half full come first, so that no long one begins when the others have ended; but half of the blocks take their own ones the other way
//! round: a small share is a wait for one thing after another, which a neighbour's large one hides.
//!
//! A sequence of one leaf at most needs only one warp. Where there are many of them, as many of a head as a block has warps are a
//! bundle. Blocks that the last turn of shares leaves free take bundles, as many as end with a share; what is left comes after the
//! shares, to all blocks alike. A bundle takes twice as long as a short sequence alone, so a few of them are shares like others. All
//! blocks count alike, and no choice changes a bit of the result.
//!
//! Where there are more large shares than blocks, but not twice as many, the blocks that would take a second one take two side by side, half of
//! their warps each, which walk twice as many leaves: between two turns nobody reads for some four microseconds, and at the end blocks with a second
//! one would be alone.

use super::decode_attention::DecodeMeta;
use super::leaves::LEAF;
use kernel_dsl::prelude::*;

/// Lanes that count, a run of sequences each.
pub const LANES: usize = 32;

/// What is found, in words of its array: sequence and split of a block's share; the unit, shares and short sequences in bundles of a head; the
/// shares of the block, its turns in all, those of them that take every so manyth of the first bundles, the first one and how many
/// others do, and where it goes on; how many blocks take two shares side by side; sequence and split of the second one.
pub const UNIT: usize = 2;
pub const ALL: usize = 3;
pub const FEW: usize = 4;
pub const OWN: usize = 5;
pub const TURNS: usize = 6;
const BESIDE: usize = 7;
const FIRST: usize = 8;
const FREE: usize = 9;
const AFTER: usize = 10;
pub const PAIRS: usize = 11;
pub const SECOND: usize = 12;
pub const FOUND: usize = 14;

/// Words of a row of places, see [`count_shares`]: what lies before lane 0, then sums up to each lane.
const LINE: usize = LANES / 2 + LANES;
/// Large shares, small ones, short sequences.
pub const PLACES: usize = 3 * LINE;

/// Where a row has the place of lane 0: the sum up to the lane before.
#[device]
fn place_of(row: usize) -> i32 {
    (row * LINE + LANES / 2 - 1) as i32
}

/// Leaves of a block whose warps take 2^unit each.
#[device]
pub fn share(warps: usize, unit: i32) -> i32 {
    (warps as i32) << (unit & 31_i32)
}

/// a / b, of a not below 0 and b above 0: the float quotient is off by one at most.
#[device]
pub fn quotient(a: i32, b: i32) -> i32 {
    let near = (a as f32 / b as f32).floor() as i32;
    let left = a - near * b;
    near + if left >= b { 1_i32 } else { 0_i32 } - if left < 0_i32 { 1_i32 } else { 0_i32 }
}

#[device]
pub fn leaves_of(len: i32, capacity: i32) -> i32 {
    let n = if (len >= 0_i32) & (len <= capacity) { len } else { 0_i32 };
    (n + (LEAF as i32 - 1_i32)) / LEAF as i32
}

/// 1: a sequence for one warp.
#[device]
fn short_of(m: &DecodeMeta, leaves: i32) -> i32 {
    if m.bundles() { if leaves <= 1_i32 { 1_i32 } else { 0_i32 } } else { 0_i32 }
}

/// Shares of so many leaves, one at least: somebody must write the rows.
#[device]
pub fn shares_of(leaves: i32, log_share: i32) -> i32 {
    ((leaves + ((1_i32 << (log_share & 31_i32)) - 1_i32)) >> (log_share & 31_i32)).max(1_i32)
}

/// Those of them, the first ones, that are more than half full.
#[device]
fn large_of(leaves: i32, log_share: i32) -> i32 {
    ((leaves + ((1_i32 << (log_share & 31_i32)) / 2_i32 - 1_i32)) >> (log_share & 31_i32)).max(0_i32)
}

/// Row of a unit's counts: of large shares, then of all. After those of all units come short sequences.
#[device]
fn row_of(unit: i32) -> i32 {
    unit * (2 * LANES) as i32
}

/// Shares of each lane's sequences, [unit, large or all, lane], and short ones; the places of its first large one, its first small
/// one under the unit that is chosen and its first short sequence, [3, lane]; and what `block` must know: the unit, below 0 what ends
/// first, how many there are, and what its own are. A bundle takes as long as a leaf of a warp's share.
#[device]
#[allow(clippy::too_many_arguments)]
pub fn count_shares(m: &DecodeMeta, lens: &Global<i32>, batch: i32, capacity: i32, kv_heads: i32, block: i32, blocks: i32, unit: i32, counts: &mut Shared<i32>, places: &mut Shared<i32>, found: &mut Shared<i32>) {
    let each = (batch + (LANES as i32 - 1_i32)) / LANES as i32;
    let short_row = (2 * LANES * (m.depth + 1)) as i32;
    for _ in warps(1) {
        for t in lanes(LANES) {
            let (mut large, mut all, mut short) = ([0_i32; 6], [0_i32; 6], 0_i32);
            for s in strided(t * each, batch.min((t + 1_i32) * each), 1) {
                let leaves = leaves_of(lens.at(s), capacity);
                for u in 0..m.depth + 1 {
                    large[u] = large[u] + large_of(leaves, (m.log_warps() + u) as i32);
                    all[u] = all[u] + shares_of(leaves, (m.log_warps() + u) as i32);
                }
                short = short + short_of(m, leaves);
            }
            for u in 0..m.depth + 1 {
                counts.put(t + (2 * LANES * u) as i32, large[u]);
                counts.put(t + (2 * LANES * u + LANES) as i32, all[u]);
            }
            counts.put(t + short_row, short);
        }
        sync_warp();
        let mut short = 0_i32;
        if m.bundles() {
            let n = counts.row(short_row, LANES).sum();
            short = if n * kv_heads > 2_i32 * blocks { n } else { 0_i32 };
        }
        let best = if unit >= 0_i32 { unit } else { best_unit(m, counts, short, kv_heads, blocks) };
        let small_from = counts.row(row_of(best), LANES).sum();
        for t in lanes(LANES) {
            let (large, short_own) = (counts.at(row_of(best) + t), counts.at(short_row + t));
            let all = counts.at(row_of(best) + LANES as i32 + t) - if short > 0_i32 { short_own } else { 0_i32 };
            let own = [large, all - large, short_own];
            for row in 0..3 {
                places.put(place_of(row) + 1_i32 + t, own[row]);
                // What lies before lane 0: small shares come after all large ones.
                if t < (LANES / 2) as i32 {
                    places.put(place_of(row) - t, if (row == 1) & (t == 0_i32) { small_from } else { 0_i32 });
                }
            }
        }
        sync_warp();
        for k in 0..5 {
            let sums = [up_to(places, 0, 1 << k), up_to(places, 1, 1 << k), up_to(places, 2, 1 << k)];
            sync_warp();
            for row in 0..3 {
                places.put_row(place_of(row) + 1_i32, &sums[row]);
            }
            sync_warp();
        }
        let total = counts.row(row_of(best) + LANES as i32, LANES).sum() - short;
        for _ in lanes(1) {
            found.put(UNIT, best);
            found.put(ALL, total);
            found.put(FEW, short);
            let large = small_from * kv_heads;
            let mut pairs = 0_i32;
            if m.pairs() {
                pairs = if (large > blocks) & (large <= 2_i32 * blocks) & (short == 0_i32) & (best < m.depth as i32) { large - blocks } else { 0_i32 };
            }
            found.put(PAIRS, pairs);
            // The second of a pair is nobody's turn.
            let items = total * kv_heads - pairs;
            let turns = quotient(items + (blocks - 1_i32), blocks);
            // Place among those that are free in the last turn of shares.
            let place = (turns - 1_i32) * blocks + place_in(turns - 1_i32, block, blocks) - items;
            let own = turns - if (turns > 0_i32) & (place >= 0_i32) { 1_i32 } else { 0_i32 };
            found.put(OWN, own);
            found.put(TURNS, own);
            if short > 0_i32 {
                let bundles = (short + (m.warps as i32 - 1_i32)) / m.warps as i32 * kv_heads;
                let free = turns * blocks - items;
                let early = bundles.min((1_i32 << (best & 31_i32)) * free);
                let beside = own + if own < turns { quotient((early - place + (free - 1_i32)).max(0_i32), free.max(1_i32)) } else { 0_i32 };
                found.put(TURNS, beside + quotient((bundles - early - block + (blocks - 1_i32)).max(0_i32), blocks));
                found.put(BESIDE, beside);
                found.put(FIRST, place - own * free);
                found.put(FREE, free);
                found.put(AFTER, early + block - beside * blocks);
            }
        }
    }
}

/// A row of places, and to each what lies `back` words before it.
#[device]
fn up_to(places: &Shared<i32>, row: usize, back: usize) -> Tile<i32> {
    places.row(place_of(row) + 1_i32, LANES) + &places.row(place_of(row) + 1_i32 - back as i32, LANES)
}

/// The unit that ends first, the smaller one of two.
#[device]
fn best_unit(m: &DecodeMeta, counts: &Shared<i32>, short: i32, kv_heads: i32, blocks: i32) -> i32 {
    let mut best = m.depth as i32;
    let mut least = f32::INFINITY;
    for down in 0..m.depth + 1 - m.least() {
        let unit = (m.depth - down) as i32;
        let time = time_of(m, (counts.row(row_of(unit) + LANES as i32, LANES).sum() - short) * kv_heads, blocks, m.depth - down);
        best = if time <= least { unit } else { best };
        least = fmin(time, least);
    }
    best
}

/// What so many shares take, in quarters of a leaf: so many turns of `blocks` blocks, a turn its leaves and some quarters for its start and end.
/// Where blocks are free in the last one, the others have more of the memory: up to twice as much.
#[device]
pub fn time_of(m: &DecodeMeta, shares: i32, blocks: i32, unit: usize) -> f32 {
    let all = shares as f32 / blocks as f32;
    let (turns, full) = (all.ceil(), all.floor());
    turns * m.pause() + (full + if turns > full { fmax(all - full, 0.5_f32) } else { 0.0_f32 }) * (4 << unit) as f32
}

/// Place of a block in a turn: to and fro, so that those that began with the first shares do not get the first of the next turn too.
#[device]
pub fn place_in(turn: i32, block: i32, blocks: i32) -> i32 {
    if (turn & 1_i32) == 0_i32 { block } else { blocks - 1_i32 - block }
}

/// The turn of a block with `left` to come, below 0. The upper half of the blocks goes backwards: of two blocks of a multiprocessor one
/// then reads a large share while the other waits for small ones.
#[device]
pub fn turn_of(left: i32, turns: i32, block: i32, blocks: i32) -> i32 {
    if 2_i32 * block >= blocks { -1_i32 - left } else { left + turns }
}

/// The bundle of a block's turn after its shares.
#[device]
pub fn bundle_of(found: &Shared<i32>, turn: i32, blocks: i32) -> i32 {
    if turn < found.at(BESIDE) { found.at(FIRST) + turn * found.at(FREE) } else { found.at(AFTER) + turn * blocks }
}

/// Sequences and splits of the `item`-th and of the `other`-th share go into `found`, of those that there are.
#[device]
#[allow(clippy::too_many_arguments)]
pub fn find_shares(m: &DecodeMeta, lens: &Global<i32>, batch: i32, capacity: i32, counts: &Shared<i32>, places: &Shared<i32>, found: &mut Shared<i32>, unit: i32, item: i32, other: i32) {
    let (each, log) = ((batch + (LANES as i32 - 1_i32)) / LANES as i32, unit + m.log_warps() as i32);
    for _ in warps(1) {
        for t in lanes(LANES) {
            let large = counts.at(row_of(unit) + t);
            let bundled = found.at(FEW) > 0_i32;
            let small = counts.at(row_of(unit) + LANES as i32 + t) - large - if bundled { counts.at((2 * LANES * (m.depth + 1)) as i32 + t) } else { 0_i32 };
            for side in 0..m.sides() {
                let item = if side == 0 { item } else { other };
                let (of_large, of_small) = (item - places.at(place_of(0) + t), item - places.at(place_of(1) + t));
                let is_large = (of_large >= 0_i32) & (of_large < large);
                if is_large | (of_small >= 0_i32) & (of_small < small) {
                    let mut left = if is_large { of_large } else { of_small };
                    for s in strided(t * each, batch.min((t + 1_i32) * each), 1) {
                        let leaves = leaves_of(lens.at(s), capacity);
                        let large = large_of(leaves, log);
                        let apart = if bundled { short_of(m, leaves) } else { 0_i32 };
                        let count = if is_large { large } else { shares_of(leaves, log) - large - apart };
                        if (left >= 0_i32) & (left < count) {
                            found.put(side * SECOND, s);
                            found.put(side * SECOND + 1, if is_large { left } else { large + left });
                        }
                        left = left - count;
                    }
                }
            }
        }
    }
}

/// The short sequences of a bundle, the `bundle`-th of its head, go into `short`, one a warp.
#[device]
#[allow(clippy::too_many_arguments)]
pub fn find_short(m: &DecodeMeta, lens: &Global<i32>, batch: i32, capacity: i32, places: &Shared<i32>, found: &Shared<i32>, short: &mut Shared<i32>, bundle: i32) {
    for _ in warps(1) {
        for w in lanes(m.warps) {
            short.put(w, short_at(m, lens, batch, capacity, places, found, bundle * m.warps as i32 + w));
        }
    }
}

/// The `item`-th short sequence, below 0: there is none.
#[device]
#[allow(clippy::too_many_arguments)]
pub fn short_at(m: &DecodeMeta, lens: &Global<i32>, batch: i32, capacity: i32, places: &Shared<i32>, found: &Shared<i32>, item: i32) -> i32 {
    let each = (batch + (LANES as i32 - 1_i32)) / LANES as i32;
    // The last lane that does not begin after it.
    let mut t = 0_i32;
    for k in 0..5 {
        let next = t + (16 >> k) as i32;
        t = if places.at(place_of(2) + next) <= item { next } else { t };
    }
    let mut left = item - places.at(place_of(2) + t);
    let mut seq = -1_i32;
    for s in strided(t * each, batch.min((t + 1_i32) * each), 1) {
        let own = short_of(m, leaves_of(lens.at(s), capacity));
        seq = if (own > 0_i32) & (left == 0_i32) { s } else { seq };
        left = left - own;
    }
    if item < found.at(FEW) { seq } else { -1_i32 }
}
