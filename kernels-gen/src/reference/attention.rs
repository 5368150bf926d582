//! The decode kernel: attention of one query token a sequence over its cached keys and values.
//!
//! With u8 lanes every sum across tokens or dims is a sum of integers and every other f32 operation
//! has a fixed place, so any number of warps gives these bits. `strand` has the numerics.

use crate::codec::Lane;
use crate::layout::{Layout, Operand, TILE};
use crate::reference::row::to_bf16;
use crate::kernels::parts;
use crate::reference::strand::{Partial, Query, SEGMENT, Strand, part_of, quantise};
use crate::reference::{CacheShape, Status};
use crate::registry::CodecInfo;

/// Result of a decode launch.
#[derive(Clone, PartialEq, Debug)]
pub struct Decoded {
    /// `[batch, heads, d]`, before any rounding to bf16.
    pub out: Vec<f32>,
    /// Natural log-sum-exp of the scaled scores, `[batch, heads]`; -inf without tokens.
    pub lse: Vec<f32>,
    pub status: Status,
}

/// Attends `q` `[batch, heads, d]` to the first `lens[b]` tokens of the pages `table[b * table_stride..]`.
#[allow(clippy::too_many_arguments)] // the kernel's own argument list
pub fn decode(
    c: &CodecInfo,
    s: &CacheShape,
    cache: &[u8],
    q: &[f32],
    heads: usize,
    table: &[i32],
    table_stride: usize,
    lens: &[i32],
    scale: f32,
) -> Decoded {
    let rows = lens.len() * heads;
    let mut decoded = Decoded { out: vec![0.0; rows * s.d], lse: vec![f32::NEG_INFINITY; rows], status: Status::OK };
    for (b, &len) in lens.iter().enumerate() {
        let pages = match s.pages_of(&table[b * table_stride..][..table_stride], len) {
            Ok(pages) => pages,
            Err(status) => {
                decoded.status.set(status);
                continue;
            }
        };
        for head in 0..heads {
            let row = b * heads + head;
            let query = Query::new(c, &q[row * s.d..][..s.d], scale);
            let tile_of = |tile: usize| s.tile(c, cache, &pages, head / (heads / s.kv_heads), tile);
            let total = attend(c, s.d, parts(c, heads / s.kv_heads), &query, len as usize, tile_of);
            decoded.lse[row] = total.finish(c, &mut decoded.out[row * s.d..][..s.d]);
        }
    }
    decoded
}

/// One row over all its tiles.
fn attend<'a>(c: &CodecInfo, d: usize, parts: usize, query: &Query, len: usize, tile_of: impl Fn(usize) -> &'a [u8]) -> Partial {
    let mut segments = Vec::new();
    for first in (0..len).step_by(SEGMENT) {
        let end = len.min(first + SEGMENT);
        let mut strand = Strand::new(d, parts);
        for start in (first..end).step_by(TILE) {
            let tile = Tile { c, layout: c.layout(d), bytes: tile_of(start / TILE), tokens: TILE.min(end - start) };
            match c.lane {
                Lane::U8 => tile.add_integers(query, &mut strand),
                Lane::Bf16 => tile.add_floats(query, &mut strand),
            }
        }
        segments.push(strand.close(c));
    }
    Partial::join(segments, d)
}

/// A packed tile of which the first `tokens` belong to the sequence; the rest is never looked at.
struct Tile<'a> {
    c: &'a CodecInfo,
    layout: Layout,
    bytes: &'a [u8],
    tokens: usize,
}

impl Tile<'_> {
    fn add_integers(&self, query: &Query, strand: &mut Strand) {
        let (mut x, mut worth) = (Vec::new(), Vec::new());
        for t in 0..self.tokens {
            let k = self.steps(Operand::K, t);
            let score = k.iter().zip(&query.ints).fold(0_i32, |sum, (&k, &q)| sum.wrapping_add(k.wrapping_mul(i32::from(q))));
            x.push(score as f32);
            worth.push(self.scale(Operand::K, t) * query.scale);
        }
        strand.weigh(&mut x, &worth);
        let pv: Vec<f32> = x.iter().enumerate().map(|(t, p)| p * self.scale(Operand::V, t)).collect();
        let mut weights = vec![0; self.tokens];
        let unit = quantise(&pv, &mut weights);
        for part in 2 - strand.parts..2 {
            let (mut total, mut sums) = (0_i32, vec![0_i32; self.layout.d]);
            for (t, weight) in weights.iter().enumerate() {
                let (weight, v) = (part_of(*weight, part, strand.parts), self.value_steps(t));
                total = total.wrapping_add(weight);
                sums.iter_mut().zip(v).for_each(|(sum, v)| *sum = sum.wrapping_add(v.wrapping_mul(weight)));
            }
            strand.half[part] = (total as f32).mul_add(unit, strand.half[part]);
            strand.o[part].iter_mut().zip(sums).for_each(|(o, sum)| *o = (sum as f32).mul_add(unit, *o));
        }
    }

    fn add_floats(&self, query: &Query, strand: &mut Strand) {
        let mut x: Vec<f32> = Vec::new();
        for t in 0..self.tokens {
            let k = self.floats(Operand::K, t);
            x.push(k.iter().zip(&query.floats).fold(0.0_f32, |sum, (k, q)| k.mul_add(*q, sum)));
        }
        let worth = vec![query.scale; self.tokens];
        strand.weigh(&mut x, &worth);
        for (t, p) in x.into_iter().map(to_bf16).enumerate() {
            let v = self.floats(Operand::V, t);
            strand.o[1].iter_mut().zip(v).for_each(|(o, v)| *o = p.mul_add(v, *o));
        }
    }

    fn codes(&self, operand: Operand, token: usize) -> impl Iterator<Item = [u32; 4]> {
        (0..self.layout.blocks()).map(move |b| self.layout.read_code(self.bytes, operand, token, b))
    }

    fn steps(&self, operand: Operand, token: usize) -> Vec<i32> {
        self.codes(operand, token).flat_map(|code| self.c.steps(code)).collect()
    }

    fn value_steps(&self, token: usize) -> Vec<i32> {
        self.codes(Operand::V, token).flat_map(|code| self.c.value_steps(code)).collect()
    }

    fn floats(&self, operand: Operand, token: usize) -> Vec<f32> {
        self.codes(operand, token).flat_map(|code| self.c.floats(code)).collect()
    }

    fn scale(&self, operand: Operand, token: usize) -> f32 {
        self.c.worth(self.layout.read_sides(self.bytes, operand, token))
    }
}
