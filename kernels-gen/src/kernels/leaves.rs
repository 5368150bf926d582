//! How partial results become one: leaves of 256 tokens are folded along a binary tree that their indices fix, so who
//! folds them changes no bit.
//!
//! A warp folds the leaves of its own part of the tree as it goes: a finished left part waits in shared memory
//! (`held`) until its right neighbour is finished too. Left parts of one tree have ever smaller powers of two of leaves, so a
//! place for each power is enough. A block folds what its warps hold at its end, the join kernel what blocks leave.
//!
//! Where rings leave too little shared memory (`away`), left parts wait in memory of the threads' own (`by`: output of each band,
//! maximum, sum), and a warp's last part, which comes when no copy is on its way, lies in the warp's ring.

use super::arguments::{Outputs, Share};
use super::decode_attention::DecodeMeta;
use super::many::joined;
use super::softmax::*;
use super::values::{inverse, raises, total_of};
use crate::codec::Codec;
use kernel_dsl::prelude::*;

/// Tokens of a leaf. Part of the result's definition, as the tree is.
pub const LEAF: usize = 256;

/// Tiles of a leaf.
pub const TILES: usize = LEAF / 32;

/// Leaves of a tree: 131072 tokens. Trees are folded one after another.
pub const TREE: usize = 512;

/// Parts that a warp folds at once.
pub const FOLD: usize = 8;

/// log2 of the leaves a warp of a crew of 2^log_crew takes: as few as give all `leaves` to the crew, at most `most`.
#[device]
pub fn log_each(leaves: i32, most: i32, log_crew: i32, depth: usize) -> i32 {
    let mut log = 0_i32;
    for k in 0..depth {
        log = if leaves > 1_i32 << ((log_crew + k as i32) & 31_i32) { k as i32 + 1_i32 } else { log };
    }
    log.min(most)
}

/// Output of a band at a leaf's end: [d, cols], with two parts folded halves [d / 2, 8]. Where units stay, sums and totals come in
/// units of `unit` each: a power of two, so that it may be a factor before or after others.
#[device]
#[allow(clippy::too_many_arguments)]
pub fn closed(m: &DecodeMeta, c: &dyn Codec, high: &Tile<f32>, low: &Tile<f32>, high_half: &Tile<f32>, half: &Tile<f32>, shift: &Tile<i64>, unit: &Tile<f32>, d: usize) -> Tile<f32> {
    let raised = raises(m, c, d);
    // Dims at different heights come down by a factor of their own; after folding where a lane's rows begin at a multiple of eight.
    let late = raised & m.steady() & (m.apart | (d % 128 == 0));
    let low = if raised & !late { low * &raise(d, c.spec().raised).cast::<f32>().map(inverse) } else { low.clone() };
    let o = if m.apart { joined(high, &low) } else { if m.parts == 2 { low.fold_halves(256) } else { low } };
    let half = (if m.apart { joined(high_half, half) } else { if m.parts == 2 { half.fold_halves(256) } else { half.clone() } }) * &(unit * 0.5_f32);
    let o = if m.steady() {
        let by = if late { raise(d / m.parts, c.spec().raised).cast::<f32>().map(inverse) * unit } else { acc(d / m.parts, m.cols, 0.0_f32) + unit };
        if c.spec().odd() { o.map3(&by, &half, fused) } else { o * &by }
    } else {
        if c.spec().odd() { o + &half } else { o }
    };
    if c.spec().affine { o + &(total_of(shift, m.parts).cast::<f32>() * 1.4551915e-11_f32) } else { o }
}

/// Places outside of shared memory for a warp's parts that wait: output of each band, maximum, sum.
#[device]
pub fn waiting(m: &DecodeMeta, bands: usize) -> [PutBy<f32>; 4] {
    let (part, stat) = (acc(m.d / bands / m.parts, m.cols, 0.0_f32), cols(m.cols, 0.0_f32));
    [put_by(m.put_by(), &part), put_by(m.put_by() * (bands - 1), &part), put_by(m.put_by(), &stat), put_by(m.put_by(), &stat)]
}

/// A closed leaf, the `r`-th of the 2^log_each of warp `w`: folded with the left parts that wait for it, then made to wait itself.
/// `last`: nothing more comes, so that what is missing on the right is not waited for and all ends up where the block looks for it.
#[device]
#[allow(clippy::too_many_arguments)]
pub fn hold(m: &DecodeMeta, bands: usize, held: &mut Shared<f32>, by: &mut [PutBy<f32>; 4], w: i32, r: i32, last: bool, log_each: i32, o: [Tile<f32>; 2], l: Tile<f32>, top: Tile<f32>) {
    let (mut o, mut l, mut top) = (o, l, top);
    for k in 0..m.depth {
        let below = (1_i32 << k) - 1_i32;
        if ((k as i32) < log_each) & (((r >> k as u32) & 1_i32) == 1_i32) & (last | ((r & below) == below)) {
            let (at, k) = (w * m.run() as i32 + (k * m.part()) as i32, k as i32);
            let its_top = if m.away { by[2].at(k) } else { held.cols(at + m.stat() as i32, 2, m.cols) };
            let its_l = if m.away { by[3].at(k) } else { held.cols(at + (m.stat() + 1) as i32, 2, m.cols) };
            let (left, right) = (its_top.map2(&top, left_worth), its_top.map2(&top, right_worth));
            l = l.map3(&right, &(its_l * &left), fused);
            for i in 0..bands {
                let at = at + (i * m.d / bands) as i32;
                let before = if m.away { by[i].at(k) } else { if m.parts == 2 { held.halves(at, m.d, m.rows(), m.d / bands / 2) } else { held.acc(at, m.d, m.rows(), m.d / bands, m.cols) } };
                o[i] = o[i].map3(&right, &(before * &left), fused);
            }
            top = its_top.map2(&top, fmax);
        }
    }
    let place = if last { 0_i32 } else { popc(((r ^ (r + 1_i32)) >> 1) as u32) as i32 };
    sync_warp();
    if if m.away { last } else { true } {
        let at = w * m.run() as i32 + place * m.part() as i32;
        for i in 0..bands {
            let at = at + (i * m.d / bands) as i32;
            if m.parts == 2 {
                held.put_halves(at, m.d, m.rows(), &o[i]);
            } else {
                held.put_acc(at, 1, m.d, m.rows(), &o[i]);
            }
        }
        held.put_cols(at + m.stat() as i32, 2, m.cols, &top);
        held.put_cols(at + (m.stat() + 1) as i32, 2, m.cols, &l);
    } else {
        for i in 0..bands {
            by[i].put(place, &o[i]);
        }
        by[2].put(place, &top);
        by[3].put(place, &l);
    }
    sync_warp();
}

/// Part `i` of a row's that the warps of a crew from warp `lead` on hold, `live` of them: the last one of its warp i.
#[device]
pub fn of_warp(m: &DecodeMeta, held: &Shared<f32>, column: i32, i: usize, lead: i32, live: i32) -> (Tile<f32>, f32, f32) {
    let at = (lead + (i as i32).min(live - 1_i32)) * m.run() as i32;
    let stat = at + m.stat() as i32 + column * 2_i32;
    (held.row(at + column * m.d as i32, m.d), held.at(stat + 1_i32), held.at(stat))
}

/// A row of what a crew's warps hold: output, sum, maximum.
#[device]
pub fn of_crew(m: &DecodeMeta, held: &Shared<f32>, column: i32, lead: i32, live: i32) -> (Tile<f32>, f32, f32) {
    let w = m.warps;
    let (a, b) = (of_warp(m, held, column, 0, lead, live), of_warp(m, held, column, 1 % w, lead, live));
    let (c, d) = (of_warp(m, held, column, 2 % w, lead, live), of_warp(m, held, column, 3 % w, lead, live));
    let (e, f) = (of_warp(m, held, column, 4 % w, lead, live), of_warp(m, held, column, 5 % w, lead, live));
    let (g, h) = (of_warp(m, held, column, 6 % w, lead, live), of_warp(m, held, column, 7 % w, lead, live));
    tree([a.0, b.0, c.0, d.0, e.0, f.0, g.0, h.0], [a.1, b.1, c.1, d.1, e.1, f.1, g.1, h.1], [a.2, b.2, c.2, d.2, e.2, f.2, g.2, h.2], live)
}

/// Eight neighbouring parts of a row, of which the first `live` exist, the others being finite: their tree.
#[device]
pub fn tree(o: [Tile<f32>; 8], l: [f32; 8], top: [f32; 8], live: i32) -> (Tile<f32>, f32, f32) {
    let (mut o, mut l, mut top) = (o, l, top);
    for level in 0..3 {
        // All pairs of a level side by side: a branch each would be a chain.
        if (1 << level) < live {
            for i in 0..4 >> level {
                let (at, next) = (i * (2 << level), i * (2 << level) + (1 << level));
                let both = (next as i32) < live;
                let (left, right) = (left_worth(top[at], top[next]), right_worth(top[at], top[next]));
                let (left, right) = (if both { left } else { 1.0_f32 }, if both { right } else { 0.0_f32 });
                l[at] = l[next].mul_add(right, l[at] * left);
                o[at] = o[next].mul_add(right, &(&o[at] * left));
                top[at] = if both { fmax(top[at], top[next]) } else { top[at] };
            }
        }
    }
    (o[0].clone(), l[0], top[0])
}

/// A row's output and log-sum-exp, from all of it: divided, rotated back. Nothing where `some` is false. Zeros are
/// positive, whatever parts of factor 0 were folded.
#[device]
pub fn finished(v: &dyn Codec, d: usize, inv_sqrt_d: f32, some: bool, o: &Tile<f32>, l: f32, top: f32) -> (Tile<f32>, f32) {
    let y = (o + 0.0_f32) / (if some { l } else { 1.0_f32 });
    let back = if v.spec().rotate { y.hadamard() * inv_sqrt_d } else { y };
    let kept = if some { back } else { vector(d, 0.0_f32) };
    (kept, if some { (top + log2(if some { l } else { 1.0_f32 })) * 0.6931472_f32 } else { f32::NEG_INFINITY })
}

/// The same, written.
#[device]
pub fn finish<T: Float>(v: &dyn Codec, out: &mut Global<T>, lse: &mut Global<f32>, row: i32, d: usize, inv_sqrt_d: f32, some: bool, o: &Tile<f32>, l: f32, top: f32) {
    let (y, whole) = finished(v, d, inv_sqrt_d, some, o, l, top);
    out.put_row(row as i64 * d as i64, &y.to::<T>());
    lse.put(row, whole);
}

/// A row's share, for the join kernel.
#[device]
pub fn leave(part: &mut Global<f32>, stat: &mut Global<f32>, row: i64, d: usize, o: &Tile<f32>, l: f32, top: f32) {
    part.put_row(row * d as i64, o);
    stat.put(row * 2_i64, top);
    stat.put(row * 2_i64 + 1_i64, l);
}

/// A row without tokens.
#[device]
pub fn nothing<T: Float>(out: &mut Global<T>, lse: &mut Global<f32>, row: i32, d: usize) {
    out.put_row(row as i64 * d as i64, &vector(d, 0.0_f32).to::<T>());
    lse.put(row, f32::NEG_INFINITY);
}

/// What a block of one share of a sequence leaves: outputs, where it has all of it, else its part for the join; nothing where there are no tokens.
#[device]
#[allow(clippy::too_many_arguments)]
pub fn leave_share<T: Float>(m: &DecodeMeta, v: &dyn Codec, held: &Shared<f32>, fault: &Shared<i32>, to: &mut Outputs<T>, kv_heads: i32, of: &Share, live: i32, all: bool) {
    for w in warps(m.warps) {
        for c in strided(w, if (live > 0_i32) | (all & (of.split == 0_i32)) { m.rows() as i32 } else { 0_i32 }, m.warps as i32) {
            let row = (of.seq * kv_heads + of.head) * m.group as i32 + c;
            if live > 0_i32 {
                let (o, l, top) = of_crew(m, held, c, 0_i32, live);
                if all {
                    finish::<T>(v, to.out, to.lse, row, m.d, m.inv_sqrt_d, (fault.at(c) == 0_i32) & (l > 0.0_f32), &o, l, top);
                } else {
                    let row = ((of.seq * kv_heads + of.head) as i64 * to.splits as i64 + of.split as i64) * m.rows() as i64 + c as i64;
                    leave(to.part, to.stat, row, m.d, &o, l, top);
                }
            } else {
                nothing::<T>(to.out, to.lse, row, m.d);
            }
        }
    }
}
