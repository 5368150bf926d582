//! The units of weights: softmax weights times value scales become integers under a power of two that stays while it fits.
//!
//! So the sums of a leaf are integers that the tensor core itself adds up, tile after tile. A tile whose largest weight would take
//! more than 16 bits or less than 9 makes the unit move: larger, and sums of both bytes lose their last bits together, or smaller, and sums are shifted up as
//! far as 31 bits hold. A unit belongs to a column and its leaf, so the neighbours of a row change none of its bits.

use super::decode_attention::DecodeMeta;
use super::softmax::{bits_of, larger};
use super::values::{less_zero, raise_of, raises, rounded};
use crate::codec::Codec;
use kernel_dsl::prelude::*;

/// A unit is kept as `lift`, the biased exponent of what weights are multiplied by; 0: none yet. A weight of biased exponent e becomes an
/// integer from 2^(lift + e - 254) up. Weights are 2^26 times what they are: see [`super::softmax::counted`].
pub const MOST_LIFT: i32 = 227;

/// The bits of the largest of each column's weights, over both halves of the tokens.
#[device]
pub fn largest(pv: &Tile<f32>, parts: usize) -> Tile<i32> {
    // Weights are not negative: their bits order as integers.
    let peak = pv.map(bits_of).max_rows();
    if parts == 2 { larger_half(&peak) } else { peak }
}

/// Of each column the larger one of both halves.
#[device]
pub fn larger_half(x: &Tile<i32>) -> Tile<i32> {
    x.map2(&x.swap_halves(), larger).left_halves()
}

/// Whether an integer weight of 16 bits, as `rounded` gives it, takes 9 or more; of several, or-ed, whether one does.
#[device]
pub fn counts(w: i32) -> bool {
    (w as u32 & 0xff00_u32) > 0_u32
}

/// Whether it takes more than 16.
#[device]
pub fn overflows(w: i32) -> bool {
    (w as u32 & !0x4b40_ffff_u32) > 0_u32
}

/// A tile's weights fit their unit if of each column one counts and none overflows.
#[device]
pub fn misfits(w: i32, some: bool) -> bool {
    overflows(w) | !some
}

/// Which lanes have weights that are wrong under their units: all of a lane's are asked at once. One that overflows is wrong whether it counts or not.
#[device]
pub fn misfit_lanes(w: &Tile<i32>, parts: usize) -> Tile<bool> {
    let all = w.lane_ors();
    all.map2(&all.map(counts).any_rows(parts), misfits)
}

/// Bits by which sums may be shifted up whose weights come to `total`: they are 255 times as large at most, and a leaf's tiles add 2^24.
#[device]
fn room(total: i32) -> i32 {
    // The exponent of a float is the position of the highest bit.
    if total == 0_i32 { 255_i32 } else { (148_i32 - ((total as f32).to_bits() >> 23) as i32).max(0_i32) }
}

/// The unit of a tile whose largest weight has the bits `peak`, after weights that come to `total`: it makes an integer from 2^13 on of it,
/// if there is room. A column that weighs nothing keeps its own.
#[device]
pub fn fitted(lift: i32, peak: i32, total: i32) -> i32 {
    let (w, e) = (rounded(f32::from_bits(peak as u32), up_of(lift)), ((peak as u32) >> 23) as i32);
    let wanted = wanted_of(e);
    if (e > 0_i32) & (overflows(w) | !counts(w)) { if wanted > lift { lift + (wanted - lift).min(room(total)) } else { wanted } } else { lift }
}

/// As `fitted` from no unit on.
#[device]
pub fn first_fit(peak: i32) -> i32 {
    let e = ((peak as u32) >> 23) as i32;
    if e > 0_i32 { wanted_of(e) } else { 0_i32 }
}

/// The unit that makes an integer from 2^13 on of weights of biased exponent e.
#[device]
fn wanted_of(e: i32) -> i32 {
    (267_i32 - e).min(MOST_LIFT)
}

/// Sums under the next unit, and what those of high bytes then owe to those of low ones. Dims that stand higher keep no more bits than
/// the others.
#[device]
fn moved_sums(m: &DecodeMeta, c: &dyn Codec, sums: &Tile<i32>, by: &Tile<i32>, d: usize) -> (Tile<i32>, Tile<i32>) {
    let whole = sums.map2(by, moved);
    let whole = if raises(m, c, d) { whole.map2(&raise_of(c, d), cleared) } else { whole };
    let rest = sums.map3(&whole, by, carried);
    (whole, if raises(m, c, d) { rest.map2(&raise_of(c, d), cleared) } else { rest })
}

/// A band's sums of high and low bytes under the next unit, side by side (`low`: 1 in columns of low bytes) or apart.
#[device]
pub fn move_sums(m: &DecodeMeta, c: &dyn Codec, sums: &Tile<i32>, high: &Tile<i32>, low: &Tile<i32>, by: &Tile<i32>, d: usize) -> (Tile<i32>, Tile<i32>) {
    let own = moved_sums(m, c, sums, by, d);
    if m.apart {
        let above = moved_sums(m, c, high, by, d);
        (own.0 + &above.1, above.0)
    } else {
        (own.0 + &(own.1.swap_halves() * low), high.clone())
    }
}

/// Likewise the weights' totals.
#[device]
pub fn move_totals(m: &DecodeMeta, total: &Tile<i32>, high: &Tile<i32>, low: &Tile<i32>, by: &Tile<i32>) -> (Tile<i32>, Tile<i32>) {
    let whole = total.map2(by, moved);
    if m.apart {
        let above = high.map2(by, moved);
        (whole + &high.map3(&above, by, carried), above)
    } else {
        let rest = total.map3(&whole, by, carried);
        (whole + &(rest.swap_halves() * low), high.clone())
    }
}

#[device]
fn cleared(sum: i32, height: i32) -> i32 {
    sum & (0_i32 - height)
}

/// A sum under the next unit.
#[device]
pub fn moved(sum: i32, by: i32) -> i32 {
    if by >= 0_i32 { sum << (by.min(31_i32) & 31_i32) } else { sum >> ((0_i32 - by).min(31_i32) & 31_i32) }
}

/// What is left of a sum of high bytes that became `whole`, in units of low bytes.
#[device]
pub fn carried(sum: i32, whole: i32, by: i32) -> i32 {
    let down = (0_i32 - by).max(0_i32).min(31_i32);
    let rest = sum - (whole << (down & 31_i32));
    if down == 0_i32 { 0_i32 } else { if down >= 8_i32 { rest >> ((down - 8_i32) & 31_i32) } else { rest << ((8_i32 - down) & 31_i32) } }
}

#[device]
pub fn minus(a: i32, b: i32) -> i32 {
    a - b
}

/// The same unit under the next maximum, as weights shrink. One too large for an f32 weighs next to nothing.
#[device]
pub fn sunk(lift: i32, top: f32, next: f32) -> i32 {
    if top == f32::NEG_INFINITY { lift } else { (lift + ((next - top) as i32).min(255_i32)).min(MOST_LIFT) }
}

/// What weights are multiplied by.
#[device]
pub fn up_of(lift: i32) -> f32 {
    f32::from_bits((lift as u32) << 23)
}

/// And back.
#[device]
pub fn lift_of(power: f32) -> i32 {
    (power.to_bits() >> 23) as i32
}

/// What an integer weight is worth.
#[device]
pub fn down_of(lift: i32) -> f32 {
    f32::from_bits(((228_i32 - lift) as u32) << 23)
}

/// Integer weights as right operands: with two parts both bytes side by side, else the high and the low ones.
#[device]
pub fn bytes_of(w: &Tile<i32>, parts: usize) -> (Tile<u8>, Tile<u8>) {
    if parts == 2 {
        let both = w.split_halves();
        (both.clone(), both)
    } else {
        let (low, high) = w.split_bytes();
        (high, low)
    }
}

/// A leaf's sums of one byte of the weights as its output, in units.
#[device]
pub fn output_of(m: &DecodeMeta, c: &dyn Codec, sums: &Tile<i32>, total: &Tile<i32>, d: usize) -> Tile<f32> {
    let zero = less_zero(c, total, d);
    let zero = if raises(m, c, d) { &zero * &raise_of(c, d) } else { acc(d, m.cols, 0_i32) + &zero };
    (sums + &zero).cast::<f32>()
}
