//! Rows of f32, normed and turned by RoPE, to codes at flat slots; the bytes are those of [`crate::latent::Format::store`].
//!
//! Eight threads have a row, a group of 64 each; then threads code blocks and words out of shared memory. Cost: reads 2 KiB a row.

use kernel_dsl::prelude::*;

use super::lanes::RowMeta;
use super::query::{top_of, turned};
use crate::codec::Codec;
use crate::latent::{Integers, NOPE, multiplier};

/// Rows of a block.
pub const ROWS: usize = 32;

/// Numbers from a group to the next in shared memory.
const GROUP: usize = 68;

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StoreMeta {
    pub rows: RowMeta,
    /// See [`Integers`].
    wanted: f32,
    most: f32,
    nope_share: f32,
    rope_share: f32,
    side: [f32; 2],
}

impl StoreMeta {
    pub fn of(rows: RowMeta, i: &Integers) -> StoreMeta {
        let [nope_share, rope_share] = i.shares();
        StoreMeta { rows, wanted: i.wanted, most: i.most as f32, nope_share, rope_share, side: i.side }
    }
}

impl Meta for StoreMeta {
    fn launch(&self) -> Launch {
        Launch { warps: 8, min_blocks: 1 }
    }
}

/// As the model's norm leaves a number: bf16.
#[device]
fn normed(x: f32) -> f32 {
    let bits = x.to_bits();
    f32::from_bits(bits.wrapping_add(0x7fff_u32).wrapping_add((bits >> 16) & 1_u32) & 0xffff_0000_u32)
}

#[kernel]
pub fn latent_store(
    m: StoreMeta,
    nope: &dyn Codec,
    x: &Global<f32>,          // [rows, 512]
    slots: &Global<i64>,      // [rows]: below 0: not stored
    cache: &mut Global<u8>,   // [cache_rows, row_bytes]
    status: &mut Global<i32>, // [1]: 1 if a slot lies outside of the cache
    rows: i32,
    cache_rows: i32,
) {
    let first = block_id(0) * ROWS as i32;
    let mut held = shared::<f32>(ROWS * 8 * GROUP);
    let mut tops = shared::<f32>(ROWS * 8);
    let mut inverses = shared::<f32>(ROWS * 8);
    let mut at = shared::<i64>(ROWS);
    for i in threads(256) {
        let (row, g) = (first + (i >> 3_u32), i & 7_i32);
        let mut y = [0.0_f32; 64];
        if row < rows {
            for n in 0..16 {
                let w = x.load4::<f32>(row as i64 * 2048_i64 + g as i64 * 256_i64 + (16 * n) as i64);
                for k in 0..4 {
                    y[4 * n + k] = w[k];
                }
            }
        }
        for k in 0..64 {
            let z = sanitise(y[k], 65504.0_f32);
            y[k] = if g < 7_i32 { sanitise(normed(y[k]), 65504.0_f32) } else { z };
        }
        y = turned(y);
        for n in 0..16 {
            held.save4::<f32>((i * GROUP as i32 + (4 * n) as i32) * 4_i32, [y[4 * n], y[4 * n + 1], y[4 * n + 2], y[4 * n + 3]]);
        }
        tops.put(i, top_of(y));
        if g == 0_i32 {
            let slot = if row < rows { slots.at(row) } else { -1_i64 };
            at.put(i >> 3_u32, if slot < cache_rows as i64 { slot } else { -1_i64 });
            if slot >= cache_rows as i64 {
                status.put(0, 1_i32);
            }
        }
    }
    for i in threads(256) {
        let t = tops.load4::<f32>((i >> 3_u32) * 32_i32);
        let u = tops.load4::<f32>((i >> 3_u32) * 32_i32 + 16_i32);
        let top = fmax(fmax(fmax(t[0], t[1]), fmax(t[2], t[3])), fmax(fmax(u[0], u[1]), u[2]));
        let found = fmax(u[3] * m.rope_share, top * m.nope_share);
        let scale = if found < 1e-30_f32 { 0.0_f32 } else { found };
        let own = if (i & 7_i32) == 7_i32 { 1_u32 } else { multiplier(tops.at(i), m.wanted, scale, m.most) };
        inverses.put(i, if scale > 0.0_f32 { 1.0_f32 / (scale * own as f32) } else { 0.0_f32 });
        let slot = at.at(i >> 3_u32);
        if ((i & 7_i32) == 0_i32) & (slot >= 0_i64) {
            let side = slot * m.rows.row_bytes as i64 + (m.rows.row_bytes - 8) as i64;
            cache.save::<f32>(side, scale);
            let mut all = 1_u32 << 28;
            for g in 0..7 {
                all = all | (multiplier(if g < 4 { t[g % 4] } else { u[g % 4] }, m.wanted, scale, m.most) << (4 * g));
            }
            cache.save::<u32>(side + 4_i64, all);
            // Padding is zeros.
            for n in 0..(m.rows.row_bytes - 8 - m.rows.code_bytes() - 64) / 4 {
                cache.save::<u32>(slot * m.rows.row_bytes as i64 + (m.rows.code_bytes() + 64 + 4 * n) as i64, 0_u32);
            }
        }
    }
    for i in threads(ROWS * NOPE / 8) {
        let (row, block) = (i / (NOPE / 8) as i32, i % (NOPE / 8) as i32);
        let slot = at.at(row);
        if slot >= 0_i64 {
            let mut z = [0.0_f32; 8];
            for half in 0..2 {
                let number = block * 4_i32 + (half * NOPE / 2) as i32;
                let group = row * 8_i32 + (number >> 6_u32);
                let inverse = inverses.at(group);
                let w = held.load4::<f32>((group * GROUP as i32 + (number & 63_i32)) * 4_i32);
                for k in 0..4 {
                    z[4 * half + k] = w[k] * inverse;
                }
            }
            let code = nope.encode(z, m.side);
            for word in 0..m.rows.words {
                cache.save::<u32>(slot * m.rows.row_bytes as i64 + block as i64 * 4_i64 + (word * NOPE / 2) as i64, code[word]);
            }
        }
    }
    for i in threads(ROWS * 16) {
        let slot = at.at(i >> 4_u32);
        if slot >= 0_i64 {
            let group = (i >> 4_u32) * 8_i32 + 7_i32;
            let w = held.load4::<f32>((group * GROUP as i32 + (i & 15_i32) * 4_i32) * 4_i32);
            let mut word = 0_u32;
            for k in 0..4 {
                let z = fmin(fmax((w[k] * inverses.at(group)).round_ties_even(), -127.0_f32), 127.0_f32) as i32;
                word = word | ((z as u32 & 255_u32) << (8 * k));
            }
            cache.save::<u32>(slot * m.rows.row_bytes as i64 + (m.rows.code_bytes() as i32 + (i & 15_i32) * 4_i32) as i64, word);
        }
    }
}
