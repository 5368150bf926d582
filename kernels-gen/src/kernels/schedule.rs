//! Which part of which sequence a block takes, from lengths that only the device knows: a captured graph serves new ones.
//!
//! A launch has as many blocks a kv head as run at once. Each counts what all sequences of the batch come to in shares of
//! 2^unit leaves a warp, settles on the unit that ends first, and takes every so manyth share: long sequences are spread, short
//! ones cost no block that finds nothing to do. All blocks count alike, and no choice changes a bit of the result.

use super::decode_attention::DecodeMeta;
use super::leaves::LEAF;
use kernel_dsl::prelude::*;

/// Leaves of a block whose warps take 2^unit each.
#[device]
pub fn share(warps: usize, unit: i32) -> i32 {
    (warps as i32) << (unit & 31_i32)
}

/// Shares of a sequence, one at least: somebody must write its rows.
#[device]
fn shares_of(len: i32, capacity: i32, share: i32, log_share: i32) -> i32 {
    let n = if (len >= 0_i32) & (len <= capacity) { len } else { 0_i32 };
    (((n + (LEAF as i32 - 1_i32)) / LEAF as i32 + (share - 1_i32)) >> (log_share & 31_i32)).max(1_i32)
}

/// Shares of each thread's sequences, [unit, thread], and of each warp's threads, [unit, warp]; `found` is made ready.
#[device]
pub fn count_shares(m: &DecodeMeta, lens: &Global<i32>, batch: i32, capacity: i32, counts: &mut Shared<i32>, totals: &mut Shared<i32>, found: &mut Shared<i32>) {
    let each = (batch + (m.threads() as i32 - 1_i32)) / m.threads() as i32;
    for t in threads(m.threads()) {
        let mut sums = [0_i32; 6];
        for s in strided(t * each, batch.min((t + 1_i32) * each), 1) {
            let len = lens.at(s);
            for unit in 0..m.depth + 1 {
                sums[unit] = sums[unit] + shares_of(len, capacity, (m.warps << unit) as i32, (m.log_warps() + unit) as i32);
            }
        }
        for unit in 0..m.depth + 1 {
            counts.put(t + (unit * m.threads()) as i32, sums[unit]);
        }
        if t < 2_i32 {
            found.put(t, 0_i32);
        }
    }
    for w in warps(m.warps) {
        for unit in 0..m.depth + 1 {
            totals.put(w + (unit * m.warps) as i32, counts.row(w * 32_i32 + (unit * m.threads()) as i32, 32).sum());
        }
    }
}

/// All shares under a unit.
#[device]
pub fn all_shares(m: &DecodeMeta, totals: &Shared<i32>, unit: i32) -> i32 {
    let mut sum = 0_i32;
    for w in 0..m.warps {
        sum = sum + totals.at(unit * m.warps as i32 + w as i32);
    }
    sum
}

/// The unit that ends first, the larger one of two: so many turns of `blocks` blocks, a turn takes its leaves and a quarter of
/// one for its start and end.
#[device]
pub fn best_unit(m: &DecodeMeta, totals: &Shared<i32>, blocks: i32) -> i32 {
    let mut best = m.depth as i32;
    let mut least = f32::INFINITY;
    for down in 0..m.depth + 1 - m.least() {
        let unit = (m.depth - down) as i32;
        let turns = (all_shares(m, totals, unit) as f32 / blocks as f32).ceil();
        let time = turns * ((4 << (m.depth - down)) + 1) as f32;
        best = if time < least { unit } else { best };
        least = fmin(least, time);
    }
    best
}

/// Shares of the threads before each.
#[device]
pub fn shares_before(m: &DecodeMeta, counts: &Shared<i32>, totals: &Shared<i32>, before: &mut Shared<i32>, unit: i32) {
    for t in threads(m.threads()) {
        let (warp, lane) = (t / 32_i32, t % 32_i32);
        let mut sum = 0_i32;
        for w in 0..m.warps {
            sum = sum + if (w as i32) < warp { totals.at(unit * m.warps as i32 + w as i32) } else { 0_i32 };
        }
        for i in 0..31 {
            let count = counts.at(unit * m.threads() as i32 + warp * 32_i32 + i as i32);
            sum = sum + if (i as i32) < lane { count } else { 0_i32 };
        }
        before.put(t, sum);
    }
}

/// Sequence and split of the `item`-th share go into `found`, if there is one.
#[device]
pub fn find_share(m: &DecodeMeta, lens: &Global<i32>, batch: i32, capacity: i32, counts: &Shared<i32>, before: &Shared<i32>, found: &mut Shared<i32>, unit: i32, item: i32) {
    let each = (batch + (m.threads() as i32 - 1_i32)) / m.threads() as i32;
    for t in threads(m.threads()) {
        let first = item - before.at(t);
        if (first >= 0_i32) & (first < counts.at(unit * m.threads() as i32 + t)) {
            let mut left = first;
            for s in strided(t * each, batch.min((t + 1_i32) * each), 1) {
                let shares = shares_of(lens.at(s), capacity, share(m.warps, unit), unit + m.log_warps() as i32);
                if (left >= 0_i32) & (left < shares) {
                    found.put(0, s);
                    found.put(1, left);
                }
                left = left - shares;
            }
        }
    }
}
