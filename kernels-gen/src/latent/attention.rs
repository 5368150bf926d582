//! Attention over rows of integers, step by step: what the kernel computes, bit for bit.
//!
//! A query token attends to the rows of two lists under one softmax, the window's and another's. Positions are those of the first
//! list, its capacity rounded up to a leaf, then those of the second; an index below 0 or past its cache, or a position past its
//! list's length, is nobody's. A leaf is 128 positions: their scores are integers times a scale, its maximum the next integer, its weights
//! integers of 15 bits under a power of two that its rows' largest scale fixes, its sums integers. Leaves are folded left to right into a part, `share` leaves each;
//! parts likewise into the result. So the result depends on `share`, and on nothing else that a launch may choose.

use kernel_dsl::math::{fmax, log2, sanitise};

use super::integers::{Integers, turn};
use super::softmax::{LEAF, down_of, fixed, inverse_of, rounded, up_of};
use super::{DIM, GROUP};
use crate::kernels::softmax::{left_worth, right_worth, weight};

/// A cache of rows, and which of them each query token sees.
#[derive(Clone, Copy, Debug)]
pub struct List<'a> {
    /// Rows side by side, the i-th at `i * row_bytes`.
    pub rows: &'a [u8],
    /// [tokens, capacity]
    pub at: &'a [i32],
    pub capacity: usize,
    /// [tokens]: how many of a token's indices count.
    pub lens: &'a [i32],
}

/// Attention of `tokens` query tokens of so many heads.
#[derive(Clone, Copy, Debug)]
pub struct Problem<'a> {
    /// [tokens, heads, 512], RoPE on the last 64.
    pub q: &'a [f32],
    pub heads: usize,
    pub window: List<'a>,
    pub extra: List<'a>,
    /// [heads]: a logit that only the denominator has; -inf for none.
    pub sinks: &'a [f32],
    pub scale: f32,
    /// Leaves of a part.
    pub share: usize,
}

/// A query's integers, 15 bits and a sign, and what one of them times one lane of a row of scale 1 is worth in log2 units.
pub struct Query {
    pub integers: [i32; DIM],
    pub worth: f32,
}

impl Query {
    pub fn of(q: &[f32], scale: f32) -> Query {
        let mut y: [f32; DIM] = std::array::from_fn(|i| sanitise(q[i], 65504.0));
        y.chunks_mut(GROUP).for_each(turn);
        let top = y.iter().fold(0.0, |top, y| fmax(top, y.abs()));
        let inverse = if top > 1e-30 { 16256.0 / top } else { 0.0 };
        Query { integers: y.map(|y| (y * inverse).round_ties_even() as i32), worth: ((top / 16256.0) * scale) * std::f32::consts::LOG2_E }
    }
}

/// What is known of some leaves: their maximum, the sum of their weights, their outputs.
#[derive(Clone)]
pub struct Part {
    pub top: f32,
    pub sum: f32,
    pub out: Vec<f32>,
}

impl Part {
    pub fn empty() -> Part {
        Part { top: f32::NEG_INFINITY, sum: 0.0, out: vec![0.0; DIM] }
    }

    /// A right neighbour's part, its outputs in units of `unit`.
    pub fn fold(&mut self, top: f32, sum: f32, out: impl Iterator<Item = f32>, unit: f32) {
        let (own, its) = (left_worth(self.top, top), right_worth(self.top, top));
        self.sum = sum.mul_add(its, self.sum * own);
        let by = unit * its;
        self.out.iter_mut().zip(out).for_each(|(o, x)| *o = x.mul_add(by, *o * own));
        self.top = fmax(self.top, top);
    }

    /// The output row and the natural log-sum-exp without the sink; without rows 0 and -inf.
    pub fn finish(&self, sink: f32, out: &mut [f32]) -> f32 {
        out.fill(0.0);
        if self.sum <= 0.0 {
            return f32::NEG_INFINITY;
        }
        let inverse = inverse_of(self.top, self.sum, sink);
        out.iter_mut().zip(&self.out).for_each(|(out, o)| *out = (o + 0.0) * inverse);
        out.chunks_mut(GROUP).for_each(turn);
        (self.top + log2(self.sum)) * std::f32::consts::LN_2
    }
}

impl List<'_> {
    /// The row at a token's position, if there is one.
    fn row(&self, c: &Integers, token: usize, position: usize) -> Option<&[u8]> {
        let bytes = c.row_bytes();
        if position >= self.capacity || (position as i64) >= i64::from(self.lens[token]) {
            return None;
        }
        let at = usize::try_from(self.at[token * self.capacity + position]).ok()?;
        self.rows.get(at.checked_mul(bytes)?..(at + 1) * bytes)
    }
}

impl Problem<'_> {
    /// Leaves of a token's lists.
    pub fn leaves(&self) -> usize {
        self.window.capacity.div_ceil(LEAF) + self.extra.capacity.div_ceil(LEAF)
    }

    fn row(&self, c: &Integers, token: usize, position: usize) -> Option<&[u8]> {
        let first = self.window.capacity.next_multiple_of(LEAF);
        if position < first { self.window.row(c, token, position) } else { self.extra.row(c, token, position - first) }
    }

    /// Lanes and scales of a leaf's rows; nobody's are zeros of scale 0.
    fn leaf(&self, c: &Integers, token: usize, leaf: usize) -> Vec<Option<([i8; DIM], f32)>> {
        (0..LEAF).map(|i| self.row(c, token, leaf * LEAF + i).map(|row| c.lanes(row))).collect()
    }

    /// The parts of a token and head, [`Problem::share`] leaves each.
    fn parts(&self, leaves: &[Vec<Option<([i8; DIM], f32)>>], query: &Query) -> Vec<Part> {
        leaves
            .chunks(self.share)
            .map(|leaves| {
                let mut part = Part::empty();
                leaves.iter().for_each(|leaf| attend(leaf, query, &mut part));
                part
            })
            .collect()
    }

    /// Outputs [tokens, heads, 512] as f32, before their last rounding, and lse [tokens, heads].
    pub fn solve(&self, c: &Integers) -> (Vec<f32>, Vec<f32>) {
        let tokens = self.q.len() / (self.heads * DIM);
        let (mut out, mut lse) = (vec![0.0; self.q.len()], vec![0.0; tokens * self.heads]);
        for token in 0..tokens {
            let leaves: Vec<_> = (0..self.leaves()).map(|leaf| self.leaf(c, token, leaf)).collect();
            for head in 0..self.heads {
                let at = token * self.heads + head;
                let mut parts = self.parts(&leaves, &Query::of(&self.q[at * DIM..(at + 1) * DIM], self.scale)).into_iter();
                let mut whole = parts.next().unwrap_or_else(Part::empty);
                parts.for_each(|p| whole.fold(p.top, p.sum, p.out.into_iter(), 1.0));
                lse[at] = whole.finish(self.sinks[head], &mut out[at * DIM..(at + 1) * DIM]);
            }
        }
        (out, lse)
    }
}

/// One leaf, folded into what came before it.
fn attend(rows: &[Option<([i8; DIM], f32)>], query: &Query, part: &mut Part) {
    let score = |(lanes, scale): &([i8; DIM], f32)| {
        let sum: i32 = lanes.iter().zip(&query.integers).map(|(lane, q)| i32::from(*lane) * q).sum();
        // Nobody's rows have -inf in the place of this 0.
        (sum as f32).mul_add(scale * query.worth, 0.0)
    };
    let x: Vec<f32> = rows.iter().map(|row| row.as_ref().map_or(f32::NEG_INFINITY, score)).collect();
    let top = x.iter().fold(f32::NEG_INFINITY, |top, x| fmax(top, *x)).ceil();
    let p: Vec<f32> = x.iter().map(|x| weight(*x, top)).collect();
    let up = up_of(rows.iter().flatten().fold(0.0, |top, row| fmax(top, row.1)));
    let weights: Vec<i32> = p.iter().zip(rows).map(|(p, row)| rounded(*p, row.as_ref().map_or(0.0, |row| row.1) * up) & 0xffff).collect();
    let sum: i32 = p.iter().map(|p| fixed(*p)).sum();
    let sums: Vec<i32> = (0..DIM).map(|d| rows.iter().zip(&weights).map(|(row, w)| row.as_ref().map_or(0, |row| i32::from(row.0[d]) * w)).sum()).collect();
    part.fold(top, sum as f32 * (1.0 / 2_097_152.0), sums.into_iter().map(|s| s as f32), down_of(up));
}
