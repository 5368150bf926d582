//! The query's side of decode attention: rotate once, quantise once to 15-bit integers.

use super::decode_attention::DecodeMeta;
use super::keys::{height_of, query_part};
use super::room::Room;
use super::seats::lead_of;
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

/// First byte of a crew's query where crews are no single warps.
#[device]
pub fn side_of(m: &DecodeMeta, lead: i32) -> i32 {
    if m.pairs() { if lead > 0_i32 { m.query() as i32 } else { 0_i32 } } else { 0_i32 }
}

/// Head `c` of the query operand: bytes [hi | lo, heads, d] of integers, or [parts, heads, d] of bf16, all parts alike, into the query of warp `w`'s crew,
/// or, of a crew of one, into its ring, where nothing is on its way yet; what its sums start from and what one step of them is worth in log2 units,
/// and a key's offset, once for each of a head's columns. A padded head (live = 0) is all zero.
#[device]
#[allow(clippy::too_many_arguments)]
pub fn quantise_query<T: Float>(m: &DecodeMeta, k: &[&dyn Codec], room: &mut Room, x: Tile<T>, c: i32, live: i32, scale: f32, w: i32) {
    // Sums of keys and queries stand so many bits high.
    let height = height_of(k, m.key_quads, m.d);
    let x = x.to_f32().map(finite);
    let y = if k[0].spec().rotate { x.hadamard() * m.inv_sqrt_d } else { x };
    let lead = lead_of(w, room.log_crew);
    let (column, side) = (lead * m.cols as i32 + c, side_of(m, lead));
    if k[0].spec().exact() {
        let (v, start, worth) = integers(k, &room.zeros, y, live, m.d, scale);
        let (high, low) = (v.map(high_part).cast::<i8>(), v.map(low_part).cast::<i8>());
        if room.apart {
            room.rings.save_row::<i8>(w * m.ring() as i32 + c * m.d as i32, &high);
            room.rings.save_row::<i8>(w * m.ring() as i32 + (c + m.heads() as i32) * m.d as i32, &low);
        } else {
            room.query.save_row::<i8>(side + c * m.d as i32, &high);
            room.query.save_row::<i8>(side + (c + m.heads() as i32) * m.d as i32, &low);
        }
        for part in 0..m.parts {
            let at = column + (part * m.heads()) as i32;
            room.zero.put(at, start * (1 << height));
            room.worths.put(at, worth * f32::from_bits((127_u32 - height as u32) << 23));
            if k[0].spec().affine {
                room.leans.put(at, start as f32 * k[0].spec().lean() * worth);
            }
        }
    } else {
        let y = (y * live as f32).to::<bf16>();
        for part in 0..m.parts {
            let (at, row) = (column + (part * m.heads()) as i32, (c + (part * m.heads()) as i32) * (2 * m.d) as i32);
            if room.apart {
                room.rings.save_row::<bf16>(w * m.ring() as i32 + row, &y);
            } else {
                room.query.save_row::<bf16>(side + row, &y);
            }
            room.zero.put(at, 0_i32);
            room.worths.put(at, scale * 1.442695_f32);
        }
    }
}

/// The query's operands from byte `at` on: of integers, high and low bytes band after band; of bf16.
#[device]
pub fn query_at(m: &DecodeMeta, query: &Shared<u8>, at: i32, bands: usize) -> ([Tile<i8>; 4], [Tile<i8>; 4], Tile<bf16>) {
    let low = at + ((2 - m.parts) * m.cols * m.d) as i32;
    let depth = if m.floats { m.d } else { m.d / m.parts };
    (query_bands(m, query, at, bands), query_bands(m, query, low, bands), query.operand::<bf16>(at, 2 * depth, m.cols, depth))
}

/// 0, which the compiler does not know.
#[device]
pub fn nothing_of(t: i32) -> i32 {
    (opaque(t as u32) ^ t as u32) as i32
}

/// The query's bytes from byte `at` on, band after band.
#[device]
fn query_bands(m: &DecodeMeta, query: &Shared<u8>, at: i32, bands: usize) -> [Tile<i8>; 4] {
    let band = m.d / bands;
    [
        query_part(query, at, m.d, m.cols, band, m.key_quads, m.key_twos),
        query_part(query, at + (1 % bands * band) as i32, m.d, m.cols, band, m.key_quads, m.key_twos),
        query_part(query, at + (2 % bands * band) as i32, m.d, m.cols, band, m.key_quads, m.key_twos),
        query_part(query, at + (3 % bands * band) as i32, m.d, m.cols, band, m.key_quads, m.key_twos),
    ]
}
