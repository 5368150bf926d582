//! Two models' logits at one position compared: losses, KL divergence over the whole vocabulary, best tokens.
//!
//! Only f32, so the formulas are chosen not to cancel. With d = ln p - ln q, KL is the sum of p (d + e^-d - 1), whose
//! terms are not negative; d is a difference of logits less one number of the whole row, so equal rows give exactly 0.
//! A thread adds every 256th token in order, the row of partial sums has the order of `Tile::sum`.
//!
//! Cost: reads both rows three times, mostly from the cache; bound by memory.

use super::{THREADS, exponential};
use kernel_dsl::prelude::*;

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ScoresMeta;

/// Numbers that a position gets.
pub const NUMBERS: usize = 8;

impl Meta for ScoresMeta {
    fn launch(&self) -> Launch {
        Launch { warps: THREADS / 32, min_blocks: 1 }
    }
}

/// d + e^-d - 1, times p. `q` is p e^-d.
#[device]
fn divergence(d: f32, p: f32, q: f32) -> f32 {
    let a = 0.0013888889_f32.mul_add(d, -0.008333334_f32);
    let b = a.mul_add(d, 0.041666668_f32);
    let c = b.mul_add(d, -0.16666667_f32);
    let near = p * (d * d * c.mul_add(d, 0.5_f32));
    if d.abs() < 0.25_f32 { near } else { p * (d - 1.0_f32) + q }
}

/// The index that is the least among those whose value is `top`.
#[device]
fn first_of(tops: &Tile<f32>, places: &Tile<f32>, top: f32) -> f32 {
    -tops.map2(places, |t, at| if t == top { -at } else { -1.0e9_f32 }).max()
}

#[kernel]
pub fn scores(
    _m: ScoresMeta,
    base: &Global<f32>,    // [positions, vocab]
    coded: &Global<f32>,   // [positions, vocab]
    gold: &Global<i32>,    // [positions]: the token that came
    out: &mut Global<f32>, // [positions, 8]: loss of base, its gap, KL, KL above -16 nats, change of p, same top, base's lead, not finite
    vocab: i32,
) {
    let row = block_id(0) as i64 * vocab as i64;
    // best, its place, second best of base; best, its place of coded; numbers that are none
    let mut found = shared::<f32>(6 * THREADS);
    for i in threads(THREADS) {
        let (mut best, mut place, mut second) = (f32::NEG_INFINITY, 0.0_f32, f32::NEG_INFINITY);
        let (mut other, mut other_place, mut odd) = (f32::NEG_INFINITY, 0.0_f32, 0.0_f32);
        for t in strided(i, vocab, THREADS) {
            let (b, c) = (base.at(row + t as i64), coded.at(row + t as i64));
            second = fmax(second, if b > best { best } else { b });
            place = if b > best { t as f32 } else { place };
            best = fmax(best, b);
            other_place = if c > other { t as f32 } else { other_place };
            other = fmax(other, c);
            odd = odd + if (b - b) + (c - c) == 0.0_f32 { 0.0_f32 } else { 1.0_f32 };
        }
        found.put(i, best);
        found.put(i + THREADS as i32, place);
        found.put(i + (2 * THREADS) as i32, second);
        found.put(i + (3 * THREADS) as i32, other);
        found.put(i + (4 * THREADS) as i32, other_place);
        found.put(i + (5 * THREADS) as i32, odd);
    }
    // best, place and second of base; best and place of coded; odd ones
    let mut whole = shared::<f32>(6);
    for _ in warps(1) {
        let (bests, places) = (found.row(0, THREADS), found.row(THREADS, THREADS));
        let (others, other_places) = (found.row(3 * THREADS, THREADS), found.row(4 * THREADS, THREADS));
        let (best, other) = (bests.max(), others.max());
        let place = first_of(&bests, &places, best);
        let seconds = found.row(2 * THREADS, THREADS).map3(&bests, &places, |s, b, at| if at == place { s } else { b });
        whole.put(0, best);
        whole.put(1, place);
        whole.put(2, seconds.max());
        whole.put(3, other);
        whole.put(4, first_of(&others, &other_places, other));
        whole.put(5, found.row(5 * THREADS, THREADS).sum());
    }
    let (best, other) = (whole.at(0), whole.at(3));
    let mut parts = shared::<f32>(2 * THREADS);
    for i in threads(THREADS) {
        let (mut mine, mut theirs) = (0.0_f32, 0.0_f32);
        for t in strided(i, vocab, THREADS) {
            mine = mine + exponential(base.at(row + t as i64) - best);
            theirs = theirs + exponential(coded.at(row + t as i64) - other);
        }
        parts.put(i, mine);
        parts.put(i + THREADS as i32, theirs);
    }
    let mut logs = shared::<f32>(2);
    for _ in warps(1) {
        logs.put(0, log2(parts.row(0, THREADS).sum()) * 0.6931472_f32);
        logs.put(1, log2(parts.row(THREADS, THREADS).sum()) * 0.6931472_f32);
    }
    let shift = (best - other) + (logs.at(0) - logs.at(1));
    let mut losses = shared::<f32>(2 * THREADS);
    for i in threads(THREADS) {
        let (mut kl, mut kept) = (0.0_f32, 0.0_f32);
        for t in strided(i, vocab, THREADS) {
            let (b, c) = (base.at(row + t as i64), coded.at(row + t as i64));
            let lp = (b - best) - logs.at(0);
            let (p, q) = (exponential(lp), exponential((c - other) - logs.at(1)));
            let term = divergence((b - c) - shift, p, q);
            kl = kl + term;
            // What the cut leaves out sums to the difference of what both models give it.
            kept = kept + if lp > -16.0_f32 { term } else { q - p };
        }
        losses.put(i, kl);
        losses.put(i + THREADS as i32, kept);
    }
    for _ in warps(1) {
        let to = block_id(0) as i64 * NUMBERS as i64;
        let at = row + gold.at(block_id(0)) as i64;
        let (b, c) = (base.at(at), coded.at(at));
        let lp = (b - best) - logs.at(0);
        out.put(to, -lp);
        out.put(to + 1_i64, (b - c) - shift);
        out.put(to + 2_i64, losses.row(0, THREADS).sum());
        out.put(to + 3_i64, losses.row(THREADS, THREADS).sum());
        out.put(to + 4_i64, exponential((c - other) - logs.at(1)) - exponential(lp));
        out.put(to + 5_i64, if whole.at(1) == whole.at(4) { 1.0_f32 } else { 0.0_f32 });
        out.put(to + 6_i64, exponential(-logs.at(0)) - exponential((whole.at(2) - best) - logs.at(0)));
        out.put(to + 7_i64, whole.at(5));
    }
}
