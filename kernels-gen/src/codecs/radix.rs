//! Numbers below a bound that is no power of two, packed without waste: `2^split * high + low`, the low parts
//! as bits, the high parts as the digits of one number in base `radix`.
//!
//! The finer the split the fewer bits are lost; it is chosen so that a whole block takes the counted width.

use kernel_dsl::device;

/// How `count` numbers below `bound` share `bits` bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Radix {
    pub bits: usize,
    /// Low bits of each number that are stored as they are.
    pub split: usize,
    /// Number of values of the high part.
    pub radix: u32,
    /// Bits of the number that all high parts make, at most 32, stored first.
    pub field: usize,
}

impl Radix {
    /// The layout of the fewest bits for numbers below `bounds`; the largest bound sets the radix.
    pub const fn of(bounds: &[u64]) -> Radix {
        let mut top = 0;
        let mut i = 0;
        while i < bounds.len() {
            top = if bounds[i] > top { bounds[i] } else { top };
            i += 1;
        }
        let mut best = Radix { bits: usize::MAX, split: 0, radix: 0, field: 0 };
        let mut split = 0;
        while split < 19 {
            let mut product: u128 = 1;
            let mut i = 0;
            while i < bounds.len() {
                product *= bounds[i].div_ceil(1 << split) as u128;
                i += 1;
            }
            let field = 128 - (product - 1).leading_zeros() as usize;
            let bits = bounds.len() * split + field;
            if field <= 32 && bits < best.bits {
                best = Radix { bits, split, radix: top.div_ceil(1 << split) as u32, field };
            }
            split += 1;
        }
        best
    }
}

/// `count` bits from bit `at` of a code word, both known when the kernel is built.
#[device]
pub fn bits_at(code: [u32; 4], at: usize, count: usize) -> u32 {
    let mut x = code[at / 32] >> (at % 32);
    if at % 32 + count > 32 {
        x = x | (code[at / 32 + 1] << (32 - at % 32));
    }
    if count < 32 { x & ((1_u32 << count) - 1_u32) } else { x }
}

/// Adds a number at bit `at`.
#[device]
pub fn put_bits(code: [u32; 4], x: u32, at: usize, count: usize) -> [u32; 4] {
    let mut out = code;
    out[at / 32] = out[at / 32] | (x << (at % 32));
    if at % 32 + count > 32 {
        out[at / 32 + 1] = out[at / 32 + 1] | (x >> (32 - at % 32));
    }
    out
}

/// Words of eight lanes: their low bytes, and their high bytes if lanes are wide.
#[device]
pub fn lane_words(lanes: [u32; 8], wide: bool) -> [u32; 4] {
    let mut w = [0_u32; 4];
    for i in 0..8 {
        if wide {
            w[i / 4] = w[i / 4] | ((lanes[i] & 255_u32) << (8 * (i % 4)));
            w[2 + i / 4] = w[2 + i / 4] | ((lanes[i] >> 8) << (8 * (i % 4)));
        } else {
            w[i / 4] = w[i / 4] | (lanes[i] << (8 * (i % 4)));
        }
    }
    w
}
