//! Lloyd-Max levels of 3 or 4 bits for rotated rows of known norm: `lloyd3`, `lloyd4`, the keys of the `turboquant` presets.
//!
//! A row over its norm, rotated, is close to a Gaussian, for which the levels are best. Levels become bytes by one factor
//! (error below 3e-5 of the row's square, part of the definition), so that decoding is a look-up of bytes in registers.
//! What is stored is `1024 |x| / |bytes|`: the decoded row has the norm of the row.
//! Source: vLLM's TurboQuant cache, presets with norm correction.

use kernel_dsl::math::{dot4, pick};
use kernel_dsl::{codec, device};

use super::cells::{cells_of_three, cells8};
use super::lloyd_max::{bytes, levels, midpoints, step};
use crate::codec::{Codec, Spec};

#[derive(Debug)]
pub struct Lloyd {
    width: usize,
    /// The midpoints above zero, rising; those that the width lacks are above every coordinate.
    midpoints: [f32; 7],
    /// The bytes of the levels above zero; those below have all bits the other way round. With 3 bits the second
    /// word has them.
    bytes: [u32; 2],
    /// Of the levels above zero, how far twice their bytes are from 255; with 3 bits in both words.
    steps: [u32; 2],
}

impl Lloyd {
    /// `width`: 3 or 4 bits.
    pub fn new(width: usize) -> Lloyd {
        let levels = levels(width);
        let half = levels.len() / 2;
        let mut cells = [f32::INFINITY; 7];
        for (cell, m) in cells.iter_mut().zip(&midpoints(&levels)[half..]) {
            *cell = *m as f32;
        }
        let table = bytes(&levels[half..], step(&levels));
        let word = |b: &[u8]| b.iter().rev().fold(0, |w, b| w << 8 | u32::from(*b));
        let bytes = if width == 4 { [word(&table[..4]), word(&table[4..])] } else { [word(&table), !word(&table)] };
        let far = |b: &[u8]| word(&b.iter().map(|b| b.wrapping_mul(2).wrapping_add(1)).collect::<Vec<_>>());
        let steps = if width == 4 { [far(&table[..4]), far(&table[4..])] } else { [far(&table); 2] };
        Lloyd { width, midpoints: cells, bytes, steps }
    }

    /// The levels as decoded, rising, in lanes on both sides of zero.
    pub fn lanes(&self) -> Vec<f64> {
        let above = (0..1 << (self.width - 1)).map(|i| f64::from(self.bytes[i / 4] >> (8 * (i % 4)) & 0xff) - 127.5).collect::<Vec<_>>();
        above.iter().rev().map(|l| -l).chain(above.iter().copied()).collect()
    }
}

/// Where bit `bit` of dimension i of a 3-bit code stands: dims 0..6 in the lower three bits of nibbles, one bit of each of dims 6 and 7
/// above two of them.
#[device]
pub fn bit_at(i: usize, bit: usize) -> usize {
    if i < 6 { 4 * i + bit } else { 8 * bit + i % 2 * 4 + 3 }
}

/// A code with a level and its sign at dimension i.
#[device]
fn put(code: [u32; 4], i: usize, level: u32, sign: u32, width: usize) -> [u32; 4] {
    let mut out = code;
    if width == 4 {
        out[0] = out[0] | ((level | (sign << 3)) << (4 * i));
    } else {
        let own = level | (sign << 2);
        for bit in 0..3 {
            out[0] = out[0] | (((own >> bit) & 1_u32) << bit_at(i, bit));
        }
    }
    out
}

/// Dims 4 to 7 of a 3-bit code, a nibble each.
#[device]
fn high_of_three(w: u32) -> u32 {
    let rest = ((w >> 3) & 0x11_u32) | ((w >> 10) & 0x22_u32) | ((w >> 17) & 0x44_u32);
    ((w >> 16) & 0x77_u32) | (rest << 8)
}

/// Dims 2k and 2k + 1 of two of four codes as word 2k, of the other two as word 2k + 1.
#[device]
fn twos_of(w: [u32; 8], bytes: [u32; 2]) -> [u32; 8] {
    // The last word is 0, and nobody foresees it: an instruction has room for one constant, the other one so stays in a register.
    let near = w[7] ^ bytes[0];
    let rest = ((w[0] >> 3) & 0x1111_1111_u32) | ((w[1] >> 2) & 0x2222_2222_u32) | ((w[2] >> 1) & 0x4444_4444_u32);
    let mut out = [0_u32; 8];
    for k in 0..4 {
        let own = if k < 3 { w[k] & 0x7777_7777_u32 } else { rest };
        out[2 * k] = pick(near, bytes[1], own);
        out[2 * k + 1] = pick(near, bytes[1], own >> 16);
    }
    out
}

#[codec]
impl Codec for Lloyd {
    fn name(&self) -> String {
        format!("lloyd{}", self.width)
    }

    fn spec(&self) -> Spec {
        Spec { unit: true, spread: true, apart: true, corrected: true, bytewise: self.width == 3, twos: self.width == 3, level_bits: self.width, ..Spec::integers(8 * self.width, 255) }
    }

    fn side(&self, norm: f32, _top: f32) -> [f32; 2] {
        [norm, 0.0_f32]
    }

    fn correct(&self, side: [f32; 2], energy: f32) -> [f32; 2] {
        [side[0] / energy.sqrt() * 1024.0_f32, 0.0_f32]
    }

    fn energy(&self, code: [u32; 4]) -> i32 {
        let w = code[0];
        let (low, high) = if self.width == 4 { (w & 0x7777_7777_u32, (w & 0x7777_7777_u32) >> 16) } else { (w & 0x7777_u32, high_of_three(w)) };
        let (a, b) = (pick(self.steps[0], self.steps[1], low), pick(self.steps[0], self.steps[1], high));
        (dot4(a, a) + dot4(b, b)) as i32
    }

    fn plain(&self, side: [f32; 2], energy: f32) -> [f32; 2] {
        [side[0] * energy.sqrt() * 0.0009765625_f32, 0.0_f32]
    }

    fn encode(&self, y: [f32; 8], side: [f32; 2]) -> [u32; 4] {
        self.encode_over(y, side, 1.0_f32)
    }

    fn encode_over(&self, y: [f32; 8], _side: [f32; 2], over: f32) -> [u32; 4] {
        let mut own = [0_i32; 7];
        for i in 0..7 {
            own[i] = (self.midpoints[i] * over).to_bits() as i32;
        }
        let code = if self.width == 4 { cells8(y, own) } else { cells_of_three(y, own) };
        [code, 0_u32, 0_u32, 0_u32]
    }

    fn levels(&self, code: [u32; 4]) -> [u32; 8] {
        let mut c = [0_u32; 8];
        let below = (1_u32 << (self.width - 1)) - 1_u32;
        for i in 0..8 {
            let mut own = 0_u32;
            for bit in 0..self.width {
                own = own | (((code[0] >> (if self.width == 4 { 4 * i + bit } else { bit_at(i, bit) })) & 1_u32) << bit);
            }
            let (level, sign) = (own & below, own >> (self.width - 1));
            c[i] = if sign == 1_u32 { below - level } else { below + 1_u32 + level };
        }
        c
    }

    fn of_levels(&self, levels: [u32; 8]) -> [u32; 4] {
        let mut code = [0_u32; 4];
        let below = (1_u32 << (self.width - 1)) - 1_u32;
        for i in 0..8 {
            let sign = if levels[i] > below { 0_u32 } else { 1_u32 };
            let level = if levels[i] > below { levels[i] - below - 1_u32 } else { below - levels[i] };
            code = put(code, i, level, sign, self.width);
        }
        code
    }

    fn decode(&self, code: [u32; 4]) -> [u32; 4] {
        let w = code[0];
        if self.width == 4 {
            let level = w & 0x7777_7777_u32;
            let (low, high) = (pick(self.bytes[0], self.bytes[1], level), pick(self.bytes[0], self.bytes[1], level >> 16));
            // The tops of the nibbles, each eight times.
            let left = w << 4;
            [low ^ pick(left, w, 0xd9c8_u32), high ^ pick(left, w, 0xfbea_u32), 0_u32, 0_u32]
        } else {
            [pick(self.bytes[0], self.bytes[1], w & 0x7777_u32), pick(self.bytes[0], self.bytes[1], high_of_three(w)), 0_u32, 0_u32]
        }
    }

    fn decode4(&self, w: [u32; 8]) -> [u32; 8] {
        let twos = twos_of(w, self.bytes);
        let mut out = [0_u32; 8];
        for k in 0..4 {
            out[2 * k] = pick(twos[2 * k], twos[2 * k + 1], 0x6420_u32);
            out[2 * k + 1] = pick(twos[2 * k], twos[2 * k + 1], 0x7531_u32);
        }
        out
    }

    fn twos4(&self, w: [u32; 8]) -> [u32; 8] {
        twos_of(w, self.bytes)
    }

    fn scale(&self, side: [f32; 2]) -> f32 {
        side[0] * 0.001953125_f32
    }
}
