//! Eight digits of 2 to 8 bits in a code word, cut so that every plane unpacks with shifts and masks.
//!
//! A digit is the sum of a nibble (widths from 4 up), a two-bit field (2, 3, 6, 7) and a bit (odd widths), lowest
//! first; each kind has its own plane of 32, 16 and 8 bits. Eight-bit digits are whole bytes.
//! Nibbles: dims 0..4 low, dims 4..8 high in bytes 0..4. Two-bit fields: even dims in byte 0, odd ones in byte 1,
//! dim i at bit i & 6. Bits: dim i at bit i.
//!
//! Three bits are packed apart: dims 0, 1 and 5 in the lowest bits of bytes 0, 1 and 2, dims 2, 3 and 4 above them, and in the
//! two highest bits the upper parts of dims 6 and 7, then their lowest bits in byte 2.

use kernel_dsl::device;
use kernel_dsl::math::pick;

/// First code bit of the plane of two-bit fields.
#[device]
fn twos_at(width: usize) -> usize {
    if width >= 4 { 32 } else { 0 }
}

/// First code bit of the plane of single bits.
#[device]
fn ones_at(width: usize) -> usize {
    if width >= 6 { 48 } else { if width >= 4 { 32 } else { if width >= 2 { 16 } else { 0 } } }
}

/// The lowest bytes of four words.
#[device]
pub fn bytes4(a: u32, b: u32, c: u32, d: u32) -> u32 {
    pick(pick(a, b, 0x0040_u32), pick(c, d, 0x0040_u32), 0x5410_u32)
}

/// The code word of eight digits below `2^width`; above their lowest bytes may be anything.
#[device]
pub fn pack(d: [u32; 8], width: usize) -> [u32; 4] {
    packed(bytes4(d[0], d[1], d[2], d[3]), bytes4(d[4], d[5], d[6], d[7]), width)
}

/// As [`pack`] for digits that are bytes: dims 0..4, dims 4..8.
#[device]
pub fn packed(low: u32, high: u32, width: usize) -> [u32; 4] {
    let mut code = [0_u32; 4];
    if width == 8 {
        code[0] = low;
        code[1] = high;
    } else if width == 3 {
        let upper = (high >> 11) & 0xc0c0_u32;
        let third = ((high >> 8) & 7_u32) | ((high & 7_u32) << 3) | ((high >> 10) & 0x40_u32) | ((high >> 17) & 0x80_u32);
        code[0] = ((low | (low >> 13)) & 0x3f3f_u32) | upper | (third << 16);
    } else {
        let (two, one) = (twos_at(width), ones_at(width));
        if width == 4 {
            // A sum, for the pipe that multiplies.
            code[0] = high.wrapping_mul(16_u32).wrapping_add(low);
        }
        if width > 4 {
            code[0] = (low & 0x0f0f_0f0f_u32) | ((high << 4) & 0xf0f0_f0f0_u32);
        }
        if width % 4 >= 2 {
            let x = if width == 2 {
                high.wrapping_mul(16_u32).wrapping_add(low)
            } else if width == 6 {
                // No digit has more bits than these.
                ((low >> 4) & 0x0f0f_0f0f_u32) | (high & 0xf0f0_f0f0_u32)
            } else {
                side_by_side(low, high, width / 4 * 4, 0x0303_0303_u32)
            };
            code[two / 32] = code[two / 32] | (((x | (x >> 14)) & 0xffff_u32) << (two % 32));
        }
        if width % 2 == 1 {
            let x = side_by_side(low, high, width - 1, 0x0101_0101_u32);
            let pairs = x | (x >> 7);
            code[one / 32] = code[one / 32] | (((pairs | (pairs >> 14)) & 255_u32) << (one % 32));
        }
    }
    code
}

/// As [`packed`] for the lower bits of bytes.
#[device]
pub fn packed_low(low: u32, high: u32, width: usize) -> [u32; 4] {
    if width == 4 {
        [(low & 0x0f0f_0f0f_u32) | ((high << 4) & 0xf0f0_f0f0_u32), 0_u32, 0_u32, 0_u32]
    } else {
        let mask = ((1_u32 << width) - 1_u32) * 0x0101_0101_u32;
        packed(low & mask, high & mask, width)
    }
}

/// Fields from bit `at` on of dims 0..4 in the lower halves of bytes, of dims 4..8 in the upper ones.
#[device]
fn side_by_side(low: u32, high: u32, at: usize, mask: u32) -> u32 {
    ((low >> at) & mask) | (((high >> at) & mask) << 4)
}

/// Bytes of dims 0..4 and 4..8 out of the two-bit fields in the low half of `x`.
#[device]
fn two_bits(x: u32) -> (u32, u32) {
    let y = x & 0xffff_u32;
    // Even dims stand in byte 0: dims 0, 2 become bytes 0, 2 by the shift of 14, odd ones bytes 1, 3.
    let t = y | (y << 14);
    (t & 0x0303_0303_u32, (t >> 4) & 0x0303_0303_u32)
}

/// Bytes of dims 0..4 and 4..8 out of the bits in the low byte of `x`.
#[device]
fn one_bits(x: u32) -> (u32, u32) {
    let spread = 0x0020_4081_u32;
    ((x & 15_u32).wrapping_mul(spread) & 0x0101_0101_u32, ((x >> 4) & 15_u32).wrapping_mul(spread) & 0x0101_0101_u32)
}

/// Digits of three bits.
#[device]
fn three_bits(x: u32) -> (u32, u32) {
    let (y, z) = (x >> 8, x >> 16);
    let low = (x & 7_u32) | ((y & 7_u32) << 8) | (((x >> 3) & 7_u32) << 16) | (((y >> 3) & 7_u32) << 24);
    let (six, seven) = (((x >> 5) & 6_u32) | ((z >> 6) & 1_u32), ((y >> 5) & 6_u32) | ((z >> 7) & 1_u32));
    (low, ((z >> 3) & 7_u32) | ((z & 7_u32) << 8) | (six << 16) | (seven << 24))
}

/// The digits above the nibble, or the whole digits of widths below 4.
#[device]
pub fn upper(code: [u32; 4], width: usize) -> (u32, u32) {
    let two = twos_at(width);
    let one = ones_at(width);
    if width == 3 {
        three_bits(code[0])
    } else {
        let (mut low, mut high) = (0_u32, 0_u32);
        if width % 4 >= 2 {
            let (a, b) = two_bits(code[two / 32] >> (two % 32));
            low = a;
            high = b;
        }
        if width % 2 == 1 {
            let (a, b) = one_bits(code[one / 32] >> (one % 32));
            low = if width % 4 >= 2 { low | (a << 2) } else { a };
            high = if width % 4 >= 2 { high | (b << 2) } else { b };
        }
        (low, high)
    }
}

/// The bytes of all digits: dims 0..4, dims 4..8.
#[device]
pub fn unpack(code: [u32; 4], width: usize) -> (u32, u32) {
    if width == 8 {
        (code[0], code[1])
    } else {
        if width >= 4 {
            let (low, high) = (code[0] & 0x0f0f_0f0f_u32, (code[0] >> 4) & 0x0f0f_0f0f_u32);
            if width > 4 {
                let (a, b) = upper(code, width);
                (low | (a << 4), high | (b << 4))
            } else {
                (low, high)
            }
        } else {
            upper(code, width)
        }
    }
}

/// `x` shifted left by `to - from` bits, or right.
#[device]
fn moved(x: u32, from: usize, to: usize) -> u32 {
    if to >= from { x << (to - from) } else { x >> (from - to) }
}

/// Of four tokens at once, byte k of their codes in word k: word i holds digit i of each, shifted left by `by`.
#[device]
pub fn unpack4(w: [u32; 8], width: usize, by: usize) -> [u32; 8] {
    let mut out = [0_u32; 8];
    if width == 8 {
        out = w;
    } else if width == 3 {
        for i in 0..6 {
            out[i] = moved(w[byte_of(i)], bit_of(i), by) & (0x0707_0707_u32 << by);
        }
        for i in 6..8 {
            out[i] = (moved(w[i - 6], 6, by + 1) & (0x0606_0606_u32 << by)) | (moved(w[2], i, by) & (0x0101_0101_u32 << by));
        }
    } else {
        for i in 0..8 {
            let mut at = if width >= 4 { moved(w[i % 4], i / 4 * 4, by) & (0x0f0f_0f0f_u32 << by) } else { 0_u32 };
            if width % 4 >= 2 {
                let to = width / 4 * 4 + by;
                at = at | (moved(w[twos_at(width) / 8 + i % 2], i / 2 * 2, to) & (0x0303_0303_u32 << to));
            }
            if width % 2 == 1 {
                let to = width - 1 + by;
                at = at | (moved(w[ones_at(width) / 8], i, to) & (0x0101_0101_u32 << to));
            }
            out[i] = at;
        }
    }
    out
}

/// Byte and lowest bit of digit i below 6 of three bits.
#[device]
fn byte_of(i: usize) -> usize {
    if i < 4 { i % 2 } else { 2 }
}

#[device]
fn bit_of(i: usize) -> usize {
    if (i >= 2) & (i < 5) { 3 } else { 0 }
}

/// Bits by which [`raised4_of`] leaves digit i higher, where its codec wants digits from bit `by` on.
#[device]
pub fn height(i: usize, width: usize, by: usize) -> usize {
    if width == 2 {
        if i < 2 { 0 } else { i / 2 * 2 - by }
    } else if width == 3 {
        if i < 2 {
            0
        } else if i < 6 {
            3 - by
        } else {
            5 - by
        }
    } else {
        if (width == 4) & (i >= 4) { 4 - by } else { 0 }
    }
}

/// Of all digits.
pub fn heights(width: usize, by: usize) -> [usize; 8] {
    std::array::from_fn(|i| height(i, width, by))
}

/// Digits of two bits for keys: dims 0..4 where dims 4..8 are, so that there are two heights. Up, which the multipliers do, beside the pipe
/// that masks.
#[device]
pub fn paired4_of(w: [u32; 8]) -> [u32; 8] {
    let mut out = [0_u32; 8];
    for i in 0..8 {
        let to = 4 + i % 4 / 2 * 2;
        out[i] = moved(w[i % 2], i / 2 * 2, to) & (0x0303_0303_u32 << to);
    }
    out
}

/// As [`unpack4`], digit i `height(i, width, by)` bits higher: masks in the place of shifts.
#[device]
pub fn raised4_of(w: [u32; 8], width: usize, by: usize) -> [u32; 8] {
    let mut out = [0_u32; 8];
    if width == 2 {
        for i in 0..8 {
            let to = if i < 2 { by } else { i / 2 * 2 };
            out[i] = moved(w[i % 2], i / 2 * 2, to) & (0x0303_0303_u32 << to);
        }
    } else if width == 3 {
        for i in 0..6 {
            let to = if i < 2 { by } else { 3 };
            out[i] = moved(w[byte_of(i)], bit_of(i), to) & (0x0707_0707_u32 << to);
        }
        for i in 6..8 {
            out[i] = (w[i - 6] & 0xc0c0_c0c0_u32) | (moved(w[2], i, 5) & 0x2020_2020_u32);
        }
    } else if width == 4 {
        for i in 0..8 {
            let to = if i < 4 { by } else { 4 };
            out[i] = moved(w[i % 4], i / 4 * 4, to) & (0x0f0f_0f0f_u32 << to);
        }
    } else {
        out = unpack4(w, width, by);
    }
    out
}
