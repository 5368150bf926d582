//! The decode kernel: attention of one query token a sequence over its cached keys and values.
//!
//! With u8 lanes every sum across tokens or dims is a sum of integers and every other f32 operation
//! has a fixed place, so any number of warps gives these bits. `strand` has the numerics.

use crate::codec::Lane;
use crate::kernels::parts;
use crate::layout::{Layout, Operand, TILE};
use crate::reference::row::to_bf16;
use crate::reference::strand::{LEAF, Partial, Query, Strand, of_leaf, part_of, quantise};
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
pub fn decode(c: &CodecInfo, s: &CacheShape, cache: &[u8], q: &[f32], heads: usize, table: &[i32], table_stride: usize, lens: &[i32], scale: f32) -> Decoded {
    let queries = |row: usize, _: usize| vec![Query::new(&c.k, &q[row * s.d..][..s.d], scale)];
    decode_with(c, s, cache, heads, table, table_stride, lens, queries)
}

/// As `decode`; `queries` makes the queries of a row of the batch for its length, one for all segments or one for each.
#[allow(clippy::too_many_arguments)]
pub(super) fn decode_with(c: &CodecInfo, s: &CacheShape, cache: &[u8], heads: usize, table: &[i32], table_stride: usize, lens: &[i32], queries: impl Fn(usize, usize) -> Vec<Query>) -> Decoded {
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
            let queries = queries(row, len as usize);
            let tile_of = |tile: usize| s.tile(c, cache, &pages, head / (heads / s.kv_heads), tile);
            let total = attend(c, s.d, parts(c), &queries, len as usize, tile_of);
            decoded.lse[row] = total.finish(&c.v, &mut decoded.out[row * s.d..][..s.d]);
        }
    }
    decoded
}

/// Attends `q` `[batch, heads, d]` by kv heads: `head_of` unpacks one from a sequence's pages and its length, `attend` gives a row's output and lse.
/// The first `lead` pages have no tokens.
#[allow(clippy::too_many_arguments)] // the kernel's own argument list
pub(super) fn decode_by_heads<H>(
    s: &CacheShape,
    q: &[f32],
    heads: usize,
    table: &[i32],
    table_stride: usize,
    lead: usize,
    lens: &[i32],
    head_of: impl Fn(&[usize], usize, usize) -> H,
    attend: impl Fn(&H, &[f32], usize) -> (Vec<f32>, f32),
) -> Decoded {
    let (rows, group) = (lens.len() * heads, heads / s.kv_heads);
    let mut decoded = Decoded { out: vec![0.0; rows * s.d], lse: vec![f32::NEG_INFINITY; rows], status: Status::OK };
    for (b, &len) in lens.iter().enumerate() {
        let (before, own) = table[b * table_stride..][..table_stride].split_at(lead.min(table_stride));
        let first = || s.pages_of(before, if len > 0 { (before.len() * s.page_tokens) as i32 } else { 0 });
        let pages = match s.pages_of(own, len).and_then(|own| Ok([first()?, own].concat())) {
            Ok(pages) => pages,
            Err(status) => {
                decoded.status.set(status);
                continue;
            }
        };
        for kv_head in 0..s.kv_heads {
            let head = head_of(&pages, kv_head, len as usize);
            for row in b * heads + kv_head * group..b * heads + (kv_head + 1) * group {
                let (out, lse) = attend(&head, &q[row * s.d..][..s.d], len as usize);
                decoded.out[row * s.d..][..s.d].copy_from_slice(&out);
                decoded.lse[row] = lse;
            }
        }
    }
    decoded
}

/// One row over all its tiles.
fn attend<'a>(c: &CodecInfo, d: usize, parts: usize, queries: &[Query], len: usize, tile_of: impl Fn(usize) -> &'a [u8]) -> Partial {
    let mut leaves = Vec::new();
    for first in (0..len).step_by(LEAF) {
        let end = len.min(first + LEAF);
        let mut strand = Strand::new(d, parts);
        for start in (first..end).step_by(TILE) {
            let tile = Tile { c, layout: c.layout(d), bytes: tile_of(start / TILE), tokens: TILE.min(end - start) };
            tile.add(of_leaf(queries, first), &mut strand);
        }
        leaves.push(strand.close(&c.v));
    }
    Partial::join(leaves, d)
}

/// A packed tile of which the first `tokens` belong to the sequence; the rest is never looked at.
struct Tile<'a> {
    c: &'a CodecInfo,
    layout: Layout,
    bytes: &'a [u8],
    tokens: usize,
}

impl Tile<'_> {
    fn add(&self, query: &Query, strand: &mut Strand) {
        let (mut x, mut worth) = (Vec::new(), Vec::new());
        for t in 0..self.tokens {
            x.push(match self.c.k.lane {
                Lane::U8 | Lane::U16 => self.steps(t).zip(&query.ints).fold(0_i32, |sum, (k, &q)| sum.wrapping_add(k.wrapping_mul(i32::from(q)))) as f32,
                Lane::Bf16 => self.floats(Operand::K, t).zip(&query.floats).fold(0.0_f32, |sum, (k, q)| k.mul_add(*q, sum)),
            });
            worth.push(self.worth(Operand::K, t) * query.scale);
        }
        let mut bias = [query.bias; TILE];
        if self.c.k.affine {
            bias.iter_mut().zip(self.offsets(Operand::K)).for_each(|(bias, offset)| *bias += offset * query.lean);
        }
        strand.weigh(&mut x, &worth, &bias);
        if self.c.v.affine {
            strand.add_offsets(&x, &self.offsets(Operand::V));
        }
        for (t, p) in x.iter_mut().enumerate() {
            *p *= self.worth(Operand::V, t);
        }
        match self.c.v.lane {
            Lane::U8 | Lane::U16 => self.add_integers(&x, strand),
            Lane::Bf16 => self.add_floats(&x, strand),
        }
    }

    fn add_integers(&self, pv: &[f32], strand: &mut Strand) {
        let mut weights = vec![0; self.tokens];
        let unit = if strand.parts == 2 {
            strand.fit(pv, &mut weights, &self.c.v.zeros(self.layout.d));
            0.0
        } else {
            quantise(pv, &mut weights)
        };
        for part in 2 - strand.parts..2 {
            let (mut total, mut sums) = (0_i32, vec![0_i32; self.layout.d]);
            for (t, weight) in weights.iter().enumerate() {
                let weight = part_of(*weight, part, strand.parts);
                let v = self.codes(Operand::V, t).flat_map(|(at, code)| self.c.v.value_steps(at, code));
                total = total.wrapping_add(weight);
                sums.iter_mut().zip(v).for_each(|(sum, v)| *sum = sum.wrapping_add(v.wrapping_mul(weight)));
            }
            if strand.parts == 2 {
                strand.totals[part] += total;
                strand.sums[part].iter_mut().zip(sums).for_each(|(o, sum)| *o += sum);
                continue;
            }
            strand.half[part] = (total as f32).mul_add(unit, strand.half[part]);
            strand.o[part].iter_mut().zip(sums).for_each(|(o, sum)| *o = (sum as f32).mul_add(unit, *o));
        }
    }

    fn add_floats(&self, pv: &[f32], strand: &mut Strand) {
        for (t, p) in pv.iter().copied().map(to_bf16).enumerate() {
            strand.o[1].iter_mut().zip(self.floats(Operand::V, t)).for_each(|(o, v)| *o = p.mul_add(v, *o));
        }
    }

    /// Where each block stands among how many, and its code.
    fn codes(&self, operand: Operand, token: usize) -> impl Iterator<Item = ((usize, usize), [u32; 4])> {
        let n = self.layout.blocks();
        (0..n).map(move |b| ((b, n), self.layout.read_code(self.bytes, operand, token, b)))
    }

    fn steps(&self, token: usize) -> impl Iterator<Item = i32> {
        self.codes(Operand::K, token).flat_map(|(at, code)| self.c.k.steps(at, code))
    }

    fn floats(&self, operand: Operand, token: usize) -> impl Iterator<Item = f32> {
        self.codes(operand, token).flat_map(move |(at, code)| self.c.half(operand).floats(at, code))
    }

    fn offsets(&self, operand: Operand) -> Vec<f32> {
        (0..self.tokens).map(|t| self.c.half(operand).offset(self.layout.read_sides(self.bytes, operand, t))).collect()
    }

    fn worth(&self, operand: Operand, token: usize) -> f32 {
        self.c.half(operand).worth(self.layout.read_sides(self.bytes, operand, token))
    }
}
