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

/// Where 16 bytes of a row lie in shared memory: [`kernel_dsl::pack::line_byte`].
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
    let (mine, each) = (own_of(m, i), m.threads() / 16);
    for n in 0..LEAF / each {
        let row = (i >> 4_u32) + (n * each) as i32;
        let base = byte_of(m, slots.at(own + row));
        room.bring(at + place(row, mine.low), cache, base + mine.from as i64);
        if mine.far > 0_i32 {
            room.bring(at + place(row, mine.high), cache, base + (mine.from + mine.far) as i64);
        }
        if (i & 15_i32) == 0_i32 {
            sides.bring(row * 16_i32, cache, base + (m.rows.row_bytes - 16) as i64);
        }
    }
}

/// What thread i makes of it: lanes, scales, and -inf for nobody's scores.
#[device]
#[allow(clippy::too_many_arguments)]
pub fn unpack(m: &DecodeMeta, nope: &dyn Codec, slots: &Shared<i32>, own: i32, room: &mut Shared<i8>, at: i32, sides: &Shared<u8>, scales: &mut Shared<f32>, bias: &mut Shared<f32>, i: i32) {
    let (mine, each) = (own_of(m, i), m.threads() / 16);
    let (low_by, high_by) = (mine.low as u32 & 28_u32, mine.high as u32 & 28_u32);
    for n in 0..LEAF / each {
        let row = (i >> 4_u32) + (n * each) as i32;
        let (low_at, high_at) = (at + place(row, mine.low), at + place(row, mine.high));
        let codes = room.load4::<u32>(low_at);
        let others = room.load4::<u32>(high_at);
        let side = sides.load4::<u32>(row * 16_i32);
        let (low_m, high_m) = ((side[3] >> low_by) & 15_u32, (side[3] >> high_by) & 15_u32);
        let mut low = [0_u32; 4];
        let mut high = [0_u32; 4];
        for k in 0..4 {
            let lanes = nope.decode([codes[k], others[k], 0_u32, 0_u32]);
            low[k] = if mine.coded { signed(lanes[0], low_m, m.rows.zero, m.rows.odd) } else { codes[k] };
            high[k] = if mine.coded { signed(lanes[1], high_m, m.rows.zero, m.rows.odd) } else { others[k] };
        }
        room.save4::<u32>(low_at, low);
        room.save4::<u32>(high_at, high);
        if (i & 15_i32) == 0_i32 {
            let somebody = slots.at(own + row) >= 0_i32;
            scales.put(row, if somebody { bounded(f32::from_bits(side[2])) } else { 0.0_f32 });
            bias.put(row, if somebody { 0.0_f32 } else { f32::NEG_INFINITY });
        }
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
