//! Rows as engines store them: numbers of floating point under powers of two, RoPE's in bf16.
//!
//! `v4_fp8` is FlashMLA's MODEL1 and vLLM's `fp8_ds_mla`: a page of P rows is P x 576 bytes, 448 E4M3 codes and 64 bf16, then
//! P x 8 bytes, seven exponents of scales and a zero. `v4_mxfp4` is 224 bytes of E2M1 codes (even numbers in low nibbles), 14 exponents,
//! two zeros, 64 bf16. A scale is the least power of two under which its numbers do not saturate.

use half::bf16;
use kernel_dsl::math::{e2m1_of, e4m3_of, e4m3_value, fmax, sanitise};

use super::{DIM, GROUP, NOPE, ROPE};

/// Exponent byte (bias 127) of the least power of two that is at least `x`, a positive normal number.
pub fn e8m0_above(x: f32) -> u8 {
    ((x.to_bits() + 0x7f_ffff) >> 23) as u8
}

/// What an exponent byte stands for; 0 is 2^-127, 255 is read as 2^127.
fn power(byte: u8) -> f32 {
    if byte == 0 { f32::from_bits(0x40_0000) } else { f32::from_bits(u32::from(byte.min(254)) << 23) }
}

fn top(x: &[f32]) -> f32 {
    x.iter().fold(0.0, |top, x| fmax(top, x.abs()))
}

/// E4M3 codes of 448 numbers and the exponents of their scales, one for 64.
pub fn fp8_codes(x: &[f32]) -> ([u8; NOPE], [u8; NOPE / GROUP]) {
    let x: Vec<f32> = x.iter().map(|&x| sanitise(x, f32::MAX)).collect();
    let exponents: [u8; NOPE / GROUP] = std::array::from_fn(|g| e8m0_above(fmax(top(&x[g * GROUP..(g + 1) * GROUP]), 1e-4) / 448.0));
    (std::array::from_fn(|i| e4m3_of(x[i] / power(exponents[i / GROUP])) as u8), exponents)
}

fn put_bf16(bytes: &mut [u8], x: &[f32]) {
    for (to, x) in bytes.chunks_exact_mut(2).zip(x) {
        to.copy_from_slice(&bf16::from_f32(*x).to_le_bytes());
    }
}

fn bf16_at(bytes: &[u8], i: usize) -> f32 {
    bf16::from_le_bytes([bytes[2 * i], bytes[2 * i + 1]]).to_f32()
}

pub(super) struct Bf16Row;

impl Bf16Row {
    pub const BYTES: usize = 2 * DIM;

    pub fn encode(x: &[f32; DIM], row: &mut [u8]) {
        put_bf16(row, x);
    }

    pub fn decode(row: &[u8]) -> [f32; DIM] {
        std::array::from_fn(|i| bf16_at(row, i))
    }
}

pub(super) struct Fp8Row;

impl Fp8Row {
    /// Codes and bf16 numbers.
    const BODY: usize = NOPE + 2 * ROPE;
    pub const BYTES: usize = Self::BODY + 8;

    pub fn page_bytes(rows: usize) -> usize {
        (rows * Self::BYTES).next_multiple_of(Self::BODY)
    }

    pub fn encode(x: &[f32; DIM], page: &mut [u8], rows: usize, at: usize) {
        let (codes, exponents) = fp8_codes(&x[..NOPE]);
        let body = &mut page[at * Self::BODY..(at + 1) * Self::BODY];
        body[..NOPE].copy_from_slice(&codes);
        put_bf16(&mut body[NOPE..], &x[NOPE..]);
        let scales = &mut page[rows * Self::BODY + 8 * at..][..8];
        scales[..7].copy_from_slice(&exponents);
        scales[7] = 0;
    }

    pub fn decode(page: &[u8], rows: usize, at: usize) -> [f32; DIM] {
        let (body, scales) = (&page[at * Self::BODY..], &page[rows * Self::BODY + 8 * at..]);
        std::array::from_fn(|i| match i {
            0..NOPE => e4m3_value(u32::from(body[i])) * power(scales[i / GROUP]),
            _ => bf16_at(&body[NOPE..], i - NOPE),
        })
    }
}

pub(super) struct Mxfp4Row;

impl Mxfp4Row {
    /// Numbers under one scale.
    const SHARED: usize = 32;
    const EXPONENTS: usize = NOPE / 2;
    const TURNED: usize = Self::EXPONENTS + 16;
    pub const BYTES: usize = Self::TURNED + 2 * ROPE;

    pub fn encode(x: &[f32; DIM], row: &mut [u8]) {
        row.fill(0);
        for (g, x) in x[..NOPE].chunks(Self::SHARED).enumerate() {
            // Not below 2^-100.
            let exponent = e8m0_above(fmax(top(x) / 6.0, 7.888_609e-31));
            row[Self::EXPONENTS + g] = exponent;
            for (i, x) in x.iter().enumerate() {
                row[(g * Self::SHARED + i) / 2] |= (e2m1_of(x / power(exponent)) as u8) << (4 * (i % 2));
            }
        }
        put_bf16(&mut row[Self::TURNED..], &x[NOPE..]);
    }

    pub fn decode(row: &[u8]) -> [f32; DIM] {
        std::array::from_fn(|i| match i {
            0..NOPE => e2m1_value(row[i / 2] >> (4 * (i % 2)) & 15) * power(row[Self::EXPONENTS + i / Self::SHARED]),
            _ => bf16_at(&row[Self::TURNED..], i - NOPE),
        })
    }
}

fn e2m1_value(code: u8) -> f32 {
    let magnitude = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0][usize::from(code & 7)];
    if code & 8 == 0 { magnitude } else { -magnitude }
}
