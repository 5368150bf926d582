//! One vector through a codec: sanitise, normalise, rotate, code; and back.

use half::{bf16, f16};
use kernel_dsl::math::{fmax, fmin, sanitise};

use crate::codec::{Codec, Lane};
use crate::kernels::offset::within;
use crate::kernels::softmax::{bounded, sound};
use crate::registry::Half;

/// A coded vector: one code a block of 8 coordinates, and the f16 bits of its sides.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Row {
    pub codes: Vec<[u32; 4]>,
    pub side: [u16; 2],
}

impl Half {
    /// Codes a row of 64, 128, 256 or 512 coordinates.
    pub fn encode_row(&self, x: &[f32]) -> Row {
        self.corrected_row(self.encode_plain(x))
    }

    /// As `encode_row`, its sides not yet corrected.
    pub fn encode_plain(&self, x: &[f32]) -> Row {
        let mut y: Vec<f32> = x.iter().map(|&x| sanitise(x, self.limit)).collect();
        let (mut norm, mut factor) = (0.0, 1.0);
        if self.rotate && !self.spread {
            factor = rotation_scale(y.len());
        }
        if self.unit {
            norm = squares(&y).sqrt();
            factor /= fmax(norm, f32::EPSILON);
        }
        if self.rotate {
            // Within blocks of eight, across blocks four apart, then across four neighbours.
            let far = (5..).map(|s| 1 << s).take_while(|h| *h < x.len());
            [1, 2, 4].into_iter().chain(far).chain([8, 16]).for_each(|h| butterfly(&mut y, h));
        }
        // Codecs that correct their sides get no zero with a sign.
        if !self.apart {
            y.iter_mut().for_each(|y| *y = if self.corrected { y.mul_add(factor, 0.0) } else { *y * factor });
        }
        let mut top = y.iter().fold(0.0, |top, y| fmax(top, y.abs()));
        let mut over = if self.rotate && !self.spread { (y.len() as f32).sqrt() } else { 1.0 };
        if self.apart {
            top *= factor;
            over *= if self.unit { fmax(norm, f32::EPSILON) } else { 1.0 };
        }
        if self.affine {
            // Of two zeros the positive one.
            norm = y.iter().fold(f32::INFINITY, |least, y| fmin(least, *y)) + 0.0;
            top = y.iter().fold(f32::NEG_INFINITY, |top, y| fmax(top, *y));
        }
        let coded = |wanted: [f32; 2]| {
            let side = wanted.map(f16_bits);
            let own = if self.affine { wanted } else { side.map(f16_value) };
            let blocks = y.as_chunks::<8>().0;
            let code = |(i, b): (usize, &[f32; 8])| {
                let codec = self.codec(i, blocks.len());
                if self.group == 0 {
                    return if self.apart { codec.encode_over(*b, own, over) } else { codec.encode(*b, own) };
                }
                // Its group's value beside the vector's, and behind the code.
                let group = y.chunks(self.group).nth(8 * i / self.group).unwrap_or(&[]);
                let value = codec.group(group.iter().fold(0.0, |top, y| fmax(top, y.abs())));
                let mut code = codec.encode(*b, [value, own[0]]);
                code[self.bits.div_ceil(32)] = codec.shared(value);
                code
            };
            let codes = blocks.iter().enumerate().map(code).collect();
            Row { codes, side }
        };
        if self.searches > 0 {
            return coded([self.searched(&y), 0.0]);
        }
        let mut tries = (0..self.tries).map(|t| coded(self.bands[0].trial(norm, top, t)));
        let Some(mut best) = tries.next() else { unreachable!("tries is at least 1") };
        let mut least = if self.tries > 1 { self.error(&y, norm, &best) } else { 0.0 };
        for row in tries {
            let error = self.error(&y, norm, &row);
            if error < least {
                (best, least) = (row, error);
            }
        }
        best
    }

    /// The scale that a search finds, its sums as four threads take them: each a quarter of the row, or of several bands every
    /// fourth block.
    fn searched(&self, y: &[f32]) -> f32 {
        let blocks = y.as_chunks::<8>().0;
        let own = blocks.len() / self.bands.len();
        let (count, step) = if self.bands.len() == 1 { (own / 4, 1) } else { (own.div_ceil(4), 4) };
        let pull = |scale: f32, j: usize| {
            let from = if step == 1 { j * count } else { j };
            let all = (0..self.bands.len()).flat_map(|band| (0..count).map(move |i| (band, from + i * step)).filter(|(_, block)| *block < own));
            all.fold(0.0_f32, |sum, (band, block)| sum + self.bands[band].pull(blocks[band * own + block], scale))
        };
        (0..self.searches).fold(1.0, |scale, step| {
            let p: [f32; 4] = std::array::from_fn(|j| pull(scale, j));
            self.bands[0].search(scale, (p[0] + p[1]) + (p[2] + p[3]), step)
        })
    }

    /// The row with the side values that are stored for it.
    pub fn corrected_row(&self, mut row: Row) -> Row {
        if self.corrected {
            row.side = self.bands[0].correct(row.side.map(f16_value), self.energy(&row)).map(f16_bits);
        }
        row
    }

    /// The row with the side values that it was coded with, as well as they can be told.
    pub fn plain_row(&self, mut row: Row) -> Row {
        if self.corrected {
            row.side = self.bands[0].plain(row.side.map(f16_value), self.energy(&row)).map(f16_bits);
        }
        row
    }

    fn energy(&self, row: &Row) -> f32 {
        self.row_steps(row).map(|s| s * s).sum::<i32>() as f32
    }

    /// The coordinates of a row in half units of `scale`.
    fn row_steps<'a>(&'a self, row: &'a Row) -> impl Iterator<Item = i32> + 'a {
        let n = row.codes.len();
        row.codes.iter().enumerate().flat_map(move |(block, code)| self.steps((block, n), *code))
    }

    /// Squared error of a coded row in the rotated space: one fused chain in the order of the coordinates.
    fn error(&self, y: &[f32], norm: f32, row: &Row) -> f32 {
        let scale = self.bands[0].scale(row.side.map(f16_value));
        let gain = if self.unit { fmax(norm, f32::EPSILON) } else { 1.0 };
        y.iter().zip(self.row_steps(row)).fold(0.0, |sum, (y, s)| {
            let d = y * gain - scale * (s as f32 * 0.5);
            d.mul_add(d, sum)
        })
    }

    /// The vector that a row stands for, in the space of the inputs.
    pub fn decode_row(&self, row: &Row, d: usize) -> Vec<f32> {
        let mut y = Vec::with_capacity(d);
        for (block, &code) in row.codes.iter().enumerate() {
            let at = (block, row.codes.len());
            match self.lane {
                Lane::Bf16 => y.extend(self.floats(at, code)),
                _ => y.extend(self.steps(at, code).map(|s| s as f32)),
            }
        }
        if self.rotate && !self.affine {
            rotate(&mut y); // sums of integers: exact up to the factor
        }
        let scale = self.worth(row.side) * if self.exact() { 0.5 } else { 1.0 };
        y.iter_mut().for_each(|y| *y *= scale);
        if self.affine {
            let offset = self.offset(row.side);
            y.iter_mut().for_each(|y| *y += offset);
            if self.rotate {
                rotate(&mut y);
            }
        }
        y
    }

    /// What one lane step of a vector with these sides is worth.
    pub(crate) fn worth(&self, side: [u16; 2]) -> f32 {
        let side = if self.bands[0].spec().sides == 1 { [sound(u32::from(side[0])) as u16, 0] } else { side };
        bounded(self.bands[0].scale(side.map(f16_value)))
    }

    /// What is added to every coordinate of a vector with these sides; 0 but for affine codecs.
    pub(crate) fn offset(&self, side: [u16; 2]) -> f32 {
        if self.affine { within(self.bands[0].offset(side.map(f16_value))) } else { 0.0 }
    }

    /// The integer lanes of a code.
    fn lanes(&self, codec: &dyn Codec, code: [u32; 4]) -> [i32; 8] {
        let w = codec.decode(code);
        let byte = |word: usize, i: usize| (w[word + i / 4] >> (8 * (i % 4)) & 0xff) as i32;
        std::array::from_fn(|i| byte(0, i) + if self.wide_lanes() { 256 * byte(2, i) } else { 0 })
    }

    /// `2 * lane - ZERO2`: the coordinates of a block in half units of `scale`. The block is one of so many.
    pub(crate) fn steps(&self, (block, blocks): (usize, usize), code: [u32; 4]) -> [i32; 8] {
        let codec = self.codec(block, blocks);
        let (zeros2, lanes) = (codec.spec().zeros2(), self.lanes(codec, code));
        std::array::from_fn(|i| 2 * lanes[i] - zeros2[i])
    }

    /// The lane of each dim from which `value_steps` counts.
    pub(crate) fn zeros(&self, d: usize) -> Vec<i32> {
        (0..d).map(|i| (self.codec(i / 8, d / 8).spec().zeros2()[i % 8] + 1) / 2).collect()
    }

    /// `lane - ZERO`, zero rounded up to a lane value: what weights multiply.
    pub(crate) fn value_steps(&self, (block, blocks): (usize, usize), code: [u32; 4]) -> [i32; 8] {
        let codec = self.codec(block, blocks);
        let (zeros2, lanes) = (codec.spec().zeros2(), self.lanes(codec, code));
        std::array::from_fn(|i| lanes[i] - (zeros2[i] + 1) / 2)
    }

    /// The coordinates of a block with bf16 lanes.
    pub(crate) fn floats(&self, (block, blocks): (usize, usize), code: [u32; 4]) -> [f32; 8] {
        let lanes = self.codec(block, blocks).decode(code);
        std::array::from_fn(|i| f32::from_bits(lanes[i / 2] >> (16 * (i % 2)) << 16))
    }
}

/// Multiplies by the Hadamard matrix over sqrt(d), natural order; its own inverse.
pub fn rotate(x: &mut [f32]) {
    let stages = (0..).map(|s| 1 << s).take_while(|h| *h < x.len()).collect::<Vec<_>>();
    stages.into_iter().for_each(|h| butterfly(x, h));
    let scale = rotation_scale(x.len());
    x.iter_mut().for_each(|x| *x *= scale);
}

fn rotation_scale(d: usize) -> f32 {
    (1.0 / (d as f64).sqrt()) as f32
}

/// Sums and differences of coordinates `h` apart.
fn butterfly(x: &mut [f32], h: usize) {
    for pair in x.chunks_exact_mut(2 * h) {
        let (low, high) = pair.split_at_mut(h);
        for (a, b) in low.iter_mut().zip(high) {
            (*a, *b) = (*a + *b, *a - *b);
        }
    }
}

/// Sum of squares as four threads take it: thread j has every fourth block of eight from block j on and four fused
/// chains, over its coordinates 0, 4, .. and so on.
pub(super) fn squares(x: &[f32]) -> f32 {
    let pairs = |s: [f32; 4]| (s[0] + s[1]) + (s[2] + s[3]);
    pairs(std::array::from_fn(|j| {
        let own: Vec<f32> = x.as_chunks::<8>().0.iter().skip(j).step_by(4).flatten().copied().collect();
        pairs(std::array::from_fn(|e| own.iter().skip(e).step_by(4).fold(0.0, |sum, x| x.mul_add(*x, sum))))
    }))
}

/// Rounded to bf16, ties to even.
pub fn to_bf16(x: f32) -> f32 {
    bf16::from_f32(x).to_f32()
}

/// f16 bits, ties to even, saturating at 65504.
pub(crate) fn f16_bits(x: f32) -> u16 {
    f16::from_f32(fmin(fmax(x, -65504.0), 65504.0)).to_bits()
}

pub(crate) fn f16_value(bits: u16) -> f32 {
    f16::from_bits(bits).to_f32()
}
