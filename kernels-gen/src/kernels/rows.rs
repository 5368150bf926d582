//! Rows on their way into codes: loaded, sanitised, normalised, rotated, and the side values chosen.
//!
//! Butterflies join coordinates in the order 1, 2, 4, 32, 64, .., then 8, 16: a thread that holds every fourth block of
//! eight does the first ones, another that holds 32 neighbours the others. Between them rows lie in shared memory, in
//! 16-byte quads, swizzled so that no two threads meet at a bank.

use crate::codec::Codec;
use kernel_dsl::prelude::*;

/// Rounded to f16 as it is stored; too large ones saturate.
#[device]
pub fn half_of(x: f32) -> f32 {
    f16::from_f32(fmin(x, 65504.0_f32)).to_f32()
}

/// Byte of the `q`-th 16 bytes of row `r`, a row every `line` elements: swizzled, or padded, see [`super::store::StoreMeta::padded`].
#[device]
pub fn quad_at(r: i32, q: i32, line: usize) -> i32 {
    let at = if line % 32 == 0 { q ^ ((r ^ (q >> 3_u32)) & 7_i32) } else { q };
    r * (4 * line) as i32 + (at << 4_u32)
}

/// Byte of the quad `8 k + e` further on than the one at byte `base`: an even one and `e` below 2, or the first of eight.
#[device]
pub fn quad_from(base: i32, k: usize, e: usize, line: usize) -> i32 {
    if line % 32 == 0 { (base ^ ((e ^ (k % 8)) * 16) as i32) + (128 * k) as i32 } else { base + (128 * k + 16 * e) as i32 }
}

/// Eight coordinates of a row.
#[device]
pub fn block_of(rows: &Shared<u8>, r: i32, block: i32, line: usize) -> [f32; 8] {
    let base = quad_at(r, block * 2_i32, line);
    let (a, b) = (rows.load4::<f32>(base), rows.load4::<f32>(quad_from(base, 0, 1, line)));
    [a[0], a[1], a[2], a[3], b[0], b[1], b[2], b[3]]
}

/// Four threads a row, each every fourth block of eight, from memory: see [`turn_own`].
#[device]
pub fn turn_within<T: Float>(c: &dyn Codec, x: &Global<T>, at: i64, j: i32, r: i32, rows: &mut Shared<u8>, squares: &mut Shared<f32>, d: usize, elem: usize) {
    let (row, words) = loaded::<T>(x, at, j, 4, d / 32, elem);
    turn_own(c, row, if elem == 2 { nearly_squared(words, d / 8) } else { squared(row, d / 4) }, j, r, rows, squares, d);
}

/// Sum of the squares of so many coordinates.
#[device]
pub fn squared(x: [f32; 128], count: usize) -> f32 {
    let mut all = [0.0_f32; 4];
    for i in 0..count {
        all[i % 4] = x[i].mul_add(x[i], all[i % 4]);
    }
    (all[0] + all[1]) + (all[2] + all[3])
}

/// The same of so many words of bf16, in half of the instructions: no less than each square, but for 1 % of it.
#[device]
pub fn nearly_squared(words: [u32; 64], count: usize) -> f32 {
    let mut all = [0_u32; 2];
    for i in 0..count {
        all[i % 2] = add_squares_bf16x2(all[i % 2], words[i]);
    }
    // Sums of squares are ordered like their bits, and what is no number lies above them.
    let most = max_u16x2(all[0], all[1]);
    f32::from_bits(most << 16) + f32::from_bits(most & 0xffff_0000_u32)
}

/// Whether coordinates whose squares sum to nearly that need no care.
#[device]
pub fn little(near: f32, limit: f32) -> bool {
    // A sum beyond all floats is not little.
    near <= fmin(limit * limit * 0.99_f32, 3.4028235e38_f32)
}

/// So many coordinates, sanitised; `near`: nearly the sum of their squares.
#[device]
pub fn sanitised(x: [f32; 128], near: f32, limit: f32, count: usize) -> [f32; 128] {
    let mut x = x;
    if !little(near, limit) {
        for i in 0..count {
            x[i] = sanitise(x[i], limit);
        }
    }
    x
}

/// Every fourth block of eight from block `j` on: sanitised, squares summed, and the butterflies that stay
/// within a block or join blocks a multiple of four apart. `squares` takes four sums a row. `near`: see [`sanitised`].
#[device]
pub fn turn_own(c: &dyn Codec, x: [f32; 128], near: f32, j: i32, r: i32, rows: &mut Shared<u8>, squares: &mut Shared<f32>, d: usize) {
    let mut x = x;
    if c.spec().unit {
        let mut sum = squared(x, d / 4);
        let clean = sum <= c.spec().limit * c.spec().limit;
        if !clean {
            for i in 0..d / 4 {
                x[i] = sanitise(x[i], c.spec().limit);
            }
            sum = squared(x, d / 4);
        }
        squares.put(r * 4_i32 + j, sum);
    } else {
        x = sanitised(x, near, c.spec().limit, d / 4);
    }
    if c.spec().rotate {
        for stage in 0..7 {
            let h = 1 << stage;
            if h < d / 4 {
                for p in 0..d / 8 {
                    let low = p / h * 2 * h + p % h;
                    let (a, b) = (x[low], x[low + h]);
                    x[low] = a + b;
                    x[low + h] = a - b;
                }
            }
        }
    }
    let base = quad_at(r, j * 2_i32, d);
    for q in 0..d / 16 {
        rows.save4::<f32>(quad_from(base, q / 2, q % 2, d), [x[4 * q], x[4 * q + 1], x[4 * q + 2], x[4 * q + 3]]);
    }
}

/// Every fourth block of eight from block `j` on.
#[device]
pub fn raw<T: Float>(x: &Global<T>, at: i64, j: i32, d: usize, elem: usize) -> [f32; 128] {
    blocks_at::<T>(x, at, j, 4, d / 32, elem)
}

/// So many blocks of eight of the row at byte `at`, `step` apart, from block `first` on.
#[device]
pub fn blocks_at<T: Float>(x: &Global<T>, at: i64, first: i32, step: usize, count: usize, elem: usize) -> [f32; 128] {
    let (out, _words) = loaded::<T>(x, at, first, step, count, elem);
    out
}

/// The same, with the words that they came in if they are bf16.
#[device]
pub fn loaded<T: Float>(x: &Global<T>, at: i64, first: i32, step: usize, count: usize, elem: usize) -> ([f32; 128], [u32; 64]) {
    let mut out = [0.0_f32; 128];
    let mut words = [0_u32; 64];
    for k in 0..count {
        let byte = at + ((first + (step * k) as i32) * (8 * elem) as i32) as i64;
        let w = x.load4::<u32>(byte);
        let mut more = w;
        if elem == 4 {
            more = x.load4::<u32>(byte + 16_i64);
        }
        for e in 0..4 {
            if elem == 2 {
                words[4 * k + e] = w[e];
                out[8 * k + 2 * e] = f32::from_bits(w[e] << 16);
                out[8 * k + 2 * e + 1] = f32::from_bits(w[e] & 0xffff_0000_u32);
            } else {
                out[8 * k + e] = f32::from_bits(w[e]);
                out[8 * k + 4 + e] = f32::from_bits(more[e]);
            }
        }
    }
    (out, words)
}

/// The butterflies that are left, 32 coordinates a thread, and the factor if it is not kept apart; `tops` takes the largest magnitude of each 32,
/// or, `affine`, the largest coordinate of each 32 and then, from `d` on, the least.
#[device]
pub fn turned_across(c: &dyn Codec, k: i32, r: i32, rows: &Shared<u8>, squares: &Shared<f32>, tops: &mut Shared<f32>, d: usize, inv_sqrt_d: f32) -> [f32; 32] {
    let mut x = [0.0_f32; 32];
    let base = quad_at(r, k * 8_i32, d);
    for q in 0..8 {
        let w = rows.load4::<f32>(quad_from(base, 0, q, d));
        for e in 0..4 {
            x[4 * q + e] = w[e];
        }
    }
    if c.spec().rotate {
        for stage in 3..5 {
            let h = 1 << stage;
            for p in 0..16 {
                let low = p / h * 2 * h + p % h;
                let (a, b) = (x[low], x[low + h]);
                x[low] = a + b;
                x[low + h] = a - b;
            }
        }
    }
    let turned = if c.spec().rotate & !c.spec().spread { inv_sqrt_d } else { 1.0_f32 };
    let factor = if c.spec().unit { turned / fmax(norm_of(squares, r), 1.1920929e-7_f32) } else { turned };
    if (c.spec().rotate | c.spec().unit) & !c.spec().apart {
        for i in 0..32 {
            // Where signs are stored as they are no zero has one.
            x[i] = if c.spec().corrected { x[i].mul_add(factor, 0.0_f32) } else { x[i] * factor };
        }
    }
    let top = top_of(c, x);
    // Of rounded products the largest is the product of the largest.
    put_top(c, if c.spec().apart { [top[0] * factor, top[1]] } else { top }, k, r, tops, d);
    x
}

/// What divides a row that is coded as the butterflies leave it; `root`: that of its dims.
#[device]
pub fn over_of(c: &dyn Codec, squares: &Shared<f32>, r: i32, root: f32) -> f32 {
    let turned = if c.spec().rotate & !c.spec().spread { root } else { 1.0_f32 };
    if c.spec().apart & c.spec().unit { fmax(norm_of(squares, r), 1.1920929e-7_f32) * turned } else { turned }
}

/// Code of a block of a row that [`turned_across`] left; `over`: see [`over_of`].
#[device]
pub fn code_of(c: &dyn Codec, y: [f32; 8], side: [f32; 2], over: f32) -> [u32; 4] {
    if c.spec().apart { c.encode_over(y, side, over) } else { c.encode(y, side) }
}

/// What codes of 32 coordinates depend on: their largest magnitude, or, `affine`, the largest and the least of them.
#[device]
pub fn top_of(c: &dyn Codec, x: [f32; 32]) -> [f32; 2] {
    let (mut most, mut least) = (if c.spec().affine { x[0] } else { 0.0_f32 }, x[0]);
    for i in 0..32 {
        most = if c.spec().affine { greater(most, x[i]) } else { farther(most, x[i]) };
        least = lesser(least, x[i]);
    }
    [most, least]
}

/// The same, `affine`, of 16 words of bf16.
#[device]
pub fn ends_of(words: [u32; 64]) -> [f32; 2] {
    let (mut most, mut least) = (words[0], words[0]);
    for i in 1..16 {
        most = greater_bf16x2(most, words[i]);
        least = lesser_bf16x2(least, words[i]);
    }
    [greater(f32::from_bits(most << 16), f32::from_bits(most & 0xffff_0000_u32)), lesser(f32::from_bits(least << 16), f32::from_bits(least & 0xffff_0000_u32))]
}

/// Leaves that of a row's `k`-th 32 coordinates for the others who hold it.
#[device]
pub fn put_top(c: &dyn Codec, top: [f32; 2], k: i32, r: i32, tops: &mut Shared<f32>, d: usize) {
    // Codecs that correct their sides ask for no more than a row's norm.
    if !c.spec().corrected {
        tops.put(r * (d / 32) as i32 + k, top[0]);
        if c.spec().affine {
            tops.put(r * (d / 32) as i32 + k + d as i32, top[1]);
        }
    }
}

/// Back to shared memory with them, where others code them.
#[device]
#[allow(clippy::too_many_arguments)]
pub fn turn_across(c: &dyn Codec, k: i32, r: i32, rows: &mut Shared<u8>, squares: &Shared<f32>, tops: &mut Shared<f32>, d: usize, inv_sqrt_d: f32) {
    let x = turned_across(c, k, r, rows, squares, tops, d, inv_sqrt_d);
    let base = quad_at(r, k * 8_i32, d);
    for q in 0..8 {
        rows.save4::<f32>(quad_from(base, 0, q, d), [x[4 * q], x[4 * q + 1], x[4 * q + 2], x[4 * q + 3]]);
    }
}

/// The least coordinate of a row; of two zeros the positive one.
#[device]
fn least_of(tops: &Shared<f32>, r: i32, d: usize) -> f32 {
    let mut least = f32::INFINITY;
    for k in 0..d / 32 {
        least = lesser(least, tops.at(r * (d / 32) as i32 + k as i32 + d as i32));
    }
    least + 0.0_f32
}

/// The largest magnitude of a row; of an `affine` codec its largest coordinate.
#[device]
fn most_of(tops: &Shared<f32>, r: i32, affine: bool, d: usize) -> f32 {
    let (mut top, mut bits) = (f32::NEG_INFINITY, 0_i32);
    for k in 0..d / 32 {
        let own = tops.at(r * (d / 32) as i32 + k as i32);
        if affine {
            top = greater(top, own);
        } else {
            // Magnitudes are ordered like their bits.
            bits = bits.max(own.to_bits() as i32);
        }
    }
    if affine { top } else { f32::from_bits(bits as u32) }
}

/// The l2 norm of a row.
#[device]
fn norm_of(squares: &Shared<f32>, r: i32) -> f32 {
    let s = squares.load4::<f32>(r * 16_i32);
    ((s[0] + s[1]) + (s[2] + s[3])).sqrt()
}

/// Whether the side values that a row is coded with follow at once from its norm and its largest magnitude: then no thread
/// waits for them.
#[device]
pub fn at_once(c: &dyn Codec) -> bool {
    (c.spec().tries == 1) & (c.spec().searches == 0) & (c.spec().group == 0)
}

/// The side values that follow at once.
#[device]
fn wanted_of(c: &dyn Codec, squares: &Shared<f32>, tops: &Shared<f32>, r: i32, d: usize) -> [f32; 2] {
    let norm = if c.spec().unit { norm_of(squares, r) } else { if c.spec().affine { least_of(tops, r, d) } else { 0.0_f32 } };
    c.trial(norm, if c.spec().corrected { 0.0_f32 } else { most_of(tops, r, c.spec().affine, d) }, 0)
}

/// The side values that row `r` is coded with.
#[device]
pub fn side_of(c: &dyn Codec, squares: &Shared<f32>, tops: &Shared<f32>, sides: &Shared<f32>, r: i32, d: usize) -> [f32; 2] {
    if at_once(c) {
        let wanted = wanted_of(c, squares, tops, r, d);
        if c.spec().affine { wanted } else { [half_of(wanted[0]), half_of(wanted[1])] }
    } else {
        [sides.at(r * 4_i32), sides.at(r * 4_i32 + 1_i32)]
    }
}

/// Those that are stored for it; `energies`: see [`Codec::energy`].
#[device]
pub fn stored_of(c: &dyn Codec, squares: &Shared<f32>, tops: &Shared<f32>, sides: &Shared<f32>, energies: &Shared<i32>, r: i32, d: usize) -> [f32; 2] {
    if at_once(c) {
        let own = side_of(c, squares, tops, sides, r, d);
        let mut energy = 0_i32;
        if c.spec().corrected {
            for part in 0..4 {
                energy = energy + energies.at(r * 4_i32 + part as i32);
            }
        }
        let fixed = if c.spec().corrected { c.correct(own, energy as f32) } else { own };
        [half_of(fixed[0]), half_of(fixed[1])]
    } else {
        [sides.at(r * 4_i32 + 2_i32), sides.at(r * 4_i32 + 3_i32)]
    }
}

/// The side values of a row: those it is coded with, then those that are stored.
#[device]
pub fn choose(bands: &[&dyn Codec], rows: &Shared<u8>, squares: &Shared<f32>, tops: &Shared<f32>, sides: &mut Shared<f32>, r: i32, d: usize) {
    let norm = if bands[0].spec().unit { norm_of(squares, r) } else { if bands[0].spec().affine { least_of(tops, r, d) } else { 0.0_f32 } };
    let top = most_of(tops, r, bands[0].spec().affine, d);
    let mut side = [0.0_f32; 2];
    let mut stored = [0.0_f32; 2];
    let mut least = 0.0_f32;
    for t in 0..bands[0].spec().tries {
        let wanted = bands[0].trial(norm, top, t);
        let own = if bands[0].spec().affine { wanted } else { [half_of(wanted[0]), half_of(wanted[1])] };
        let (mut error, mut energy) = (0.0_f32, 0_i32);
        if (bands[0].spec().tries > 1) | bands[0].spec().corrected {
            let gain = if bands[0].spec().unit { fmax(norm, 1.1920929e-7_f32) } else { 1.0_f32 };
            let scale = bands[0].scale(own);
            for band in 0..bands.len() {
                for block in strided(0_i32, (d / 8 / bands.len()) as i32, 1) {
                    let y = block_of(rows, r, block + (band * (d / 8 / bands.len())) as i32, d);
                    let steps = steps_of(bands[band], bands[band].decode(bands[band].encode(y, own)));
                    for i in 0..8 {
                        let off = y[i] * gain - scale * (steps[i] as f32 * 0.5_f32);
                        error = off.mul_add(off, error);
                        energy = energy + steps[i] * steps[i];
                    }
                }
            }
        }
        let better = (error < least) | (t == 0);
        let fixed = if bands[0].spec().corrected { bands[0].correct(own, energy as f32) } else { own };
        for e in 0..2 {
            side[e] = if better { own[e] } else { side[e] };
            stored[e] = if better { half_of(fixed[e]) } else { stored[e] };
        }
        least = if better { error } else { least };
    }
    for e in 0..2 {
        sides.put(r * 4_i32 + e as i32, side[e]);
        sides.put(r * 4_i32 + 2_i32 + e as i32, stored[e]);
    }
}

/// `2 * lane - zero2` of the eight lanes of a code word.
#[device]
pub fn steps_of(c: &dyn Codec, w: [u32; 4]) -> [i32; 8] {
    let mut steps = [0_i32; 8];
    for i in 0..8 {
        let low = (w[i / 4] >> (8 * (i % 4))) & 255_u32;
        let high = if c.spec().wide_lanes() { (w[2 + i / 4] >> (8 * (i % 4))) & 255_u32 } else { 0_u32 };
        steps[i] = ((low + high * 256_u32) * 2_u32) as i32 - c.spec().zeros2()[i];
    }
    steps
}
