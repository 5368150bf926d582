//! The query's side of decode attention: rotate once, quantise once to 15-bit integers.

use crate::codec::Codec;
use kernel_dsl::prelude::*;

/// NaN becomes 0, infinities a finite number.
#[device]
pub fn finite(x: f32) -> f32 {
    sanitise(x, 65504.0_f32)
}

#[device]
pub fn magnitude(x: f32) -> f32 {
    x.abs()
}

#[device]
pub fn nearest(x: f32) -> i32 {
    x.round_ties_even() as i32
}

/// High byte of an integer split as 128 h + l, both signed.
#[device]
pub fn high_part(v: i32) -> i32 {
    (v + 64_i32) >> 7
}

#[device]
pub fn low_part(v: i32) -> i32 {
    v - (((v + 64_i32) >> 7) << 7)
}

/// The lane that stands for zero at each of the d dims, where bands or dims differ in it: as the sums' start takes it.
#[device]
pub fn zeros_of(k: &[&dyn Codec], zeros: &mut Shared<i32>, d: usize) {
    if (k.len() > 1) | k[0].spec().mixed {
        for i in threads(d) {
            let mut z = k[0].spec().zeros2()[0];
            for band in 1..k.len() {
                z = if i < (band * d / k.len()) as i32 { z } else { k[band].spec().zero2 };
            }
            if k[0].spec().mixed {
                for dim in 1..8 {
                    z = if (i & 7_i32) < dim as i32 { z } else { k[0].spec().zeros2()[dim] };
                }
            }
            zeros.put(i, if k[0].spec().even() { z / 2 } else { z });
        }
    }
}

/// A row as 15-bit integers (0 unless live), what its sums start from, what one step of a sum is worth in log2 units.
#[device]
pub fn integers(k: &[&dyn Codec], zeros: &Shared<i32>, y: Tile<f32>, live: i32, d: usize, scale: f32) -> (Tile<i32>, i32, f32) {
    let top = fmax(y.map(magnitude).max(), 1e-20_f32);
    let v = (y * (k[0].spec().query_max() / top)).map(nearest) * live;
    // Bands, and mixed dims, differ in the lane that stands for zero.
    let start = if (k.len() > 1) | k[0].spec().mixed { (&v * &zeros.row(0, d)).sum() * -1_i32 } else { v.sum() * -(if k[0].spec().even() { k[0].spec().zero2 / 2 } else { k[0].spec().zero2 }) };
    (v, start, worth_of(k[0], top, scale))
}

/// What a step of a query's sums is worth in log2 units, from its largest magnitude.
#[device]
pub fn worth_of(c: &dyn Codec, top: f32, scale: f32) -> f32 {
    shown_worth((top * (1.0_f32 / c.spec().query_max())) * (scale * (if c.spec().even() { 1.442695_f32 } else { 0.7213475_f32 })))
}

/// Below 2^-59 it is nothing, lest products with scales lose bits at one height of the sums and not at another.
#[device]
pub fn shown_worth(worth: f32) -> f32 {
    if worth.abs() >= 1.7347235e-18_f32 { worth } else { 0.0_f32 }
}

/// Head `c` of the query operand goes into `query`: bytes [hi | lo, heads, d] of integers, or [heads, d] of
/// bf16. What its sums start from goes into `zero`, what one step of a sum is worth in log2 units into
/// `unit`, for sums that stand `height` bits high, and what a key's offset is worth into `lean`, once for each of the `parts` columns of a
/// head. A padded head (live = 0) is all zero.
#[device]
pub fn quantise_query<T: Float>(k: &[&dyn Codec], zeros: &Shared<i32>, x: Tile<T>, c: i32, live: i32, heads: usize, parts: usize, d: usize, inv_sqrt_d: f32, scale: f32, height: usize, query: &mut Shared<u8>, zero: &mut Shared<i32>, unit: &mut Shared<f32>, lean: &mut Shared<f32>) {
    let x = x.to_f32().map(finite);
    let y = if k[0].spec().rotate { x.hadamard() * inv_sqrt_d } else { x };
    if k[0].spec().exact() {
        let (v, start, worth) = integers(k, zeros, y, live, d, scale);
        query.save_row::<i8>(c * d as i32, &v.map(high_part).cast::<i8>());
        query.save_row::<i8>((c + heads as i32) * d as i32, &v.map(low_part).cast::<i8>());
        for part in 0..parts {
            zero.put(c + (part * heads) as i32, start * (1 << height));
            unit.put(c + (part * heads) as i32, worth * f32::from_bits((127_u32 - height as u32) << 23));
            if k[0].spec().affine {
                lean.put(c + (part * heads) as i32, start as f32 * k[0].spec().lean() * worth);
            }
        }
    } else {
        query.save_row::<bf16>(c * 2_i32 * d as i32, &(y * live as f32).to::<bf16>());
        zero.put(c, 0_i32);
        unit.put(c, scale * 1.442695_f32);
    }
}
