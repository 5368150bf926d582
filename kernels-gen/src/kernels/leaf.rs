//! The leaf that a warp walks: what its tiles have come to so far, and what becomes of that at its end.

use super::decode_attention::DecodeMeta;
use super::leaves::{TILES, closed};
use super::offset::{fixed_offset, fixed_raised, offset_sums};
use super::softmax::*;
use super::units::*;
use super::values::*;
use crate::codec::Codec;
use kernel_dsl::prelude::*;

/// Sums of a leaf, a column a row of queries.
#[device]
pub struct Leaf {
    /// The maximum that scores are below.
    pub top: Tile<f32>,
    /// Of weights; of each lane's where units stay.
    pub sum: Tile<i64>,
    pub count: Tile<f32>,
    /// Under units that stay, see [`super::units`]: what weights are multiplied by, bands' sums of their low and high bytes, these
    /// bytes' totals, of what each lane holds of them.
    pub power: Tile<f32>,
    pub sums: [Tile<i32>; 2],
    pub high_sums: [Tile<i32>; 2],
    pub total: Tile<i32>,
    pub high_total: Tile<i32>,
    /// Else bands' outputs, and the weights' sum where half of it is due.
    pub half: Tile<f32>,
    /// Of weights times offsets; of each lane's where units stay.
    pub shift: Tile<i64>,
    pub leaning: Tile<f32>,
    pub out: [Tile<f32>; 2],
}

/// A leaf without tiles.
#[device]
pub fn fresh(m: &DecodeMeta, bands: usize) -> Leaf {
    let d = m.d / bands;
    Leaf {
        top: cols(m.cols, f32::NEG_INFINITY),
        sum: acc(8, m.cols, 0_i64),
        count: acc(m.counters(), m.cols, 0.0_f32),
        power: cols(m.cols, 0.0_f32),
        sums: [acc(d, m.cols, 0_i32), acc(d, m.cols, 0_i32)],
        high_sums: [acc(d, m.cols, 0_i32), acc(d, m.cols, 0_i32)],
        total: vector(4 * m.cols, 0_i32),
        high_total: vector(4 * m.cols, 0_i32),
        half: cols(m.cols, 0.0_f32),
        shift: acc(8, m.cols, 0_i64),
        leaning: acc(m.counters(), m.cols, 0.0_f32),
        out: [acc(d, m.cols, 0.0_f32), acc(d, m.cols, 0.0_f32)],
    }
}

/// Whether a leaf has tiles before tile `t`: a fresh one has nothing to rescale, no unit yet and nothing to move.
#[device]
fn begun(t: i32) -> bool {
    (t & (TILES as i32 - 1_i32)) > 0_i32
}

/// The last tile of a leaf.
#[device]
pub fn ends_leaf(t: i32) -> bool {
    (t & (TILES as i32 - 1_i32)) == TILES as i32 - 1_i32
}

/// A new maximum, above the scores of tile `t` too: what there is fades.
#[device]
pub fn raise_top(m: &DecodeMeta, v: &[&dyn Codec], leaf: &mut Leaf, x: &Tile<f32>, t: i32) {
    // A copy, lest all turns make one.
    let before = leaf.top.map(apart_from);
    let next = before.map2(&peaks(x, m.parts), raised);
    if begun(t) {
        let fade = before.map2(&next, fade_of);
        if m.steady() {
            leaf.power = leaf.power.map(lift_of).map3(&before, &next, sunk).map(up_of);
            leaf.count = &leaf.count * &fade;
            leaf.leaning = &leaf.leaning * &fade;
        } else {
            leaf.out[0] = &leaf.out[0] * &fade;
            if v.len() == 2 {
                leaf.out[1] = &leaf.out[1] * &fade;
            }
            leaf.half = &leaf.half * &fade;
            leaf.sum = faded(m, &leaf.sum, &before, &next);
            if v[0].spec().affine {
                leaf.shift = faded(m, &leaf.shift, &before, &next);
            }
        }
    }
    leaf.top = next;
}

/// The weights of a tile's scores, counted.
#[device]
pub fn weigh(m: &DecodeMeta, leaf: &mut Leaf, x: &Tile<f32>) -> Tile<f32> {
    let p = if m.steady() { (x - &leaf.top).map(exp2_raised) } else { x.map2(&leaf.top, weight) };
    if m.steady() {
        leaf.count = &leaf.count + &lane_sums(m, &p);
    } else {
        leaf.sum = &leaf.sum + &p.lane_sums().map(fixed);
    }
    p
}

/// What the tile at byte `base` of a copy adds to offsets, `pair` being the sides of its values.
#[device]
#[allow(clippy::too_many_arguments)]
pub fn lean(m: &DecodeMeta, k: &dyn Codec, v: &dyn Codec, leaf: &mut Leaf, tokens: &Page, base: i32, pair: &Tile<u32>, p: &Tile<f32>) {
    let own = offset_sums(m, k, v, tokens, base + m.sides_at as i32, pair, p);
    if m.steady() {
        leaf.leaning = &leaf.leaning + &own;
    } else {
        leaf.shift = &leaf.shift + &own.map(fixed_offset);
    }
}

/// Totals of the low and of the high bytes of all weights so far; with two parts both are columns of the first.
#[device]
fn totals(m: &DecodeMeta, leaf: &Leaf) -> (Tile<i32>, Tile<i32>) {
    (leaf.total.fold_fours(), if m.apart { leaf.high_total.fold_fours() } else { cols(m.cols, 0_i32) })
}

/// Integer weights of tile `t` under the leaf's unit, which moves where they do not fit it. `side`: 1 in columns of low bytes.
#[device]
fn fit(m: &DecodeMeta, v: &[&dyn Codec], leaf: &mut Leaf, pv: &Tile<f32>, side: &Shared<i32>, t: i32) -> Tile<i32> {
    let mut w = pv.map2(&leaf.power, rounded);
    if misfit_lanes(&w, m.parts).any() {
        let peak = largest(pv, m.parts);
        let mut next = peak.map(first_fit);
        if begun(t) {
            // Both bytes of a weight have one unit.
            let (total, high_total) = totals(m, leaf);
            let most = if m.apart { total.map2(&high_total, larger) } else { larger_half(&total) };
            let lift = leaf.power.map(lift_of);
            next = lift.map3(&peak, &most, fitted);
            let by = next.map2(&lift, minus);
            let low = side.cols(0, 1, m.cols);
            for i in 0..v.len() {
                let next = move_sums(m, v[i], &leaf.sums[i], &leaf.high_sums[i], &low, &by, m.d / v.len());
                leaf.sums[i] = next.0;
                leaf.high_sums[i] = next.1;
            }
            let next = move_totals(m, &total, &high_total, &low, &by);
            leaf.total = next.0.in_fours();
            if m.apart {
                leaf.high_total = next.1.in_fours();
            }
        }
        leaf.power = next.map(up_of);
        w = pv.map2(&leaf.power, rounded);
    }
    w
}

/// The values of tile `t`, at byte `base` of a copy, times their scales and the weights `p`.
#[device]
#[allow(clippy::too_many_arguments)]
pub fn add_values(m: &DecodeMeta, v: &[&dyn Codec], leaf: &mut Leaf, tokens: &Page, base: i32, p: &Tile<f32>, v_scale: &Tile<f32>, side: &Shared<i32>, t: i32) {
    if m.steady() {
        let w = fit(m, v, leaf, &(p * v_scale), side, t);
        add_steady(m, v, leaf, tokens, base, &w);
    } else if v[0].spec().exact() {
        add_exact(m, v, leaf, tokens, base, p * v_scale);
    } else {
        add_floats(m, v[0], leaf, tokens, base, p, v_scale);
    }
}

/// Under units that stay.
#[device]
fn add_steady(m: &DecodeMeta, v: &[&dyn Codec], leaf: &mut Leaf, tokens: &Page, base: i32, w: &Tile<i32>) {
    let w = bytes_of(w, m.parts);
    leaf.total = &leaf.total + &w.1.lane_totals();
    if m.apart {
        leaf.high_total = &leaf.high_total + &w.0.lane_totals();
    }
    for i in 0..v.len() {
        let values = values_of(m, v[i], tokens, base + m.values_at[i] as i32, m.d / v.len());
        leaf.sums[i] = mma(&values, &w.1, &leaf.sums[i]);
        if m.apart {
            leaf.high_sums[i] = mma(&values, &w.0, &leaf.high_sums[i]);
        }
    }
}

/// Under a unit of the tile's own.
#[device]
fn add_exact(m: &DecodeMeta, v: &[&dyn Codec], leaf: &mut Leaf, tokens: &Page, base: i32, pv: Tile<f32>) {
    let w = weights(pv);
    for i in 0..v.len() {
        leaf.out[i] = weighed(m, v[i], tokens, &w, &leaf.out[i], base + m.values_at[i] as i32, m.d / v.len());
    }
    // Where zero lies half way between two lane values, half of the weights' sum is due at the end.
    if v[0].spec().odd() {
        leaf.half = w.2.cast::<f32>().map3(&w.3, &leaf.half, fused);
    }
}

/// As floats.
#[device]
fn add_floats(m: &DecodeMeta, v: &dyn Codec, leaf: &mut Leaf, tokens: &Page, base: i32, p: &Tile<f32>, v_scale: &Tile<f32>) {
    leaf.out[0] = mma(&tokens.grouped_values::<bf16>(base + m.values_at[0] as i32, v.spec().bits, m.d, 16, v.spec().group, v.spec().shared, |x| v.decode(x)), &(p * v_scale).to_operand(), &leaf.out[0]);
}

/// A leaf's outputs, band after band, and the sum of its weights.
#[device]
pub fn outputs(m: &DecodeMeta, v: &[&dyn Codec], leaf: &Leaf) -> ([Tile<f32>; 2], Tile<f32>) {
    let d = m.d / v.len();
    let mut o = [acc(d / m.parts, m.cols, 0.0_f32), acc(d / m.parts, m.cols, 0.0_f32)];
    let (mut low, mut half) = (leaf.out.clone(), leaf.half.clone());
    let (mut high, mut high_half) = ([acc(d, m.cols, 0.0_f32), acc(d, m.cols, 0.0_f32)], cols(m.cols, 0.0_f32));
    if m.steady() {
        let (total, high_total) = totals(m, leaf);
        for i in 0..v.len() {
            low[i] = output_of(m, v[i], &leaf.sums[i], &total, d);
            if m.apart {
                high[i] = output_of(m, v[i], &leaf.high_sums[i], &high_total, d);
            }
        }
        half = total.cast::<f32>();
        high_half = high_total.cast::<f32>();
    }
    let unit = if m.steady() { leaf.power.map(lift_of).map(down_of) } else { cols(m.cols, 1.0_f32) };
    for i in 0..v.len() {
        o[i] = closed(m, v[i], &high[i], &low[i], &high_half, &half, &(if m.steady() { leaf.leaning.map(fixed_raised) } else { leaf.shift.clone() }), &unit, d);
    }
    let l = if m.steady() { count_of(&leaf.count.map(counted), m.parts).cast::<f32>() * 1.1920929e-7_f32 } else { total_of(&leaf.sum, m.parts).cast::<f32>() * 1.8626451e-9_f32 };
    (o, l)
}
