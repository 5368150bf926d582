//! Numbers of 1 to 4 bits that stand for the levels of any table: half of a cache whose scales belong to blocks of tokens (`pca`).
//! No row can be coded with it alone, so no name opens it.
//!
//! Levels become signed bytes under one factor, the largest 127; zero is the lane 128. Decoding is a look-up of bytes in registers,
//! so numbers lie in nibbles.

use kernel_dsl::math::pick;
use kernel_dsl::{codec, device};

use crate::codec::{Codec, Spec};

#[derive(Debug)]
pub struct Levels {
    width: usize,
    /// Lanes of the levels in their order, four a word; beyond the last level 128.
    bytes: [u32; 4],
    /// Lanes a unit.
    step: f32,
}

impl Levels {
    /// `levels`: 2, 4, 8 or 16 of them.
    pub fn new(levels: &[f32]) -> Levels {
        Levels::reaching(levels, 0.0)
    }

    /// With `reach` no more than 127 lanes too.
    pub fn reaching(levels: &[f32], reach: f32) -> Levels {
        let step = 127.0 / levels.iter().fold(reach.max(f32::MIN_POSITIVE), |top, l| top.max(l.abs()));
        let lane = |i: usize| levels.get(i).map_or(128, |l| (128.0 + (l * step).round()) as u8);
        let word = |w: usize| u32::from_le_bytes([0, 1, 2, 3].map(|i| lane(4 * w + i)));
        Levels { width: levels.len().ilog2() as usize, bytes: [0, 1, 2, 3].map(word), step }
    }

    /// Lanes a unit.
    pub fn step(&self) -> f32 {
        self.step
    }

    /// The lane of a level, from 128.
    pub fn lane(&self, number: usize) -> i32 {
        i32::from(self.bytes[number / 4].to_le_bytes()[number % 4]) - 128
    }
}

/// Where bits `from ..` of the number of dimension i stand: below 4 bits dims 0..4 in the low bits of four nibbles, the others above them,
/// of 3 bits the two lower ones in the third byte in pairs that one shift spreads to nibbles.
#[device]
fn place(i: usize, width: usize) -> usize {
    if width == 4 { 4 * i } else { if width == 3 { if i < 4 { 4 * i } else { 16 + i % 2 * 4 + (i - 4) / 2 * 2 } } else { if width == 2 { i % 4 * 4 + i / 4 * 2 } else { i % 2 * 4 + i / 2 } } }
}

/// Of numbers of 3 bits, where the highest one stands.
#[device]
fn top_place(i: usize) -> usize {
    if i < 4 { 4 * i + 2 } else { 4 * (i - 4) + 3 }
}

#[codec]
impl Codec for Levels {
    fn name(&self) -> String {
        format!("levels{}", self.width)
    }

    fn spec(&self) -> Spec {
        Spec { sides: 0, rotate: false, level_bits: self.width, ..Spec::integers(8 * self.width, 256) }
    }

    fn side(&self, _norm: f32, _top: f32) -> [f32; 2] {
        [0.0_f32, 0.0_f32]
    }

    fn encode(&self, y: [f32; 8], _side: [f32; 2]) -> [u32; 4] {
        let mut c = [0_u32; 8];
        for i in 0..8 {
            c[i] = y[i] as u32;
        }
        self.of_levels(c)
    }

    fn levels(&self, code: [u32; 4]) -> [u32; 8] {
        let mut c = [0_u32; 8];
        for i in 0..8 {
            if self.width == 3 {
                c[i] = ((code[0] >> place(i, 3)) & 3_u32) | (((code[0] >> top_place(i)) & 1_u32) << 2);
            } else {
                c[i] = (code[0] >> place(i, self.width)) & ((1_u32 << self.width) - 1_u32);
            }
        }
        c
    }

    fn of_levels(&self, levels: [u32; 8]) -> [u32; 4] {
        let mut code = 0_u32;
        for i in 0..8 {
            if self.width == 3 {
                code = code | ((levels[i] & 3_u32) << place(i, 3)) | ((levels[i] >> 2) << top_place(i));
            } else {
                code = code | (levels[i] << place(i, self.width));
            }
        }
        [code, 0_u32, 0_u32, 0_u32]
    }

    fn decode(&self, code: [u32; 4]) -> [u32; 4] {
        let w = code[0];
        let b = self.bytes;
        if self.width == 4 {
            let level = w & 0x7777_7777_u32;
            let (low, high) = (pick(b[0], b[1], level), pick(b[0], b[1], level >> 16));
            let (low_up, high_up) = (pick(b[2], b[3], level), pick(b[2], b[3], level >> 16));
            // The tops of the nibbles, each eight times.
            let left = w << 4;
            let (low_mask, high_mask) = (pick(left, w, 0xd9c8_u32), pick(left, w, 0xfbea_u32));
            [low ^ ((low ^ low_up) & low_mask), high ^ ((high ^ high_up) & high_mask), 0_u32, 0_u32]
        } else {
            if self.width == 3 {
                let levels = w >> 16;
                let high = ((w >> 1) & 0x4444_u32) | ((levels | (levels << 6)) & 0x3333_u32);
                [pick(b[0], b[1], w & 0x7777_u32), pick(b[0], b[1], high), 0_u32, 0_u32]
            } else {
                if self.width == 2 {
                    [pick(b[0], b[0], w & 0x3333_u32), pick(b[0], b[0], (w >> 2) & 0x3333_u32), 0_u32, 0_u32]
                } else {
                    let high = w >> 2;
                    [pick(b[0], b[0], (w & 0x11_u32) | ((w & 0x22_u32) << 7)), pick(b[0], b[0], (high & 0x11_u32) | ((high & 0x22_u32) << 7)), 0_u32, 0_u32]
                }
            }
        }
    }

    fn scale(&self, _side: [f32; 2]) -> f32 {
        1.0_f32
    }
}
