//! What a block does behind its tiles: it writes its rows, or leaves its part of them for the join kernel.

use super::arguments::{Cache, Outputs, Queries};
use super::decode_attention::DecodeMeta;
use super::leaves::*;
use super::many::*;
use super::maps::outputs::{put_values, settle};
use super::room::Room;
use super::seats::*;
use crate::codec::Codec;
use kernel_dsl::prelude::*;

/// Writes the rows of sequences that a crew has whole, mapped back where the codec is calibrated, and leaves the others' parts.
#[device]
pub fn write_rows<T: Float>(m: &DecodeMeta, v: &[&dyn Codec], q: &Queries<T>, cache: &Cache, to: &mut Outputs<T>, room: &mut Room) {
    // Of rows to be mapped back: what a step is worth, whether there are tokens.
    let mut units = shared::<f32>(m.settled());
    let mut some = shared::<i32>(m.settled());
    for w in warps(m.warps) {
        let (seq, split, live, lead) = (seat(&room.seats, w, SEQ), seat(&room.seats, w, SPLIT), seat(&room.seats, w, LIVE), lead_of(w, room.log_crew));
        let head = seat(&room.seats, w, HEAD);
        let all = whole(seat(&room.seats, w, SEEN), seat(&room.seats, w, SHARE));
        for c in strided(w - lead, if (live > 0_i32) | (all & (split == 0_i32) & (seq >= 0_i32)) { m.rows() as i32 } else { 0_i32 }, 1_i32 << (room.log_crew & 31_i32)) {
            let of = row_of(m, seq, cache.kv_heads, head, q.tokens, q.first, c);
            let own = if m.many { q.first + c / (m.group as i32) < q.tokens } else { true };
            if live > 0_i32 {
                let (o, l, top) = of_crew(m, &room.held, c, lead, live);
                if all {
                    let good = (room.fault.at(lead * m.rows() as i32 + c) == 0_i32) & (l > 0.0_f32);
                    if own {
                        let (y, whole) = finished(v[0], m.d, m.inv_sqrt_d, good, &o, l, top);
                        if m.record > 0 {
                            settle(&y, good, c, &mut room.query, &mut units, &mut some, m.d)
                        } else {
                            to.out.put_row(of as i64 * m.d as i64, &y.to::<T>())
                        }
                        to.lse.put(of, whole);
                    }
                } else {
                    let line = if m.many { (seq * cache.kv_heads + head) * q.blocks + q.slot } else { seq * cache.kv_heads + head };
                    let row = (line as i64 * to.splits as i64 + split as i64) * m.rows() as i64 + c as i64;
                    leave(to.part, to.stat, row, m.d, &o, l, top);
                }
            } else {
                if own {
                    nothing::<T>(to.out, to.lse, of, m.d);
                }
            }
        }
    }
    if m.record > 0 {
        let (seq, live, head) = (seat(&room.seats, 0_i32, SEQ), seat(&room.seats, 0_i32, LIVE), seat(&room.seats, 0_i32, HEAD));
        put_values::<T>(m, to.maps, to.scales, &room.query, &units, &some, &mut room.held, to.out, cache.kv_heads, head, seq, q.tokens, q.first, whole(seat(&room.seats, 0_i32, SEEN), seat(&room.seats, 0_i32, SHARE)) & (live > 0_i32));
    }
}
