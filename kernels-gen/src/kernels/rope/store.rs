//! Store that takes keys as projections leave them, and gives queries back ready for attention: one launch in the place of
//! two, and keys cross memory once.
//!
//! The plain store, but for how keys are loaded. Blocks beyond its two axes take query heads.
//! Cost: reads d elements a row and, from the cache, a row of the table; writes code and side bytes, and d elements a query.

use super::super::arguments::{Rows, Stored};
use super::super::held::take;
use super::super::place::put_known;
use super::super::rows::{squared, turn_own};
use super::super::store::{StoreMeta, code_as_keys, code_as_values, desk};
use super::{Passed, Turns, key_row, measure, place_in, turn_queries};
use crate::codec::Codec;
use kernel_dsl::prelude::*;

/// Grid: [`super::super::rope_grid`].
#[kernel]
pub fn store_rope<T: Float>(
    m: StoreMeta,
    kc: &[&dyn Codec], // one a band
    vc: &[&dyn Codec],
    k: &Rows<T>,
    v: &Rows<T>,
    q: &Rows<T>,
    turns: &Turns,
    passed: &mut Passed<T>,
    to: &mut Stored,
) {
    after_previous();
    release_next();
    let (first, head, kind) = (block_id(0) * 32_i32, block_id(1), block_id(2));
    let mut sums = shared::<f32>(32 * 4);
    if kind >= 2_i32 {
        turn_queries::<T>(&m, q, passed, turns, &mut sums, head, kind - 2_i32, to.tokens, to.kv_heads);
    } else {
        let (mut desk, mut codes) = desk(&m, kc, vc);
        if kind == 0_i32 {
            measure::<T>(&m, k, &mut sums, head, to.tokens);
        }
        for i in threads(128) {
            let (r, j) = (i >> 2_u32, i & 3_i32);
            let token = (first + r).min(to.tokens - 1_i32);
            let (position, known) = place_in(turns, token);
            let slot = if first + r < to.tokens { to.slots.at(token) } else { -1_i64 };
            if kind == 0_i32 {
                let row = key_row::<T>(&m, k, passed, turns, &sums, token, head, to.kv_heads, position, known, first + r < to.tokens, r, j);
                turn_own(kc[0], row, squared(row, m.d / 4), j, r, &mut desk.rows, &mut desk.squares, m.d);
            } else {
                take::<T>(&m, vc[0], &v.base, true, i, first, head, to.tokens, v.token_stride, v.head_stride, &mut desk);
            }
            if j == 0_i32 {
                put_known(known, slot, to.slot_count, to.kv_heads, head, m.page_tokens, m.tile_bytes, r, token, &mut desk.tiles, &mut desk.places, &mut to.status);
            }
        }
        if kind == 0_i32 {
            code_as_keys(&m, kc, &mut to.cache, &mut desk);
        } else {
            code_as_values(&m, kc, vc, &mut to.cache, &mut desk, &mut codes);
        }
    }
}
