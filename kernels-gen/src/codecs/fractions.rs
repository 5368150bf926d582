//! Nearest points of E8 in a box of `2^width` integers and as many half integers, or of `2 q + 1` integers and the half integers between
//! them, by bytes: of a coordinate above the lowest integer, one byte is its integer part, one its fraction in units of 1/256.
//!
//! Both cosets follow from the fractions. Half integers have the integer parts as digits; an integer is one more where the fraction is
//! 128 or above. With g, the distance to the nearest integer, an odd sum of integers costs `1 - 2 max g`, of half integers
//! `2 min g`. Two keys lie in a word, g above eight times the coordinate's number, so that a search names the coordinate too.
//! A point's squared error is that of the nearest one but for 3e-5 of it in the mean at 4 bits, 1e-3 at 2.
//!
//! The first box ends 5/16 beyond the outermost integers: a coordinate there hardly ever is the one that moves. If it was,
//! and so left the box, such coordinates are counted out and both cosets are asked again. The second one ends with its outermost
//! integers, between which no integer has a way out; half integers beside them are counted out at once.

use kernel_dsl::device;
use kernel_dsl::math::{add_dot4, max_u16x2, min_u16x2, pick, saturate, shifted_out};

/// A sum with 2^23 rounds to an integer, in the low bits.
const WHOLE: f32 = 8_388_608.0;

/// 3/16, where coordinates begin.
const FROM: f32 = 48.0;

/// What the sum of every second coordinate has besides: 2^16 less the upper half of the bits of 2^23, see [`beside`].
const ODD: f32 = 46_336.0;

/// 1.5 * 2^23, for integers of both signs.
const MAGIC: f32 = 12_582_912.0;

/// Units of 1/256 from end to end.
pub const fn reach(width: usize) -> f32 {
    (256 << width) as f32 - 225.0
}

/// Where zero lies, from 0 to 1.
pub const fn middle(width: usize) -> f32 {
    ((128 << width) as f32 - 48.5) / reach(width)
}

/// The digits of the nearer coset's point, all bits for half integers and none for integers, and a one where a digit moved. `odd`, `half_odd`: 1 where
/// the sum of integers, of half integers, is odd; for the keys see [`most_of`].
#[device]
fn nearer(digits: [u32; 2], signs: [u32; 2], base: u32, odd: u32, half_odd: u32, most: u32, least: u32) -> ([u32; 2], u32, [u32; 2]) {
    // Twice g stands in a product with the upper byte. What half integers cost less what integers do:
    let (loss, gain) = (add_dot4(1_u32, least, 0x0200_0000_u32), add_dot4(0xffff_ff01_u32, most, 0x0200_0000_u32));
    let half = ((half_odd.wrapping_mul(loss).wrapping_add(odd.wrapping_mul(gain).wrapping_add(base)) as i32) >> 31_i32) as u32;
    // Bits from the least one to the coordinate that moves; where the sum is even, 64 more, so that none does.
    let (whole_at, half_at) = (odd.wrapping_mul(0xffc0_0000_u32).wrapping_add(most), half_odd.wrapping_mul(0xffc0_0000_u32).wrapping_add(least));
    let at = (half & half_at) | (!half & whole_at);
    let place = add_dot4(0_u32, at, 0x1_0000_u32);
    let by = [shifted_out(1_u32, place), shifted_out(1_u32, place.wrapping_sub(32_u32))];
    (settled(digits, signs, half, by), half, by)
}

/// Digits of integers, or, `half` all bits, of half integers, one of which moves to the next nearest: the one of `by`. Of the integers below and
/// bytes of 255 where the next one is nearer.
#[device]
fn settled(below: [u32; 2], signs: [u32; 2], half: u32, by: [u32; 2]) -> [u32; 2] {
    // Products with these have ones where `signs` has 255, for half integers.
    let (ones, sign) = (half.wrapping_mul(0x0101_0101_u32), half.wrapping_mul(2_u32).wrapping_add(1_u32));
    let mut words = [0_u32; 2];
    for w in 0..2 {
        // An integer is one more or not, and the other way if it moves. A half integer is so much less above the digit that would be one more.
        let up = (signs[w] & 0x0101_0101_u32) ^ by[w];
        words[w] = up.wrapping_mul(sign).wrapping_add(signs[w].wrapping_mul(ones).wrapping_add(below[w]));
    }
    words
}

/// Keys of a coordinate each: its byte of `g`, then eight times its number, and 64.
#[device]
fn keys(g: [u32; 2]) -> [u32; 4] {
    let (first, second) = (0x5850_4840_u32, 0x7870_6860_u32);
    [pick(g[0], first, 0x1504_u32), pick(g[0], first, 0x3726_u32), pick(g[1], second, 0x1504_u32), pick(g[1], second, 0x3726_u32)]
}

/// The largest key, in the upper half.
#[device]
fn most_of(k: [u32; 4]) -> u32 {
    let both = max_u16x2(max_u16x2(k[0], k[1]), max_u16x2(k[2], k[3]));
    both.max(both << 16)
}

/// The least key.
#[device]
fn least_of(k: [u32; 4]) -> u32 {
    let both = min_u16x2(min_u16x2(k[0], k[1]), min_u16x2(k[2], k[3]));
    both.min(both << 16)
}

/// 255 in bytes of 128 or above.
#[device]
fn spread(x: u32) -> u32 {
    pick(x, x, 0xba98_u32)
}

/// What is added to coordinate `i` to have it in the low bits.
#[device]
fn magic(i: usize, from: f32) -> f32 {
    if i % 2 == 0 { WHOLE + from } else { WHOLE + ODD + from }
}

/// The low halves of two sums, by the pipe that multiplies: the one that permutes bytes has enough to do. The upper half of the first one's bits
/// and [`ODD`] are 2^16.
#[device]
fn beside(even: u32, odd: u32) -> u32 {
    odd.wrapping_mul(0x1_0000_u32).wrapping_add(even)
}

/// Bytes of eight sums with 2^23: integer parts and fractions of coordinates, then 255 where the next integer is nearer, then the distance
/// to the nearest one.
#[device]
fn parted(t: [u32; 8]) -> ([u32; 2], [u32; 2], [u32; 2], [u32; 2]) {
    let mut digits = [0_u32; 2];
    let mut fractions = [0_u32; 2];
    let mut signs = [0_u32; 2];
    let mut g = [0_u32; 2];
    for w in 0..2 {
        let (a, b) = (beside(t[4 * w], t[4 * w + 1]), beside(t[4 * w + 2], t[4 * w + 3]));
        digits[w] = pick(a, b, 0x7531_u32);
        fractions[w] = pick(a, b, 0x6420_u32);
        signs[w] = spread(fractions[w]);
        g[w] = fractions[w] ^ signs[w];
    }
    (digits, fractions, signs, g)
}

/// What [`nearest_between`] takes for `q`: units of 1/256 from end to end, where zero lies from 0 to 1, 256 over the units.
pub const fn between(q: usize) -> [f32; 3] {
    let units = (512 * q - 1) as f32;
    [units, ((256 * q) as f32 - 0.5) / units, 256.0 / units]
}

/// Digits `p + q` (less 1/2 for half integers), bytes of two words, and the coset (all bits or none) of the point nearest to `y by` in the box `-q..=q`, q below 64; what
/// lies outside counts as the box's end.
#[device]
pub fn nearest_between(y: [f32; 8], by: f32, q: usize, box_of: [f32; 3]) -> ([u32; 2], u32) {
    let mut t = [0_u32; 8];
    for i in 0..8 {
        t[i] = saturate(y[i].mul_add(by * box_of[2], box_of[1])).mul_add(box_of[0], magic(i, 0.0_f32)).to_bits();
    }
    let (digits, _fractions, signs, g) = parted(t);
    let ones = 0x0101_0101_u32;
    let whole = add_dot4(0_u32, digits[0] + digits[1], ones);
    let base = add_dot4(508_u32, g[0] + g[1], 0xffff_ffff_u32);
    let (odd, half_odd) = (add_dot4(add_dot4(whole, signs[0], ones), signs[1], ones) & 1_u32, whole & 1_u32);
    let mut down = [0_u32; 2];
    for w in 0..2 {
        // Half integers beside the outermost integers do not move; if there is none other, integers are nearer.
        let inside = (digits[w] | (signs[w] & 0x7f7f_7f7f_u32)) + 0x7f7f_7f7f_u32;
        let above = (digits[w] & signs[w]) + ((129 - 2 * q) as u32 * 0x0101_0101_u32);
        down[w] = g[w] | spread(above | !inside);
    }
    let (words, coset, _moved) = nearer(digits, signs, base, odd, half_odd, most_of(keys(g)), least_of(keys(down)));
    (words, coset)
}

/// Digits of the point nearest to `y by`, bytes of two words, and its coset (all bits or none): integers from `-2^(width-1)` up, or the half
/// integers above them. See [`reach`], [`middle`]; `inverse` is 256 over the reach.
#[device]
pub fn nearest_by_bytes(y: [f32; 8], by: f32, width: usize, reach: f32, middle: f32, inverse: f32) -> ([u32; 2], u32) {
    let mut t = [0_u32; 8];
    for i in 0..8 {
        t[i] = saturate(y[i].mul_add(by * inverse, middle)).mul_add(reach, magic(i, FROM)).to_bits();
    }
    let (digits, fractions, signs, g) = parted(t);
    // What lies outside counts for its coset: the sum of all coordinates, less that of those inside.
    let sum = ((y[0] + y[1]) + (y[2] + y[3])) + ((y[4] + y[5]) + (y[6] + y[7]));
    let ones = 0x0101_0101_u32;
    let whole = add_dot4(0_u32, digits[0] + digits[1], ones);
    // Odd if an odd number of coordinates are nearer to the next integer.
    let rest = add_dot4(add_dot4(add_dot4(0_u32, fractions[0], ones), fractions[1], ones), g[0] + g[1], 0xffff_ffff_u32);
    let all = sum.mul_add(by * 256.0_f32, MAGIC).to_bits();
    let base = whole.wrapping_mul(256_u32).wrapping_add(rest).wrapping_add(all.wrapping_mul(0xffff_ffff_u32).wrapping_add(MAGIC.to_bits() + 512_u32 - (1024_u32 << width)));
    let (odd, half_odd) = (whole.wrapping_add(rest) & 1_u32, whole & 1_u32);
    let k = keys(g);
    let (mut words, mut coset, _) = nearer(digits, signs, base, odd, half_odd, most_of(k), least_of(k));
    let beyond = !(((1_u32 << width) - 1_u32) * ones);
    if ((words[0] | words[1]) & beyond) != 0_u32 {
        let mut up = [0_u32; 2];
        let mut down = [0_u32; 2];
        for w in 0..2 {
            // The uppermost integer is not to move, nor the lowest half integer if it would go down.
            up[w] = g[w] & !spread(digits[w] + (129_u32 - (1_u32 << width)) * ones);
            down[w] = g[w] | !spread((digits[w] | (signs[w] & 0x7f7f_7f7f_u32)) + 0x7f7f_7f7f_u32);
        }
        let (inner, other, moved) = nearer(digits, signs, base, odd, half_odd, most_of(keys(up)), least_of(keys(down)));
        words = inner;
        coset = other;
        if ((words[0] | words[1]) & beyond) != 0_u32 {
            // All are at the face: this one goes inwards.
            for w in 0..2 {
                words[w] = if coset != 0_u32 { words[w].wrapping_add(moved[w] << 1) } else { words[w].wrapping_sub(moved[w] << 1) };
            }
        }
    }
    (words, coset)
}
