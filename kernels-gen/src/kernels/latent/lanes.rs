//! A leaf's rows become signed bytes in shared memory, once for all heads, for scores and for values.

use kernel_dsl::prelude::*;

use super::THREADS;
use super::decode::DecodeMeta;
use crate::codec::Codec;
use crate::kernels::softmax::bounded;
use crate::latent::{DIM, Format, LEAF, NOPE, signed};

/// Where rows lie in shared memory: bytes from one to the next, and more after every 16.
pub const STRIDE: usize = DIM + 16;
pub const GAP: usize = 32;

/// Bytes of a leaf's rows there, and of half of them.
pub const ROWS: usize = LEAF * STRIDE + LEAF / 16 * GAP;

/// Pieces of 16 bytes of the lower half of a row's numbers without a position.
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

/// First byte of a row in shared memory.
#[device]
pub fn place(row: i32) -> i32 {
    row * STRIDE as i32 + (row >> 4_u32) * GAP as i32
}

/// 16 bytes of a row of either cache, those of the second numbered after those of the first; nobody's are zeros.
#[device]
fn piece(m: &DecodeMeta, window: &Global<u8>, extra: &Global<u8>, window_rows: i32, row: i32, byte: i32) -> [u32; 4] {
    let mut w = [0_u32; 4];
    if row >= 0_i32 {
        if row < window_rows {
            w = window.load4::<u32>(row as i64 * m.rows.row_bytes as i64 + byte as i64);
        } else {
            w = extra.load4::<u32>((row - window_rows) as i64 * m.rows.row_bytes as i64 + byte as i64);
        }
    }
    w
}

/// What thread i brings of the leaf whose rows are `slots`: lanes, scales, and -inf for nobody's scores.
#[device]
#[allow(clippy::too_many_arguments)]
pub fn bring(m: &DecodeMeta, nope: &dyn Codec, window: &Global<u8>, extra: &Global<u8>, window_rows: i32, slots: &Shared<i32>, room: &mut Shared<i8>, at: i32, scales: &mut Shared<f32>, bias: &mut Shared<f32>, i: i32) {
    // Loads are on their way before the first is looked at, in two rounds.
    let items = LEAF * PIECES / THREADS / 2;
    for round in 0..2 {
        let mut codes = [0_u32; 56];
        let mut sides = [0_u32; 7];
        for n in 0..items {
            let item = i + ((round * items + n) * THREADS) as i32;
            let row = slots.at(item / PIECES as i32);
            for half in 0..m.rows.words {
                let w = piece(m, window, extra, window_rows, row, item % PIECES as i32 * 16_i32 + (half * NOPE / 2) as i32);
                for k in 0..4 {
                    codes[(half * items + n) * 4 + k] = w[k];
                }
            }
            sides[n] = multipliers(m, window, extra, window_rows, row);
        }
        for n in 0..items {
            let item = i + ((round * items + n) * THREADS) as i32;
            let (row, j) = (item / PIECES as i32, item % PIECES as i32);
            let (low_m, high_m) = ((sides[n] >> (j as u32 & 28_u32)) & 15_u32, (sides[n] >> ((j + PIECES as i32) as u32 & 28_u32)) & 15_u32);
            let mut low = [0_u32; 4];
            let mut high = [0_u32; 4];
            for k in 0..4 {
                let lanes = nope.decode([codes[4 * n + k], codes[(m.rows.words - 1) * items * 4 + 4 * n + k], 0_u32, 0_u32]);
                low[k] = signed(lanes[0], low_m, m.rows.zero, m.rows.odd);
                high[k] = signed(lanes[1], high_m, m.rows.zero, m.rows.odd);
            }
            room.save4::<u32>(at + place(row) + j * 16_i32, low);
            room.save4::<u32>(at + place(row) + j * 16_i32 + (NOPE / 2) as i32, high);
        }
    }
    let mut turned = [0_u32; 16];
    for n in 0..LEAF * 4 / THREADS {
        let item = i + (n * THREADS) as i32;
        let w = piece(m, window, extra, window_rows, slots.at(item >> 2_u32), (item & 3_i32) * 16_i32 + m.rows.code_bytes() as i32);
        for k in 0..4 {
            turned[4 * n + k] = w[k];
        }
    }
    let row = slots.at(i);
    let mut scale = 0.0_f32;
    if row >= 0_i32 {
        if row < window_rows {
            scale = window.load::<f32>(row as i64 * m.rows.row_bytes as i64 + (m.rows.row_bytes - 8) as i64);
        } else {
            scale = extra.load::<f32>((row - window_rows) as i64 * m.rows.row_bytes as i64 + (m.rows.row_bytes - 8) as i64);
        }
    }
    for n in 0..LEAF * 4 / THREADS {
        let item = i + (n * THREADS) as i32;
        let to = at + place(item >> 2_u32) + (item & 3_i32) * 16_i32 + NOPE as i32;
        room.save4::<u32>(to, [turned[4 * n], turned[4 * n + 1], turned[4 * n + 2], turned[4 * n + 3]]);
    }
    scales.put(i, bounded(scale));
    bias.put(i, if row >= 0_i32 { 0.0_f32 } else { f32::NEG_INFINITY });
}

/// Asks for a row of the next leaf.
#[device]
pub fn expect(m: &DecodeMeta, window: &Global<u8>, extra: &Global<u8>, window_rows: i32, row: i32) {
    if row >= 0_i32 {
        // The last line is that of the scale.
        for n in 0..m.rows.row_bytes / 128 + 1 {
            let byte = if 128 * n < m.rows.row_bytes { 128 * n } else { m.rows.row_bytes - 4 };
            if row < window_rows {
                window.prefetch(row as i64 * m.rows.row_bytes as i64 + byte as i64);
            } else {
                extra.prefetch((row - window_rows) as i64 * m.rows.row_bytes as i64 + byte as i64);
            }
        }
    }
}

/// The multipliers of a row's groups.
#[device]
fn multipliers(m: &DecodeMeta, window: &Global<u8>, extra: &Global<u8>, window_rows: i32, row: i32) -> u32 {
    let mut w = 0_u32;
    if row >= 0_i32 {
        if row < window_rows {
            w = window.load::<u32>(row as i64 * m.rows.row_bytes as i64 + (m.rows.row_bytes - 4) as i64);
        } else {
            w = extra.load::<u32>((row - window_rows) as i64 * m.rows.row_bytes as i64 + (m.rows.row_bytes - 4) as i64);
        }
    }
    w
}
