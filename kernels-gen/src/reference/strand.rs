//! The numerics of one row of attention, shared by the plain and the fast loop.
//!
//! A row's tokens are cut into leaves of 256, a leaf into tiles. The running maximum `m` is an integer in
//! log2 units, so a rescale multiplies by a power of two, and `l` is an integer sum: both are exact. Leaves are
//! folded along a binary tree that their indices fix, trees in order.
//!
//! Loops stand where iterator chains could: inlined into a function that is compiled for wide
//! vectors they use them, which closures would not.

use crate::kernels::TREE;
use crate::kernels::offset::{fixed_offset, fixed_raised};
use crate::kernels::query::shown_worth;
use crate::kernels::softmax::{counted, left_worth, right_worth, weight};
use crate::kernels::units::{carried, down_of, fitted, moved, sunk, up_of};
use crate::layout::TILE;
use kernel_dsl::math::{exp2_or_zero, exp2_raised, fmax, fmin, log2, sanitise};

use crate::codec::Lane;
use crate::reference::row::{rotate, to_bf16};
use crate::registry::Half;

/// Tokens of a strand.
pub(super) const LEAF: usize = crate::kernels::LEAF;

/// Tokens that meet one query of a calibrated codec.
pub const SEGMENT: usize = crate::kernels::SEGMENT;

/// Lanes that a head's tokens of a tile lie in, with two parts.
const LANES: usize = TILE / 2;

/// A query row, ready to meet codes.
pub(super) struct Query {
    /// bf16 lanes: the sanitised row, rounded to bf16.
    pub floats: Vec<f32>,
    /// u8 lanes: the rotated row in 15-bit integers.
    pub ints: Vec<i16>,
    /// What a raw score is multiplied by to get log2 units (u8 lanes: besides the key's own scale).
    pub scale: f32,
    /// What is added to every score, in log2 units: 0 but for calibrated codecs.
    pub bias: f32,
    /// What a key's offset is worth: the sum of the integers in log2 units.
    pub lean: f32,
}

impl Query {
    pub fn new(c: &Half, q: &[f32], scale: f32) -> Query {
        let mut y: Vec<f32> = q.iter().map(|&q| sanitise(q, 65504.0)).collect();
        if c.rotate {
            rotate(&mut y);
        }
        if c.lane == Lane::Bf16 {
            let floats = y.into_iter().map(to_bf16).collect();
            return Query { floats, ints: Vec::new(), scale: scale * std::f32::consts::LOG2_E, bias: 0.0, lean: 0.0 };
        }
        let amax = fmax(y.iter().fold(0.0, |top, y| fmax(top, y.abs())), 1e-20);
        let inverse = c.query_max() / amax;
        let ints: Vec<i16> = y.iter().map(|y| (y * inverse).round_ties_even() as i16).collect();
        // Scores come doubled, hence half of log2(e).
        let scale = shown_worth((amax * (1.0 / c.query_max())) * (scale * (std::f32::consts::LOG2_E * 0.5)));
        let lean = ints.iter().map(|i| i32::from(*i)).sum::<i32>() as f32 * (2.0 * scale);
        Query { floats: y, ints, scale, bias: 0.0, lean }
    }
}

/// The query that meets the keys of the leaf whose first token is `first`: the only one, or the segment's own.
#[inline(always)]
pub(super) fn of_leaf(queries: &[Query], first: usize) -> &Query {
    &queries[(first / SEGMENT).min(queries.len() - 1)]
}

/// Running state over the tiles of one leaf.
pub(super) struct Strand {
    m: f32,
    /// One part: the sum of 2^29 p.
    l: i64,
    /// Two parts: sums of 2^26 p of each lane's tokens, two neighbours of every tile.
    counts: [f32; LANES],
    /// Weighted values. [d] of the weights' high bytes, [d] of the low ones; with one part all in the second.
    pub o: [Vec<f32>; 2],
    /// Sum of the weights times their value scales, likewise; half of it is due where zero is no lane value.
    pub half: [f32; 2],
    /// Sum of 2^36 p times the offsets of the values; with two parts lanes' sums of 2^26 times as much.
    shift: i64,
    leans: [f32; LANES],
    pub parts: usize,
    /// Two parts: what weights are multiplied by now, sums of both bytes under it in the place of `o` and `half`.
    lift: i32,
    pub sums: [Vec<i32>; 2],
    pub totals: [i32; 2],
}

impl Strand {
    pub fn new(d: usize, parts: usize) -> Strand {
        Strand {
            m: f32::NEG_INFINITY,
            l: 0,
            counts: [0.0; LANES],
            o: [vec![0.0; if parts == 2 { d } else { 0 }], vec![0.0; d]],
            half: [0.0; 2],
            shift: 0,
            leans: [0.0; LANES],
            parts,
            lift: 0,
            sums: [vec![0; if parts == 2 { d } else { 0 }], vec![0; if parts == 2 { d } else { 0 }]],
            totals: [0; 2],
        }
    }

    /// Turns the scores of a tile's tokens, each worth `worth` log2 units, into their weights 2^(s worth + bias - m); with two parts 2^26 times
    /// as much.
    #[inline(always)]
    pub fn weigh(&mut self, s: &mut [f32], worth: &[f32], bias: &[f32; TILE]) {
        let mut x = [0.0; TILE];
        for ((x, bias), (s, worth)) in x.iter_mut().zip(bias).zip(s.iter().zip(worth)) {
            *x = s.mul_add(*worth, *bias);
        }
        let peak = largest(f32::NEG_INFINITY, &x[..s.len()]);
        if peak > self.m {
            let raised = fmax(self.m, peak.ceil() + 4.0);
            let factor = exp2_or_zero(self.m - raised);
            self.l >>= fmin(raised - self.m, 63.0) as u32;
            self.shift >>= fmin(raised - self.m, 63.0) as u32;
            for sum in self.counts.iter_mut().chain(&mut self.leans) {
                *sum *= factor;
            }
            if self.parts == 1 {
                self.half[1] *= factor;
                for o in &mut self.o[1] {
                    *o *= factor;
                }
            }
            self.lift = sunk(self.lift, self.m, raised);
            self.m = raised;
        }
        for (s, x) in s.iter_mut().zip(x) {
            *s = if self.parts == 2 { exp2_raised(x - self.m) } else { weight(x, self.m) };
        }
        // A lane has four tokens, or two, one after another.
        for (i, few) in s.chunks(4 / self.parts).enumerate() {
            let sum = few[1..].iter().fold(few[0], |sum, p| sum + p);
            if self.parts == 2 {
                self.counts[i] += sum;
            } else {
                self.l += i64::from((sum * 536870912.0) as u32);
            }
        }
    }

    /// Adds what the offsets of a tile's values are worth to weights `p`.
    #[inline(always)]
    pub fn add_offsets(&mut self, p: &[f32], offsets: &[f32]) {
        for (i, (p, offsets)) in p.chunks(4 / self.parts).zip(offsets.chunks(4 / self.parts)).enumerate() {
            let mut sum = p[0] * offsets[0];
            for (p, offset) in p[1..].iter().zip(&offsets[1..]) {
                sum += p * offset;
            }
            if self.parts == 2 {
                self.leans[i] += sum;
            } else {
                self.shift += fixed_offset(sum);
            }
        }
    }

    /// Makes integers of weights times value scales, under the unit that stays or under a new one. Sums move with their zeros,
    /// each worth so many times the weights' total as `zeros` says of its dim.
    #[inline(always)]
    pub fn fit(&mut self, pv: &[f32], weights: &mut [i32], zeros: &[i32]) {
        let next = fitted(self.lift, largest(0.0, pv).to_bits() as i32, self.totals[0].max(self.totals[1]));
        if next != self.lift {
            let by = next - self.lift;
            let [high, low] = &mut self.sums;
            let [high_total, low_total] = self.totals;
            self.totals = pair_moved(high_total, low_total, by);
            for ((high, low), zero) in high.iter_mut().zip(low).zip(zeros) {
                let [h, l] = pair_moved(*high + zero * high_total, *low + zero * low_total, by);
                (*high, *low) = (h - zero * self.totals[0], l - zero * self.totals[1]);
            }
            self.lift = next;
        }
        let power = up_of(self.lift);
        for (weight, pv) in weights.iter_mut().zip(pv) {
            *weight = (pv * power).round_ties_even() as i32;
        }
    }

    /// The state with outputs that `f` makes of the sum of weights.
    pub fn mapped(&self, f: impl FnOnce(f32) -> Vec<f32>) -> Partial {
        let l = self.weighed();
        Partial { m: self.m, l, o: f(l) }
    }

    /// The largest score in log2 units.
    pub fn top(&self) -> f32 {
        self.m
    }

    /// Keeps a unit under the maximum of another strand, which was `before`.
    pub fn follow(&mut self, before: f32, after: f32) {
        if after > before {
            self.lift = sunk(self.lift, before, after);
        }
    }

    /// What an integer weight is worth.
    pub fn unit(&self) -> f32 {
        down_of(self.lift)
    }

    fn weighed(&self) -> f32 {
        if self.parts == 2 { self.counts.iter().map(|sum| counted(*sum)).sum::<u32>() as f32 * (1.0 / 8_388_608.0) } else { self.l as f32 * (1.0 / 536_870_912.0) }
    }

    #[inline(always)]
    pub fn close(self, c: &Half) -> Partial {
        self.closed(c.odd(), c.affine)
    }

    /// Where zero lies half way between two lane values (`odd`), half of the weights' sum is due; `affine`: the share of offsets.
    #[inline(always)]
    pub fn closed(self, odd: bool, affine: bool) -> Partial {
        let l = self.weighed();
        let ([_, mut o], mut half) = (self.o, self.half[1]);
        if self.parts == 2 {
            // A power of two: it may come before or after what else is multiplied.
            let unit = down_of(self.lift);
            let joined = |high: i32, low: i32| (high as f32).mul_add(256.0, low as f32) * unit;
            half = joined(self.totals[0], self.totals[1]);
            o.iter_mut().zip(self.sums[0].iter().zip(&self.sums[1])).for_each(|(o, (high, low))| *o = joined(*high, *low));
        }
        if odd {
            o.iter_mut().for_each(|o| *o += half * 0.5);
        }
        if affine {
            let shift = (self.shift + self.leans.iter().map(|sum| fixed_raised(*sum)).sum::<i64>()) as f32 * (1.0 / 68_719_476_736.0);
            o.iter_mut().for_each(|o| *o += shift);
        }
        Partial { m: self.m, l, o }
    }
}

/// Sums of high and of low bytes under a unit that moved: what the high ones lose goes to the low ones.
#[inline(always)]
fn pair_moved(high: i32, low: i32, by: i32) -> [i32; 2] {
    let whole = moved(high, by);
    [whole, moved(low, by) + carried(high, whole, by)]
}

/// Makes integers of at most 2^15 from weights times value scales; returns the power of two that undoes it.
#[inline(always)]
pub(super) fn quantise(pv: &[f32], weights: &mut [i32]) -> f32 {
    let top = largest(0.0, pv);
    let e = (268 - (top.to_bits() >> 23) as i32).clamp(1, 253) as u32;
    let power = f32::from_bits(e << 23);
    for (weight, pv) in weights.iter_mut().zip(pv) {
        *weight = (pv * power).round_ties_even() as i32;
    }
    f32::from_bits((254 - e) << 23)
}

/// What part `part` of `parts` sums of a weight: its high byte, its low byte, or all of it as the second.
#[inline(always)]
pub(super) fn part_of(weight: i32, part: usize, parts: usize) -> i32 {
    match (parts, part) {
        (1, _) => weight,
        (_, 0) => weight >> 8,
        _ => weight & 255,
    }
}

/// The largest of `floor` and `x`, in eight independent chains.
#[inline(always)]
fn largest(floor: f32, x: &[f32]) -> f32 {
    let mut chains = [floor; 8];
    for x in x.chunks(8) {
        for (chain, &x) in chains.iter_mut().zip(x) {
            *chain = fmax(*chain, x);
        }
    }
    let mut top = floor;
    for chain in chains {
        top = fmax(top, chain);
    }
    top
}

/// A finished sum: of a leaf, of a part of a tree or of the whole row.
pub(super) struct Partial {
    m: f32,
    l: f32,
    o: Vec<f32>,
}

impl Partial {
    /// A row's leaves, left to right.
    #[inline(always)]
    pub fn join(leaves: Vec<Partial>, d: usize) -> Partial {
        let mut total: Option<Partial> = None;
        // Finished left parts of the present tree and how many leaves each has: ever smaller powers of two.
        let mut open: Vec<(usize, Partial)> = Vec::new();
        let count = leaves.len();
        for (i, leaf) in leaves.into_iter().enumerate() {
            let mut part = (1, leaf);
            while let Some(left) = open.pop_if(|left| left.0 == part.0) {
                part = (2 * part.0, left.1.fold(part.1));
            }
            open.push(part);
            if i + 1 == count || (i + 1) % TREE == 0 {
                // What is missing on the right leaves the left part as it is.
                let mut tree: Option<Partial> = None;
                while let Some((_, left)) = open.pop() {
                    tree = Some(match tree {
                        Some(right) => left.fold(right),
                        None => left,
                    });
                }
                total = match (total, tree) {
                    (Some(before), Some(tree)) => Some(before.fold(tree)),
                    (before, tree) => before.or(tree),
                };
            }
        }
        total.unwrap_or_else(|| Partial { m: f32::NEG_INFINITY, l: 0.0, o: vec![0.0; d] })
    }

    /// Two neighbours under the larger maximum.
    #[inline(always)]
    fn fold(mut self, right: Partial) -> Partial {
        let (own, its) = (left_worth(self.m, right.m), right_worth(self.m, right.m));
        self.l = right.l.mul_add(its, self.l * own);
        for (o, r) in self.o.iter_mut().zip(&right.o) {
            *o = r.mul_add(its, *o * own);
        }
        self.m = fmax(self.m, right.m);
        self
    }

    /// Writes the output row and returns its natural log-sum-exp; without tokens 0 and -inf. Zeros are positive: a fold whose
    /// right part weighs nothing may have turned one.
    pub fn finish(self, c: &Half, out: &mut [f32]) -> f32 {
        if self.l <= 0.0 {
            out.fill(0.0);
            return f32::NEG_INFINITY;
        }
        out.iter_mut().zip(&self.o).for_each(|(out, o)| *out = (o + 0.0) / self.l);
        if c.rotate {
            rotate(out);
        }
        (self.m + log2(self.l)) * std::f32::consts::LN_2
    }
}
