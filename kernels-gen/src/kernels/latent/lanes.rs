//! A leaf's rows become signed bytes in shared memory, once for all heads, for scores and for values.

use kernel_dsl::prelude::*;

use super::decode::DecodeMeta;
use crate::codec::Codec;
use crate::kernels::softmax::bounded;
use crate::latent::{Format, LEAF, NOPE, signed};

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

/// Where 16 bytes of a row lie in shared memory: [`kernel_dsl::pack::line_byte`]. Rows eight apart are 1024 bytes apart.
#[device]
fn place(row: i32, piece: i32) -> i32 {
    (piece >> 3_u32) * (128 * LEAF) as i32 + row * 128_i32 + (((piece ^ row) & 7_i32) << 4_u32)
}

/// First byte of a row; nobody's is the first row, which then weighs nothing.
#[device]
fn byte_of(m: &DecodeMeta, row: i32) -> i64 {
    row.max(0_i32) as i64 * m.rows.row_bytes as i64
}

/// What thread i has of each row: the codes of two pieces of 16 bytes, or two pieces of RoPE's bytes.
#[device]
pub struct Own {
    pub coded: bool,
    /// Where the two pieces lie in shared memory, and their codes or bytes until then.
    pub low: i32,
    pub high: i32,
    /// First byte of the first codes or bytes in a row, and how many on the others are; 0: there are no others.
    from: i32,
    far: i32,
}

/// Sixteen threads have a row: 14 a piece of codes each, two a pair of pieces of RoPE's bytes.
#[device]
fn own_of(m: &DecodeMeta, i: i32) -> Own {
    let j = i & 15_i32;
    let coded = j < PIECES as i32;
    let (low, high) = if coded { (j, j + PIECES as i32) } else { (j + j, j + j + 1_i32) };
    let from = if coded { j * 16_i32 } else { m.rows.code_bytes() as i32 + (j - PIECES as i32) * 32_i32 };
    let far = if coded { if m.rows.words == 2 { (NOPE / 2) as i32 } else { 0_i32 } } else { 16_i32 };
    Own { coded, low, high, from, far }
}

/// Thread i sends for its part of the leaf whose rows are `slots` from `own` on of a cache. Codes come to the places of what they become.
#[device]
#[allow(clippy::too_many_arguments)]
pub fn ask(m: &DecodeMeta, cache: &Global<u8>, slots: &Shared<i32>, own: i32, room: &mut Shared<i8>, at: i32, sides: &mut Shared<u8>, i: i32) {
    let (mine, each, row) = (own_of(m, i), m.threads() / 16, i >> 4_u32);
    let (low_at, high_at) = (at + place(row, mine.low), at + place(row, mine.high));
    for n in 0..LEAF / each {
        let base = byte_of(m, slots.at(own + row + (n * each) as i32));
        room.bring(low_at + (128 * n * each) as i32, cache, base + mine.from as i64);
        if mine.far > 0_i32 {
            room.bring(high_at + (128 * n * each) as i32, cache, base + (mine.from + mine.far) as i64);
        }
    }
    // One of a row's threads has its last bytes.
    if (i & 15_i32) < (LEAF / each) as i32 {
        let row = row + (i & 15_i32) * each as i32;
        sides.bring(row * 16_i32, cache, byte_of(m, slots.at(own + row)) + (m.rows.row_bytes - 16) as i64);
    }
}

/// What becomes of two pieces of a row: signed bytes of its codes, or RoPE's bytes as they are.
#[device]
fn lanes_of(m: &DecodeMeta, nope: &dyn Codec, coded: bool, codes: [u32; 4], others: [u32; 4], low_m: u32, high_m: u32) -> ([u32; 4], [u32; 4]) {
    let mut low = [0_u32; 4];
    let mut high = [0_u32; 4];
    for k in 0..4 {
        let lanes = nope.decode([codes[k], others[k], 0_u32, 0_u32]);
        low[k] = if coded { signed(lanes[0], low_m, m.rows.zero, m.rows.odd) } else { codes[k] };
        high[k] = if coded { signed(lanes[1], high_m, m.rows.zero, m.rows.odd) } else { others[k] };
    }
    (low, high)
}

/// What thread i makes of it: lanes, scales, and -inf for nobody's scores.
#[device]
#[allow(clippy::too_many_arguments)]
pub fn unpack(m: &DecodeMeta, nope: &dyn Codec, slots: &Shared<i32>, own: i32, room: &mut Shared<i8>, at: i32, sides: &Shared<u8>, scales: &mut Shared<f32>, bias: &mut Shared<f32>, i: i32) {
    let (mine, each, row) = (own_of(m, i), m.threads() / 16, i >> 4_u32);
    let (low_first, high_first) = (at + place(row, mine.low), at + place(row, mine.high));
    let (low_by, high_by) = (mine.low as u32 & 28_u32, mine.high as u32 & 28_u32);
    // Two rows at a time: what one waits for the other's steps fill.
    for pair in 0..LEAF / each / 2 {
        let (left, right) = ((256 * pair * each) as i32, ((256 * pair + 128) * each) as i32);
        let (left_low, right_low) = (room.load4::<u32>(low_first + left), room.load4::<u32>(low_first + right));
        let (left_high, right_high) = (room.load4::<u32>(high_first + left), room.load4::<u32>(high_first + right));
        let left_side = sides.load4::<u32>(row * 16_i32 + (32 * pair * each) as i32);
        let right_side = sides.load4::<u32>(row * 16_i32 + ((32 * pair + 16) * each) as i32);
        let lanes = lanes_of(m, nope, mine.coded, left_low, left_high, (left_side[3] >> low_by) & 15_u32, (left_side[3] >> high_by) & 15_u32);
        let others = lanes_of(m, nope, mine.coded, right_low, right_high, (right_side[3] >> low_by) & 15_u32, (right_side[3] >> high_by) & 15_u32);
        room.save4::<u32>(low_first + left, lanes.0);
        room.save4::<u32>(high_first + left, lanes.1);
        room.save4::<u32>(low_first + right, others.0);
        room.save4::<u32>(high_first + right, others.1);
    }
    if (i & 15_i32) < (LEAF / each) as i32 {
        let row = row + (i & 15_i32) * each as i32;
        let (somebody, side) = (slots.at(own + row) >= 0_i32, sides.load4::<u32>(row * 16_i32));
        scales.put(own + row, if somebody { bounded(f32::from_bits(side[2])) } else { 0.0_f32 });
        bias.put(own + row, if somebody { 0.0_f32 } else { f32::NEG_INFINITY });
    }
}

/// A hint that a row will be sent for.
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
