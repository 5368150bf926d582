//! Rows of integers: each coordinate is a signed byte times the row's one scale, so that attention is a product of bytes.
//!
//! Every 64 numbers are turned by the Hadamard matrix over 8. The 448 without a position are coded by any codec of small integers, RoPE's 64 as
//! bytes. A group of 64 whose numbers are smaller than others' has finer levels without a scale of its own: its levels are
//! `multiplier` times a lane, 1 to `most`, where the largest group has about the largest multiplier that a byte holds. Scaled
//! groups cost nothing in a product of bytes, scales of groups would cost a pass each.
//!
//! A row is `[codes | 64 bytes of RoPE's numbers | padding | scale f32 | multipliers, four bits each]`, a multiple of 16 bytes. A code word
//! holds the numbers 4b.. and 224 + 4b.. of its block b, so that words of four lanes lie in the order of the row. Codes are cut into planes of
//! 32, 16 and 8 bits and what is left, each with all blocks in order.

use half::bf16;
use kernel_dsl::device;
use kernel_dsl::math::{fmax, fmin, sanitise};

use super::whole::Whole;
use super::{DIM, GROUP, NOPE, ROPE};
use crate::codec::{Codec, Lane};
use crate::kernels::softmax::bounded;
use crate::registry::codec;

/// Blocks of eight of the numbers without a position.
const BLOCKS: usize = NOPE / 8;

/// Below it a row's scale is 0.
const LEAST: f32 = 1e-30;

#[derive(Clone, Copy, Debug)]
pub struct Integers {
    pub nope: &'static dyn Codec,
    /// RoPE's numbers are bytes of the row; else bf16, not turned, and no row of integers.
    pub whole: bool,
    /// What the largest number of a group wants one lane to be worth under multiplier 1, over that number.
    pub wanted: f32,
    /// The largest multiplier.
    pub most: u32,
    /// Lanes are doubled: zero lies half way between two.
    pub odd: bool,
    /// The lane of zero, doubled likewise.
    pub zero: u32,
    /// Side values under which a lane is worth 1.
    pub side: [f32; 2],
}

impl Integers {
    pub fn of(nope: &str, rope: &str) -> Option<Integers> {
        let number = |prefix: &str| nope.strip_prefix(prefix)?.parse::<usize>().ok().filter(|n| nope == format!("{prefix}{n}"));
        let whole = match rope {
            "int8" => true,
            "bf16" => false,
            _ => return None,
        };
        let nope: &'static dyn Codec = match (number("int"), number("e8w"), number("e8q")) {
            (Some(8), ..) => &Whole,
            (Some(2..=7), ..) | (_, Some(2..=7), _) | (.., Some(1..=63)) => codec(nope).ok()?.k.bands[0],
            _ => return None,
        };
        Some(Integers::with(nope, whole))
    }

    fn with(nope: &'static dyn Codec, whole: bool) -> Integers {
        let spec = nope.spec();
        debug_assert!(spec.lane == Lane::U8 && !spec.affine && !spec.mixed);
        let odd = spec.odd();
        let zero = if odd { spec.zero2 } else { spec.zero2 / 2 } as u32;
        // Lattices with 2Q + 1 levels reach as far up as down, the others one lane less.
        let most = ((if spec.unit || odd { 127 } else { 128 }) / zero).clamp(1, 15);
        let doubled = if odd { 0.5 } else { 1.0 };
        let side = if spec.unit {
            [1.0, zero as f32]
        } else if odd || spec.zero2 < 256 || spec.bits < 64 {
            [2.0, 0.0]
        } else {
            [1.0, 0.0]
        };
        Integers { nope, whole, wanted: nope.scale(nope.side(1.0, 1.0)) * doubled, most, odd, zero, side }
    }

    /// Bytes of the codes of the numbers without a position.
    pub fn code_bytes(&self) -> usize {
        BLOCKS * self.nope.spec().bits / 8
    }

    pub fn row_bytes(&self) -> usize {
        (self.code_bytes() + if self.whole { ROPE } else { 2 * ROPE } + 8).next_multiple_of(16)
    }

    /// What the row's scale is at least, over the largest number of a group and over that of RoPE's.
    pub fn shares(&self) -> [f32; 2] {
        [self.wanted / self.most as f32, if self.whole { 1.0 / 127.0 } else { 0.0 }]
    }

    /// The row's scale.
    fn scale(&self, tops: &[f32; 8]) -> f32 {
        let [nope, rope] = self.shares();
        let scale = tops[..7].iter().fold(tops[7] * rope, |scale, top| fmax(scale, top * nope));
        if scale < LEAST { 0.0 } else { scale }
    }

    /// Codes a row whose numbers without a position are rounded.
    pub fn encode(&self, x: &[f32; DIM], row: &mut [u8]) {
        let mut y = x.map(|x| sanitise(x, 65504.0));
        let turned = if self.whole { DIM } else { NOPE };
        y[..turned].chunks_mut(GROUP).for_each(turn);
        let tops: [f32; 8] = std::array::from_fn(|g| y[g * GROUP..(g + 1) * GROUP].iter().fold(0.0, |top, y| fmax(top, y.abs())));
        let scale = self.scale(&tops);
        let multipliers: [u32; 8] = std::array::from_fn(|g| if g < 7 { multiplier(tops[g], self.wanted, scale, self.most as f32) } else { 1 });
        let inverse = multipliers.map(|m| if scale > 0.0 { 1.0 / (scale * m as f32) } else { 0.0 });
        row.fill(0);
        let z: [f32; DIM] = std::array::from_fn(|i| y[i] * inverse[i / GROUP]);
        for block in 0..BLOCKS {
            let own: [f32; 8] = std::array::from_fn(|i| z[self.dim(block, i)]);
            self.put_code(row, block, self.nope.encode(own, self.side));
        }
        let rope = &mut row[self.code_bytes()..];
        for i in 0..ROPE {
            if self.whole {
                rope[i] = fmin(fmax(z[NOPE + i].round_ties_even(), -127.0), 127.0) as i8 as u8;
            } else {
                rope[2 * i..2 * i + 2].copy_from_slice(&bf16::from_f32(x[NOPE + i]).to_le_bytes());
            }
        }
        let packed = multipliers.iter().enumerate().fold(0, |all, (g, m)| all | m << (4 * g));
        let sides = row.len() - 8;
        row[sides..sides + 4].copy_from_slice(&scale.to_le_bytes());
        row[sides + 4..].copy_from_slice(&packed.to_le_bytes());
    }

    /// The number of the row that is the i-th of a block.
    fn dim(&self, block: usize, i: usize) -> usize {
        i / 4 * (NOPE / 2) + 4 * block + i % 4
    }

    /// The row as signed bytes, and what one is worth; RoPE's are 0 where they are no bytes.
    pub fn lanes(&self, row: &[u8]) -> ([i8; DIM], f32) {
        let mut lanes = [0; DIM];
        let word = |at: usize| u32::from_le_bytes([row[at], row[at + 1], row[at + 2], row[at + 3]]);
        let multipliers = word(row.len() - 4);
        for block in 0..BLOCKS {
            let words = self.nope.decode(self.code(row, block));
            for (half, &lane) in words[..2].iter().enumerate() {
                let first = self.dim(block, 4 * half);
                let m = multipliers >> (4 * (first / GROUP)) & 15;
                lanes[first..first + 4].copy_from_slice(&signed(lane, m, self.zero, self.odd).to_le_bytes().map(|b| b as i8));
            }
        }
        if self.whole {
            lanes[NOPE..].iter_mut().zip(&row[self.code_bytes()..]).for_each(|(lane, byte)| *lane = *byte as i8);
        }
        (lanes, bounded(f32::from_bits(word(row.len() - 8))))
    }

    pub fn decode(&self, row: &[u8]) -> [f32; DIM] {
        let (lanes, scale) = self.lanes(row);
        let mut y = lanes.map(f32::from);
        y.chunks_mut(GROUP).for_each(turn);
        y.iter_mut().for_each(|y| *y *= scale);
        if !self.whole {
            let rope = &row[self.code_bytes()..];
            (0..ROPE).for_each(|i| y[NOPE + i] = bf16::from_le_bytes([rope[2 * i], rope[2 * i + 1]]).to_f32());
        }
        y
    }

    /// Widths of the planes and their first code bits.
    fn planes(&self) -> Vec<(usize, usize)> {
        let bits = self.nope.spec().bits;
        let mut planes: Vec<(usize, usize)> = (0..bits / 32).map(|i| (32, 32 * i)).collect();
        let mut first = bits / 32 * 32;
        for width in [16, 8, bits % 8] {
            if width > 0 && bits - first >= width {
                planes.push((width, first));
                first += width;
            }
        }
        planes
    }

    fn put_code(&self, row: &mut [u8], block: usize, code: [u32; 4]) {
        for (width, first) in self.planes() {
            for i in 0..width {
                let (from, to) = (first + i, BLOCKS * first + block * width + i);
                row[to / 8] |= ((code[from / 32] >> (from % 32) & 1) as u8) << (to % 8);
            }
        }
    }

    fn code(&self, row: &[u8], block: usize) -> [u32; 4] {
        let mut code = [0; 4];
        for (width, first) in self.planes() {
            for i in 0..width {
                let (to, from) = (first + i, BLOCKS * first + block * width + i);
                code[to / 32] |= u32::from(row[from / 8] >> (from % 8) & 1) << (to % 32);
            }
        }
        code
    }
}

/// The multiplier of a group: a quarter of a lane more than it has room for is clipped.
#[device]
pub fn multiplier(top: f32, wanted: f32, scale: f32, most: f32) -> u32 {
    let lanes = if scale > 0.0_f32 { (top * wanted) / scale } else { 0.0_f32 };
    fmin(fmax((lanes - 0.25_f32).ceil(), 1.0_f32), most) as u32
}

/// Four lanes of a codec as signed bytes, less zero and times a multiplier: no product of a sound row leaves its byte.
#[device]
pub fn signed(lanes: u32, m: u32, zero: u32, odd: bool) -> u32 {
    let by = if odd { m + m } else { m };
    let zeros = 128_u32.wrapping_sub(zero.wrapping_mul(m));
    lanes.wrapping_mul(by).wrapping_add(zeros.wrapping_mul(0x0101_0101_u32)) ^ 0x8080_8080_u32
}

/// Multiplies 64 numbers by the Hadamard matrix over 8, natural order; its own inverse.
pub(super) fn turn(x: &mut [f32]) {
    for stage in 0..6 {
        let h = 1 << stage;
        for i in (0..GROUP).filter(|i| i & h == 0) {
            (x[i], x[i + h]) = (x[i] + x[i + h], x[i] - x[i + h]);
        }
    }
    x.iter_mut().for_each(|x| *x *= 0.125);
}
