//! Side values of parts of a vector: chosen once the rows are turned, stored behind the codes.

use super::rows::block_of;
use crate::codec::Codec;
use kernel_dsl::prelude::*;

/// The values of a row's groups take the place of the maxima in `tops`: [row, group].
#[device]
pub fn group_tops(c: &dyn Codec, rows: &Shared<u8>, tops: &mut Shared<f32>, d: usize) {
    for i in threads(32 * (d / c.spec().group)) {
        let (r, g) = (i / (d / c.spec().group) as i32, i % (d / c.spec().group) as i32);
        let mut top = 0.0_f32;
        for block in 0..c.spec().group / 8 {
            let y = block_of(rows, r, g * (c.spec().group / 8) as i32 + block as i32, d);
            for e in 0..8 {
                top = fmax(top, y[e].abs());
            }
        }
        tops.put(i, c.group(top));
    }
}

/// What a block is coded with: its group's value, then the vector's own.
#[device]
pub fn own_side(c: &dyn Codec, tops: &Shared<f32>, side: [f32; 2], r: i32, block: i32, d: usize) -> [f32; 2] {
    [tops.at(r * (d / c.spec().group) as i32 + block / (c.spec().group / 8) as i32), side[0]]
}

/// The shared bits of all groups, in the order in which lanes read them: see `kernel_dsl::pack`.
#[device]
#[allow(clippy::too_many_arguments)]
pub fn put_groups(c: &dyn Codec, cache: &mut Global<u8>, tops: &Shared<f32>, tiles: &Shared<i64>, places: &Shared<u32>, codes_at: usize, d: usize, values: bool) {
    for i in threads(32 * (d / c.spec().group)) {
        let (r, g) = (i & 31_i32, (i >> 5_u32) as u32);
        let (tile, token) = (tiles.at(r), places.at(r));
        let bits = c.shared(tops.at(r * (d / c.spec().group) as i32 + g as i32));
        if tile >= 0_i64 {
            let element = if values { g * 32_u32 + token } else { ((token >> 2) * (d / c.spec().group) as u32 + g) * 4_u32 + (token & 3_u32) };
            let at = tile + (codes_at + d / 2 * c.spec().bits) as i64 + (element * (c.spec().shared / 8) as u32) as i64;
            if c.spec().shared == 8 {
                cache.save::<u8>(at, bits as u8);
            } else {
                if c.spec().shared == 16 {
                    cache.save::<u16>(at, bits as u16);
                } else {
                    cache.save::<u32>(at, bits);
                }
            }
        }
    }
}
