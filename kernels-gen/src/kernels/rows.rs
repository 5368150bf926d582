//! Rows on their way into codes: loaded, sanitised, normalised, rotated, and the side values chosen.
//!
//! Up to 128 coordinates a thread holds a whole row, so that sums and butterflies need neither shuffles nor barriers;
//! rows come and go through shared memory in 16-byte quads, swizzled so that no two threads meet at a bank.

use super::query::magnitude;
use crate::codec::Codec;
use kernel_dsl::prelude::*;

/// Rounded to f16 as it is stored; too large ones saturate.
#[device]
fn half_of(x: f32) -> f32 {
    f16::from_f32(fmin(x, 65504.0_f32)).to_f32()
}

/// Byte of the `q`-th 16 bytes of row `r`.
#[device]
pub fn quad_at(r: i32, q: i32, d: usize) -> i32 {
    if d <= 128 { r * (4 * d) as i32 + ((q ^ ((r ^ (q >> 3_u32)) & 7_i32)) << 4_u32) } else { r * (4 * d + 16) as i32 + (q << 4_u32) }
}

/// Eight coordinates of a row.
#[device]
pub fn block_of(rows: &Shared<u8>, r: i32, block: i32, d: usize) -> [f32; 8] {
    let a = rows.load4::<f32>(quad_at(r, block * 2_i32, d));
    let b = rows.load4::<f32>(quad_at(r, block * 2_i32 + 1_i32, d));
    [a[0], a[1], a[2], a[3], b[0], b[1], b[2], b[3]]
}

/// Raw rows, neighbouring threads reading neighbouring bytes. `elem`: bytes of an element in memory.
#[device]
pub fn fetch<T: Float>(x: &Global<T>, at: i64, stride: i64, first: i32, last: i32, rows: &mut Shared<u8>, n: usize, d: usize, elem: usize) {
    let per = d * elem / 16;
    for i in threads(n * per) {
        let (r, q) = (i / per as i32, i % per as i32);
        let byte = (at + (first + r).min(last) as i64 * stride) * elem as i64 + (q * 16_i32) as i64;
        rows.save4::<u32>(quad_at(r, q, d), x.load4::<u32>(byte));
    }
}

/// A raw row becomes what is coded; its norm and largest magnitude go to `tops`.
#[device]
pub fn whole_row(c: &dyn Codec, rows: &mut Shared<u8>, tops: &mut Shared<f32>, r: i32, d: usize, elem: usize, inv_sqrt_d: f32) {
    let mut x = [0.0_f32; 128];
    for q in 0..d * elem / 16 {
        let w = rows.load4::<u32>(quad_at(r, q as i32, d));
        for e in 0..4 {
            if elem == 2 {
                x[8 * q + 2 * e] = f32::from_bits(w[e] << 16);
                x[8 * q + 2 * e + 1] = f32::from_bits(w[e] & 0xffff_0000_u32);
            } else {
                x[4 * q + e] = f32::from_bits(w[e]);
            }
        }
    }
    // Magnitudes that sum to no more than the limit need no care.
    let mut all = [0.0_f32; 4];
    for i in 0..d {
        all[i % 4] = all[i % 4] + x[i].abs();
    }
    let clean = (all[0] + all[1]) + (all[2] + all[3]) <= c.spec().limit;
    if !clean {
        for i in 0..d {
            x[i] = sanitise(x[i], c.spec().limit);
        }
    }
    let mut norm = 0.0_f32;
    let mut factor = if c.spec().rotate { inv_sqrt_d } else { 1.0_f32 };
    if c.spec().unit {
        norm = norm_of(x, d);
        factor = factor / fmax(norm, 1.1920929e-7_f32);
    }
    if c.spec().rotate {
        for stage in 0..7 {
            let h = 1 << stage;
            if h < d {
                for p in 0..d / 2 {
                    let low = p / h * 2 * h + p % h;
                    let (a, b) = (x[low], x[low + h]);
                    x[low] = a + b;
                    x[low + h] = a - b;
                }
            }
        }
    }
    let mut top = 0.0_f32;
    for i in 0..d {
        x[i] = x[i] * factor;
        top = fmax(top, x[i].abs());
    }
    for q in 0..d / 4 {
        rows.save4::<f32>(quad_at(r, q as i32, d), [x[4 * q], x[4 * q + 1], x[4 * q + 2], x[4 * q + 3]]);
    }
    tops.put(r * 2_i32, norm);
    tops.put(r * 2_i32 + 1_i32, top);
}

/// The l2 norm, summed as a warp sums: 32 runs left to right, then halves onto halves.
#[device]
fn norm_of(x: [f32; 128], d: usize) -> f32 {
    let own = d / 32;
    let mut p = [0.0_f32; 32];
    for k in 0..32 {
        let mut sum = x[k * own] * x[k * own];
        for i in 1..own {
            sum = sum + x[k * own + i] * x[k * own + i];
        }
        p[k] = sum;
    }
    for s in 0..5 {
        let off = 16 >> s;
        for k in 0..off {
            p[k] = p[k] + p[k + off];
        }
    }
    p[0].sqrt()
}

/// As `whole_row` by a whole warp, for rows of more than 128 coordinates.
#[device]
pub fn spread_row<T: Float>(c: &dyn Codec, x: Tile<T>, r: i32, d: usize, inv_sqrt_d: f32, rows: &mut Shared<u8>, tops: &mut Shared<f32>) {
    let x = x.to_f32().map(|x| sanitise(x, c.spec().limit));
    let norm = if c.spec().unit { (&x * &x).sum().sqrt() } else { 0.0_f32 };
    let turned = if c.spec().rotate { inv_sqrt_d } else { 1.0_f32 };
    let factor = if c.spec().unit { turned / fmax(norm, 1.1920929e-7_f32) } else { turned };
    let y = if c.spec().rotate { x.hadamard() * factor } else { x * factor };
    rows.save_row::<f32>(quad_at(r, 0_i32, d), &y);
    tops.put(r * 2_i32, norm);
    tops.put(r * 2_i32 + 1_i32, y.map(magnitude).max());
}

/// The side values of a row: those it is coded with, then those that are stored.
#[device]
pub fn choose(c: &dyn Codec, rows: &Shared<u8>, tops: &Shared<f32>, sides: &mut Shared<f32>, r: i32, d: usize) {
    let (norm, top) = (tops.at(r * 2_i32), tops.at(r * 2_i32 + 1_i32));
    let mut side = [0.0_f32; 2];
    let mut stored = [0.0_f32; 2];
    let mut least = 0.0_f32;
    for t in 0..c.spec().tries {
        let wanted = c.trial(norm, top, t);
        let own = [half_of(wanted[0]), half_of(wanted[1])];
        let (mut error, mut energy) = (0.0_f32, 0_i32);
        if (c.spec().tries > 1) | c.spec().corrected {
            let gain = if c.spec().unit { fmax(norm, 1.1920929e-7_f32) } else { 1.0_f32 };
            for block in strided(0_i32, (d / 8) as i32, 1) {
                let y = block_of(rows, r, block, d);
                let steps = steps_of(c, c.decode(c.encode(y, own)));
                for i in 0..8 {
                    let off = y[i] * gain - c.scale(own) * (steps[i] as f32 * 0.5_f32);
                    error = off.mul_add(off, error);
                    energy = energy + steps[i] * steps[i];
                }
            }
        }
        let better = (error < least) | (t == 0);
        let fixed = if c.spec().corrected { c.correct(own, energy as f32) } else { own };
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
fn steps_of(c: &dyn Codec, w: [u32; 4]) -> [i32; 8] {
    let mut steps = [0_i32; 8];
    for i in 0..8 {
        let low = (w[i / 4] >> (8 * (i % 4))) & 255_u32;
        let high = if c.spec().wide_lanes() { (w[2 + i / 4] >> (8 * (i % 4))) & 255_u32 } else { 0_u32 };
        steps[i] = ((low + high * 256_u32) * 2_u32) as i32 - c.spec().zero2;
    }
    steps
}
