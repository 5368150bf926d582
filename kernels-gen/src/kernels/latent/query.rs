//! Queries become integers of two bytes in shared memory: see [`crate::latent::Query`].

use kernel_dsl::prelude::*;

use super::LINE;
use super::decode::DecodeMeta;
use crate::latent::DIM;

/// 64 numbers turned by the Hadamard matrix over 8.
#[device]
pub fn turned(x: [f32; 64]) -> [f32; 64] {
    let mut y = x;
    for stage in 0..6 {
        let h = 1 << stage;
        for pair in 0..32 {
            let i = pair / h * 2 * h + pair % h;
            let (a, b) = (y[i], y[i + h]);
            y[i] = a + b;
            y[i + h] = a - b;
        }
    }
    for i in 0..64 {
        y[i] = y[i] * 0.125_f32;
    }
    y
}

/// Group i of the bf16 numbers that wait at `at`, sanitised and turned.
#[device]
pub fn group(room: &Shared<i8>, at: i32, i: i32) -> [f32; 64] {
    let mut x = [0.0_f32; 64];
    for n in 0..8 {
        let w = room.load4::<u32>(at + i * (LINE / 2 + 8) as i32 + (16 * n) as i32);
        for k in 0..4 {
            x[8 * n + 2 * k] = sanitise(f32::from_bits(w[k] << 16), 65504.0_f32);
            x[8 * n + 2 * k + 1] = sanitise(f32::from_bits(w[k] & 0xffff_0000_u32), 65504.0_f32);
        }
    }
    turned(x)
}

/// The largest of a group's magnitudes.
#[device]
pub fn top_of(x: [f32; 64]) -> f32 {
    let mut top = 0.0_f32;
    for i in 0..64 {
        top = fmax(top, x[i].abs());
    }
    top
}

/// The largest of eight groups'.
#[device]
pub fn top_of_row(tops: &Shared<f32>, row: i32) -> f32 {
    let (a, b) = (tops.load4::<f32>(row * 32_i32), tops.load4::<f32>(row * 32_i32 + 16_i32));
    fmax(fmax(fmax(a[0], a[1]), fmax(a[2], a[3])), fmax(fmax(b[0], b[1]), fmax(b[2], b[3])))
}

/// First byte of the higher, or `low`, bytes of a head's integers, in cores: the higher ones of eight heads, then their lower ones.
#[device]
pub fn place_of(head: i32, low: usize) -> i32 {
    ((head >> 3_u32) * 2_i32 + low as i32) * (8 * DIM) as i32 + (head & 7_i32) * 16_i32
}

/// 64 integers `128 high + low` of a query as bytes; `top` is the largest magnitude of the row.
#[device]
pub fn put_integers(room: &mut Shared<i8>, head: i32, block: i32, x: [f32; 64], top: f32) {
    let inverse = if top > 1e-30_f32 { 16256.0_f32 / top } else { 0.0_f32 };
    for n in 0..4 {
        let mut high = [0_u32; 4];
        let mut low = [0_u32; 4];
        for t in 0..4 {
            for e in 0..4 {
                let z = (x[16 * n + 4 * t + e] * inverse).round_ties_even() as i32;
                let h = (z + 64_i32) >> 7_u32;
                high[t] = high[t] | ((h as u32 & 255_u32) << (8 * e));
                low[t] = low[t] | (((z - h * 128_i32) as u32 & 255_u32) << (8 * e));
            }
        }
        let at = block * 512_i32 + (128 * n) as i32;
        room.save4::<u32>(place_of(head, 0) + at, high);
        room.save4::<u32>(place_of(head, 1) + at, low);
    }
}

/// Integers of a block's queries, their worths, and a state of no rows yet; `row`: of its first head.
#[device]
#[allow(clippy::too_many_arguments)]
pub fn put_queries(m: &DecodeMeta, q: &Global<bf16>, room: &mut Shared<i8>, tops: &mut Shared<f32>, worths: &mut Shared<f32>, top: &mut Shared<f32>, sum: &mut Shared<f32>, row: i64, scale: f32) {
    let mut numbers = by_turn::<f32>(m.threads(), 64);
    for some in strided(0_i32, m.cut.heads as i32, m.threads() / 8) {
        let own = (row + some as i64) * 1024_i64;
        for i in threads(m.threads()) {
            for n in 0..8 {
                let piece = i + (m.threads() * n) as i32;
                let w = q.load4::<u32>(own + piece as i64 * 16_i64);
                room.save4::<u32>((2 * m.part()) as i32 + (piece >> 3_u32) * (LINE / 2 + 8) as i32 + (piece & 7_i32) * 16_i32, w);
            }
        }
        for i in threads(m.threads()) {
            let x = group(room, (2 * m.part()) as i32, i);
            for k in 0..64 {
                numbers.put(i, k, x[k]);
            }
            tops.put(i, top_of(x));
        }
        for i in threads(m.threads()) {
            let mut x = [0.0_f32; 64];
            for k in 0..64 {
                x[k] = numbers.at(i, k);
            }
            let (head, whole) = (some + (i >> 3_u32), top_of_row(tops, i >> 3_u32));
            put_integers(room, head, i & 7_i32, x, whole);
            for_cores();
            if (i & 7_i32) == 0_i32 {
                worths.put(head, whole / 16256.0_f32 * scale * 1.442_695_f32);
                top.put(head, f32::NEG_INFINITY);
                sum.put(head, 0.0_f32);
            }
        }
    }
}
