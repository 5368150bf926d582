//! What a block does behind its tiles: it writes its rows, or leaves its part of them for the join kernel.

use super::decode_attention::DecodeMeta;
use super::leaves::*;
use super::many::*;
use super::maps::outputs::{put_values, settle};
use super::seats::*;
use crate::codec::Codec;
use kernel_dsl::prelude::*;

/// Writes the rows of sequences that a crew has whole, mapped back where the codec is calibrated, and leaves the others' parts.
#[device]
#[allow(clippy::too_many_arguments)]
pub fn write_rows<T: Float>(
    m: &DecodeMeta,
    v: &[&dyn Codec],
    maps: &Global<i8>,
    scales: &Global<f32>,
    out: &mut Global<T>,
    lse: &mut Global<f32>,
    part: &mut Global<f32>,
    stat: &mut Global<f32>,
    seats: &Shared<i32>,
    fault: &Shared<i32>,
    held: &mut Shared<f32>,
    query: &mut Shared<u8>,
    kv_heads: i32,
    splits: i32,
    queries: i32,
    first: i32,
    slot: i32,
    blocks: i32,
    log_crew: i32,
) {
    // Of rows to be mapped back: what a step is worth, whether there are tokens.
    let mut units = shared::<f32>(m.settled());
    let mut some = shared::<i32>(m.settled());
    for w in warps(m.warps) {
        let (seq, split, live, lead) = (seat(seats, w, SEQ), seat(seats, w, SPLIT), seat(seats, w, LIVE), lead_of(w, log_crew));
        let head = seat(seats, w, HEAD);
        let all = whole(m, seat(seats, w, SEEN), seat(seats, w, UNIT));
        for c in strided(w - lead, if (live > 0_i32) | (all & (split == 0_i32) & (seq >= 0_i32)) { m.rows() as i32 } else { 0_i32 }, 1_i32 << (log_crew & 31_i32)) {
            let of = row_of(m, seq, kv_heads, head, queries, first, c);
            let own = if m.many { first + c / (m.group as i32) < queries } else { true };
            if live > 0_i32 {
                let (o, l, top) = of_crew(m, held, c, lead, live);
                if all {
                    let good = (fault.at(lead * m.rows() as i32 + c) == 0_i32) & (l > 0.0_f32);
                    if own {
                        let (y, whole) = finished(v[0], m.d, m.inv_sqrt_d, good, &o, l, top);
                        if m.record > 0 { settle(&y, good, c, query, &mut units, &mut some, m.d) } else { out.put_row(of as i64 * m.d as i64, &y.to::<T>()) }
                        lse.put(of, whole);
                    }
                } else {
                    let line = if m.many { (seq * kv_heads + head) * blocks + slot } else { seq * kv_heads + head };
                    let row = (line as i64 * splits as i64 + split as i64) * m.rows() as i64 + c as i64;
                    leave(part, stat, row, m.d, &o, l, top);
                }
            } else {
                if own {
                    nothing::<T>(out, lse, of, m.d);
                }
            }
        }
    }
    if m.record > 0 {
        let (seq, live, head) = (seat(seats, 0_i32, SEQ), seat(seats, 0_i32, LIVE), seat(seats, 0_i32, HEAD));
        put_values::<T>(m, maps, scales, query, &units, &some, held, out, kv_heads, head, seq, queries, first, whole(m, seat(seats, 0_i32, SEEN), seat(seats, 0_i32, UNIT)) & (live > 0_i32));
    }
}
