//! Rows into slots.

use super::super::arguments::Rows;
use super::super::rows::{block_of, code_of, over_of, side_of, turn_within};
use super::super::store::prepare;
use super::{SlotMeta, Slots, byte_of, put_levels, slot_of};
use crate::codec::Codec;
use kernel_dsl::prelude::*;

#[kernel]
pub fn store_slots<T: Float>(
    m: SlotMeta,
    kc: &[&dyn Codec],
    vc: &[&dyn Codec],
    k: &Rows<T>,
    v: &Rows<T>,
    slots: &mut Slots,
    status: &mut Global<i32>, // bad slot, bad page, bad length, where
    tokens: i32,
) {
    let (first, head, kind) = (block_id(0) * 32_i32, block_id(1), block_id(2));
    let mut rows = shared::<u8>(128 * m.d);
    let mut squares = shared::<f32>(32 * 4);
    let mut tops = shared::<f32>(2 * m.d);
    let mut sides = shared::<f32>(32 * 4);
    let mut places = shared::<i64>(32);
    for i in threads(128) {
        let (r, j) = (i >> 2_u32, i & 3_i32);
        let token = (first + r).min(tokens - 1_i32);
        if kind == 0_i32 {
            turn_within::<T>(kc[0], &k.base, (token as i64 * k.token_stride + head as i64 * k.head_stride) * m.elem as i64, j, r, &mut rows, &mut squares, m.d, m.elem);
        } else {
            turn_within::<T>(vc[0], &v.base, (token as i64 * v.token_stride + head as i64 * v.head_stride) * m.elem as i64, j, r, &mut rows, &mut squares, m.d, m.elem);
        }
        if j == 0_i32 {
            let slot = slot_of(&slots.at, slots.count, first + r, tokens, status);
            places.put(r, if slot >= 0_i64 { byte_of(slots, slot, head, m.page_tokens) } else { -1_i64 });
        }
    }
    if kind == 0_i32 {
        prepare(kc, &mut rows, &squares, &mut tops, &mut sides, m.d, m.inv_sqrt_d);
        code_slots(kc[0], &mut slots.bytes, &rows, &squares, &tops, &sides, &places, m.warps, m.d, m.root(), 0);
    } else {
        prepare(vc, &mut rows, &squares, &mut tops, &mut sides, m.d, m.inv_sqrt_d);
        code_slots(vc[0], &mut slots.bytes, &rows, &squares, &tops, &sides, &places, m.warps, m.d, m.root(), m.values_at);
    }
}

/// Codes of 32 rows into their slots, from byte `at` on; sides as they were before any correction.
#[device]
#[allow(clippy::too_many_arguments)]
fn code_slots(c: &dyn Codec, cache: &mut Global<u8>, rows: &Shared<u8>, squares: &Shared<f32>, tops: &Shared<f32>, sides: &Shared<f32>, places: &Shared<i64>, n: usize, d: usize, root: f32, at: usize) {
    for i in threads(32 * n) {
        let r = i & 31_i32;
        let (place, side) = (places.at(r), side_of(c, squares, tops, sides, r, d));
        for block in strided(i >> 5_u32, (d / 8) as i32, n) {
            let levels = c.levels(code_of(c, block_of(rows, r, block, d), side, over_of(c, squares, r, root)));
            if place >= 0_i64 {
                put_levels(c, cache, place + at as i64 + (block * c.spec().level_bits as i32) as i64, levels);
            }
        }
    }
    for r in threads(32) {
        if places.at(r) >= 0_i64 {
            let side = side_of(c, squares, tops, sides, r, d);
            for e in 0..c.spec().sides {
                let side = f16::from_f32(fmin(side[e], 65504.0_f32));
                cache.save::<f16>(places.at(r) + (at + d / 8 * c.spec().level_bits + 2 * e) as i64, side);
            }
        }
    }
}
