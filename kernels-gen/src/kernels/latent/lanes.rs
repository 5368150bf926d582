//! A leaf's rows become signed bytes in shared memory, once for all heads, for scores and for values.

use kernel_dsl::prelude::*;

use super::decode::DecodeMeta;
use crate::codec::Codec;
use crate::kernels::softmax::bounded;
use crate::latent::{DIM, Format, LEAF, NOPE, signed};

/// Pieces of 16 bytes of the lower half of a row's numbers without a position; a row has as many threads as pieces and RoPE's two pairs.
const PIECES: usize = NOPE / 32;

/// What is known of a row's bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RowMeta {
    pub row_bytes: usize,
    /// Words of a code of eight numbers: 1 or 2.
    pub words: usize,
    pub zero: u32,
    pub odd: bool,
}

impl RowMeta {
    pub fn of(format: &Format) -> Result<RowMeta, String> {
        let Some(i) = format.integers().filter(|i| i.whole && [32, 64].contains(&i.nope.spec().bits)) else {
            return Err(refused(format));
        };
        Ok(RowMeta { row_bytes: format.row_bytes(), words: i.nope.spec().bits / 32, zero: i.zero, odd: i.odd })
    }

    pub fn code_bytes(&self) -> usize {
        self.words * NOPE / 2
    }
}

pub fn refused(format: &Format) -> String {
    format!("no kernel reads rows of {}; kernels read v4_int4_int8, v4_e8w4_int8 and v4_int8_int8", format.name())
}

/// Where 16 bytes of a row lie in shared memory: [`kernel_dsl::pack::swizzled`].
#[device]
fn place(row: i32, piece: i32) -> i32 {
    let swizzle = (row & 7_i32) ^ ((row >> 3_u32) & 1_i32) ^ (((row >> 5_u32) & 1_i32) << 1_u32);
    row * DIM as i32 + ((piece ^ swizzle) << 4_u32)
}

/// The place of a row's scale: that of the row in tiles of scores, [`kernel_dsl::pack::matrix_row`].
#[device]
fn rank(row: i32) -> i32 {
    (row & 96_i32) | ((row & 7_i32) << 2_u32) | ((row >> 3_u32) & 3_i32)
}

/// First byte of a row; nobody's is the first row, which then weighs nothing.
#[device]
fn byte_of(m: &DecodeMeta, row: i32) -> i64 {
    row.max(0_i32) as i64 * m.rows.row_bytes as i64
}

/// What thread i brings of the leaf whose rows are `slots` from `own` on of a cache: lanes, scales, and -inf for nobody's scores. Sixteen threads have a
/// row: 14 a piece of codes each, two a pair of pieces of RoPE's bytes.
#[device]
#[allow(clippy::too_many_arguments)]
pub fn bring(m: &DecodeMeta, nope: &dyn Codec, cache: &Global<u8>, slots: &Shared<i32>, own: i32, room: &mut Shared<i8>, at: i32, scales: &mut Shared<f32>, bias: &mut Shared<f32>, i: i32) {
    let j = i & 15_i32;
    let coded = j < PIECES as i32;
    let from = if coded { j * 16_i32 } else { m.rows.code_bytes() as i32 + (j - PIECES as i32) * 32_i32 };
    // One word a code: only RoPE's threads have other 16 bytes.
    let far = if coded { if m.rows.words == 2 { (NOPE / 2) as i32 } else { 0_i32 } } else { 16_i32 };
    let (low_piece, high_piece) = if coded { (j, j + PIECES as i32) } else { (j + j, j + j + 1_i32) };
    let (low_by, high_by) = (j as u32 & 28_u32, (j + PIECES as i32) as u32 & 28_u32);
    let first = i >> 4_u32;
    // Four rows' loads are on their way before the first is looked at.
    let each = m.threads() / 16;
    for pass in 0..LEAF / (4 * each) {
        let mut codes = [0_u32; 16];
        let mut others = [0_u32; 16];
        let mut sides = [0_u32; 4];
        for n in 0..4 {
            let base = byte_of(m, slots.at(own + first + ((4 * pass + n) * each) as i32));
            let w = cache.load4::<u32>(base + from as i64);
            let v = cache.load4::<u32>(base + (from + far) as i64);
            for k in 0..4 {
                codes[4 * n + k] = w[k];
                others[4 * n + k] = v[k];
            }
            sides[n] = cache.load::<u32>(base + (m.rows.row_bytes - 4) as i64);
        }
        for n in 0..4 {
            let row = first + ((4 * pass + n) * each) as i32;
            let (low_m, high_m) = ((sides[n] >> low_by) & 15_u32, (sides[n] >> high_by) & 15_u32);
            let mut low = [0_u32; 4];
            let mut high = [0_u32; 4];
            for k in 0..4 {
                let lanes = nope.decode([codes[4 * n + k], others[4 * n + k], 0_u32, 0_u32]);
                low[k] = if coded { signed(lanes[0], low_m, m.rows.zero, m.rows.odd) } else { codes[4 * n + k] };
                high[k] = if coded { signed(lanes[1], high_m, m.rows.zero, m.rows.odd) } else { others[4 * n + k] };
            }
            room.save4::<u32>(at + place(row, low_piece), low);
            room.save4::<u32>(at + place(row, high_piece), high);
        }
    }
    if i < LEAF as i32 {
        let row = slots.at(own + i);
        let scale = bounded(cache.load::<f32>(byte_of(m, row) + (m.rows.row_bytes - 8) as i64));
        scales.put(rank(i), if row >= 0_i32 { scale } else { 0.0_f32 });
        bias.put(rank(i), if row >= 0_i32 { 0.0_f32 } else { f32::NEG_INFINITY });
    }
}

/// Asks for a row of the next leaf.
#[device]
pub fn expect(m: &DecodeMeta, cache: &Global<u8>, row: i32) {
    if row >= 0_i32 {
        // The last line is that of the scale.
        for n in 0..m.rows.row_bytes / 128 + 1 {
            let byte = if 128 * n < m.rows.row_bytes { 128 * n } else { m.rows.row_bytes - 4 };
            cache.prefetch(byte_of(m, row) + byte as i64);
        }
    }
}
