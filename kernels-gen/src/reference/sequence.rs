//! The decode kernel again, for many queries over one sequence: codes are unpacked once.

use multiversion::multiversion;

use crate::codec::Lane;
use crate::kernels::parts;
use crate::layout::{Operand, TILE};
use crate::reference::row::to_bf16;
use crate::reference::strand::{LEAF, Partial, Query, Strand, of_leaf, part_of, quantise};
use crate::reference::{CacheShape, Status};
use crate::registry::CodecInfo;

/// The unpacked keys and values of one sequence.
pub struct Sequence {
    codec: CodecInfo,
    d: usize,
    len: usize,
    heads: Vec<Head>,
}

/// One kv head, tokens padded to whole tiles; the lane kind decides which fields are filled.
#[derive(Default)]
struct Head {
    /// Lanes of values that stand for zero. [d]
    zeros: Vec<i32>,
    /// `2 * lane - ZERO2`. [token, d]
    k: Vec<i16>,
    /// `lane - ZERO`. [token, d]
    v: Vec<i16>,
    k_scale: Vec<f32>,
    v_scale: Vec<f32>,
    /// Of affine codecs. [token]
    k_offset: Vec<f32>,
    v_offset: Vec<f32>,
    /// [tile, d, token of the tile]
    k_floats: Vec<f32>,
    /// [token, d]
    v_floats: Vec<f32>,
}

/// Query rows that walk a head's tiles together, so that a tile is read from the cache once.
const ROWS: usize = 16;

impl Sequence {
    /// Unpacks the first `len` tokens of the pages in `table`.
    pub fn new(c: &CodecInfo, s: &CacheShape, cache: &[u8], table: &[i32], len: usize) -> Result<Sequence, Status> {
        let pages = s.pages_of(table, i32::try_from(len).map_err(|_| Status::BAD_LENGTH)?)?;
        let heads = (0..s.kv_heads).map(|head| {
            let mut unpacked = Head { zeros: c.v.zeros(s.d), ..Head::default() };
            for tile in 0..len.div_ceil(TILE) {
                unpacked.push(c, s.d, s.tile(c, cache, &pages, head, tile), TILE.min(len - tile * TILE));
            }
            unpacked
        });
        Ok(Sequence { codec: *c, d: s.d, len, heads: heads.collect() })
    }

    /// Row i of `q` `[n, heads, d]` attends to the first `lens[i]` tokens. Returns the output `[n, heads, d]` and
    /// the natural log-sum-exp `[n, heads]`; rows whose length is negative or beyond the sequence are 0 and -inf.
    pub fn attend(&self, q: &[f32], heads: usize, lens: &[i32], scale: f32) -> (Vec<f32>, Vec<f32>) {
        self.attend_with(heads, lens, |row, _| vec![Query::new(&self.codec.k, &q[row * self.d..][..self.d], scale)])
    }

    /// As `attend`; `queries` makes a row's queries for its length, one for all segments or one for each.
    pub(super) fn attend_with(&self, heads: usize, lens: &[i32], queries: impl Fn(usize, usize) -> Vec<Query>) -> (Vec<f32>, Vec<f32>) {
        let mut out = vec![0.0; lens.len() * heads * self.d];
        let mut lse = vec![f32::NEG_INFINITY; lens.len() * heads];
        let group = heads / self.heads.len();
        for (kv_head, unpacked) in self.heads.iter().enumerate() {
            let rows: Vec<(usize, usize)> = (0..lens.len() * group)
                .filter_map(|i| {
                    let len = usize::try_from(lens[i / group]).ok().filter(|&len| len <= self.len)?;
                    Some((i / group * heads + kv_head * group + i % group, len))
                })
                .collect();
            for rows in rows.chunks(ROWS) {
                let queries: Vec<(Vec<Query>, usize)> = rows.iter().map(|&(row, len)| (queries(row, len), len)).collect();
                let totals = attend_rows(&self.codec, self.d, parts(&self.codec), unpacked, &queries);
                for (&(row, _), total) in rows.iter().zip(totals) {
                    lse[row] = total.finish(&self.codec.v, &mut out[row * self.d..][..self.d]);
                }
            }
        }
        (out, lse)
    }
}

impl Head {
    fn push(&mut self, c: &CodecInfo, d: usize, tile: &[u8], tokens: usize) {
        let layout = c.layout(d);
        let code = |operand, t, b| if t < tokens { layout.read_code(tile, operand, t, b) } else { [0; 4] };
        let scale = |operand, t| if t < tokens { c.half(operand).worth(layout.read_sides(tile, operand, t)) } else { 0.0 };
        for t in 0..TILE {
            self.k_scale.push(scale(Operand::K, t));
            self.v_scale.push(scale(Operand::V, t));
            let offset = |operand| if t < tokens { c.half(operand).offset(layout.read_sides(tile, operand, t)) } else { 0.0 };
            if c.k.affine {
                self.k_offset.push(offset(Operand::K));
            }
            if c.v.affine {
                self.v_offset.push(offset(Operand::V));
            }
        }
        let n = layout.blocks();
        let all = (0..TILE).flat_map(|t| (0..n).map(move |b| (t, b)));
        match c.k.lane {
            Lane::U8 | Lane::U16 => all.clone().for_each(|(t, b)| self.k.extend(c.k.steps((b, n), code(Operand::K, t, b)).map(|k| k as i16))),
            Lane::Bf16 => {
                let first = self.k_floats.len();
                self.k_floats.resize(first + TILE * d, 0.0);
                for (t, b) in all.clone() {
                    let k = c.k.floats((b, n), code(Operand::K, t, b));
                    k.iter().enumerate().for_each(|(i, k)| self.k_floats[first + (8 * b + i) * TILE + t] = *k);
                }
            }
        }
        match c.v.lane {
            Lane::U8 | Lane::U16 => all.for_each(|(t, b)| self.v.extend(c.v.value_steps((b, n), code(Operand::V, t, b)).map(|v| v as i16))),
            Lane::Bf16 => all.for_each(|(t, b)| self.v_floats.extend(c.v.floats((b, n), code(Operand::V, t, b)))),
        }
    }
}

/// Rows of one head over all its tiles; compiled again for wide vectors, where fused multiply-adds are one instruction.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
fn attend_rows(c: &CodecInfo, d: usize, parts: usize, head: &Head, rows: &[(Vec<Query>, usize)]) -> Vec<Partial> {
    let longest = rows.iter().map(|row| row.1).max().unwrap_or(0);
    let mut leaves: Vec<Vec<Partial>> = rows.iter().map(|_| Vec::new()).collect();
    for first in (0..longest).step_by(LEAF) {
        let mut open: Vec<Strand> = rows.iter().map(|_| Strand::new(d, parts)).collect();
        for start in (first..longest.min(first + LEAF)).step_by(TILE) {
            for ((queries, len), strand) in rows.iter().zip(&mut open) {
                let tokens = TILE.min(len.saturating_sub(start));
                if tokens == 0 {
                    continue;
                }
                let query = of_leaf(queries, first);
                let mut x = match c.k.lane {
                    Lane::U8 | Lane::U16 => head.integer_scores(d, start, tokens, query),
                    Lane::Bf16 => float_scores(&head.k_floats[start * d..(start + TILE) * d], &query.floats),
                };
                head.weigh(start, &mut x[..tokens], query, strand);
                match c.v.lane {
                    Lane::U8 | Lane::U16 => head.add_integers(d, start, &x[..tokens], strand),
                    Lane::Bf16 => head.add_floats(d, start, &mut x[..tokens], strand),
                }
            }
        }
        for ((leaves, strand), (_, len)) in leaves.iter_mut().zip(open).zip(rows) {
            if first < *len {
                leaves.push(strand.close(&c.v));
            }
        }
    }
    let mut totals = Vec::new();
    for parts in leaves {
        totals.push(Partial::join(parts, d));
    }
    totals
}

/// Dims whose sums stay in registers.
const DIMS: usize = 64;

impl Head {
    #[inline(always)]
    fn integer_scores(&self, d: usize, start: usize, tokens: usize, query: &Query) -> [f32; TILE] {
        let mut x = [0.0; TILE];
        for (x, k) in x[..tokens].iter_mut().zip(self.k[start * d..].chunks_exact(d)) {
            let mut score = 0_i32;
            for (&k, &q) in k.iter().zip(&query.ints) {
                score += i32::from(k) * i32::from(q);
            }
            *x = score as f32;
        }
        x
    }

    /// Scores become weights, times the scales of their values.
    #[inline(always)]
    fn weigh(&self, start: usize, x: &mut [f32], query: &Query, strand: &mut Strand) {
        let mut worth = [0.0; TILE];
        for (worth, k_scale) in worth.iter_mut().zip(&self.k_scale[start..]) {
            *worth = k_scale * query.scale;
        }
        let mut bias = [query.bias; TILE];
        for (bias, offset) in bias.iter_mut().zip(self.k_offset.get(start..).unwrap_or(&[])) {
            *bias += offset * query.lean;
        }
        strand.weigh(x, &worth[..x.len()], &bias);
        if !self.v_offset.is_empty() {
            strand.add_offsets(x, &self.v_offset[start..start + x.len()]);
        }
        for (p, v_scale) in x.iter_mut().zip(&self.v_scale[start..]) {
            *p *= v_scale;
        }
    }

    #[inline(always)]
    fn add_integers(&self, d: usize, start: usize, x: &[f32], strand: &mut Strand) {
        let mut weights = [0; TILE];
        let weights = &mut weights[..x.len()];
        let unit = if strand.parts == 2 {
            strand.fit(x, weights, &self.zeros);
            0.0
        } else {
            quantise(x, weights)
        };
        for part in 2 - strand.parts..2 {
            let mut bytes = [0; TILE];
            for (byte, weight) in bytes.iter_mut().zip(&*weights) {
                *byte = part_of(*weight, part, strand.parts);
            }
            let bytes = &bytes[..x.len()];
            if strand.parts == 2 {
                strand.totals[part] += bytes.iter().sum::<i32>();
                for (&weight, v) in bytes.iter().zip(self.v[start * d..].chunks_exact(d)) {
                    for (sum, &v) in strand.sums[part].iter_mut().zip(v) {
                        *sum += i32::from(v) * weight;
                    }
                }
                continue;
            }
            strand.half[part] = (bytes.iter().sum::<i32>() as f32).mul_add(unit, strand.half[part]);
            for (o, base) in strand.o[part].as_chunks_mut::<DIMS>().0.iter_mut().zip((0..d).step_by(DIMS)) {
                let mut sums = [0_i32; DIMS];
                for (&weight, v) in bytes.iter().zip(self.v[start * d..].chunks_exact(d)) {
                    for (sum, &v) in sums.iter_mut().zip(&v[base..base + DIMS]) {
                        *sum += i32::from(v) * weight;
                    }
                }
                for (o, sum) in o.iter_mut().zip(sums) {
                    *o = (sum as f32).mul_add(unit, *o);
                }
            }
        }
    }

    #[inline(always)]
    fn add_floats(&self, d: usize, start: usize, x: &mut [f32], strand: &mut Strand) {
        for p in &mut *x {
            *p = to_bf16(*p);
        }
        for (o, base) in strand.o[1].as_chunks_mut::<DIMS>().0.iter_mut().zip((0..d).step_by(DIMS)) {
            let mut sums = *o;
            for (&p, v) in x.iter().zip(self.v_floats[start * d..].chunks_exact(d)) {
                for (sum, v) in sums.iter_mut().zip(&v[base..base + DIMS]) {
                    *sum = p.mul_add(*v, *sum);
                }
            }
            *o = sums;
        }
    }
}

/// Dot products of a row with the 32 columns of `k` `[d, token of the tile]`, each in the order of the dims.
/// A function of its own, lest its sums leave their vector registers.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
fn float_scores(k: &[f32], q: &[f32]) -> [f32; TILE] {
    let mut x = [0.0_f32; TILE];
    for (k, &q) in k.as_chunks::<TILE>().0.iter().zip(q) {
        for t in 0..TILE {
            x[t] = k[t].mul_add(q, x[t]);
        }
    }
    x
}
