//! The same for a calibrated codec: keys are normalised and turned, then turned back to their segment, mapped and coded.
//!
//! Cost: that of the calibrated store; a row of the table besides, and d elements a query.

use super::super::arguments::{Fitted, Rows, Stored};
use super::super::maps::mean_at;
use super::super::maps::store::{centre, code_mapped, mapped_desk};
use super::super::maps::turned;
use super::super::place::put_known;
use super::super::rows::raw;
use super::super::store::StoreMeta;
use super::{Passed, Turns, key_row, measure, place_in, row_at, turn_queries};
use crate::codec::Codec;
use crate::kernels::SEGMENT;
use kernel_dsl::prelude::*;

/// Grid: [`super::super::rope_grid`].
#[kernel]
pub fn store_rope_mapped<T: Float>(
    m: StoreMeta,
    kc: &[&dyn Codec], // one a band
    vc: &[&dyn Codec],
    k: &Rows<T>,
    v: &Rows<T>,
    q: &Rows<T>,
    turns: &Turns,
    passed: &mut Passed<T>,
    fitted: &Fitted,
    to: &mut Stored,
) {
    after_previous();
    release_next();
    let (first, head, kind) = (block_id(0) * 32_i32, block_id(1), block_id(2));
    let mut sums = shared::<f32>(32 * 4);
    if kind >= 2_i32 {
        turn_queries::<T>(&m, q, passed, turns, &mut sums, head, kind - 2_i32, to.tokens, to.kv_heads);
    } else {
        let (mut desk, mut codes, mut ints, mut units) = mapped_desk(&m);
        if kind == 0_i32 {
            measure::<T>(&m, k, &mut sums, head, to.tokens);
        }
        for i in threads(128) {
            let (r, j) = (i >> 2_u32, i & 3_i32);
            let token = (first + r).min(to.tokens - 1_i32);
            let (position, in_table) = place_in(turns, token);
            let slot = if first + r < to.tokens { to.slots.at(token) } else { -1_i64 };
            let known = in_table & (position / (SEGMENT as i32) < fitted.segments);
            let mean = mean_at(kind, to.kv_heads, head, m.d);
            if kind == 0_i32 {
                let row = key_row::<T>(&m, k, passed, turns, &sums, token, head, to.kv_heads, position, in_table, first + r < to.tokens, r, j);
                let segment = (if known { position / SEGMENT as i32 } else { 0_i32 }) as i64 * m.d as i64;
                centre(turned(row, &fitted.turns, segment, true, j, m.d), &fitted.scales, mean, i, &mut desk, m.d);
            } else {
                let row = raw::<T>(&v.base, row_at::<T>(&m, v, token, head), j, m.d, m.elem);
                centre(turned(row, &fitted.turns, 0_i64, false, j, m.d), &fitted.scales, mean, i, &mut desk, m.d);
            }
            if j == 0_i32 {
                put_known(known, slot, to.slot_count, to.kv_heads, head, m.page_tokens, m.tile_bytes, r, token, &mut desk.tiles, &mut desk.places, &mut to.status);
            }
        }
        code_mapped(&m, kc, vc, &fitted.maps, &fitted.scales, &mut to.cache, &mut desk, &mut codes, &mut ints, &mut units, kind, head, to.kv_heads);
    }
}
