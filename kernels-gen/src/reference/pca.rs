//! The PCA codec's pages: blocks of 512 tokens, and attention of query rows over them.
//!
//! A query is folded into each block's coordinates; the sums of a leaf leave them at its end.

use kernel_dsl::math::{exp2_or_zero, fmax, sanitise};
use kernel_dsl::tile::MARK;

use crate::kernels::kivi::queries::joined8;
use crate::kernels::pca::MARKED;
use crate::kernels::pca::parts;
use crate::kernels::query::shown_worth;
use crate::layout::{Operand, TILE};
use crate::pca::PcaError;
use crate::pca::pages::{BLOCK, Folded, PcaLayout, PcaPages, WAYS};
use crate::reference::attention::decode_by_heads;
use crate::reference::pca_turned::{Turnable, turned_keys};
use crate::reference::project::{LARGEST, MAGIC};
use crate::reference::strand::{LEAF, Partial, Strand, part_of, quantise};
use crate::reference::{CacheShape, Decoded, Status};

/// Codes a block of keys and values `[512, kv head, d]` into page `page` of a cache, under page `bases` where bases are shared; a page beyond
/// it is reported.
pub fn store_block(c: &PcaPages, s: &CacheShape, cache: &mut [u8], k: &[f32], v: &[f32], bases: Option<usize>, page: usize) -> Result<Status, PcaError> {
    store(c, s, cache, (k, v), page, bases, |bases, k, v| c.encode(bases, k, v, s.d))
}

/// Fits the bases that blocks share to keys and values `[token, kv head, d]`, into page `page`.
pub fn store_bases(c: &PcaPages, s: &CacheShape, cache: &mut [u8], k: &[f32], v: &[f32], page: usize) -> Result<Status, PcaError> {
    store(c, s, cache, (k, v), page, None, |_, k, v| c.fit_bases(k, v, s.d))
}

fn store(c: &PcaPages, s: &CacheShape, cache: &mut [u8], (k, v): (&[f32], &[f32]), page: usize, bases: Option<usize>, page_of: impl Fn(Option<&[u8]>, &[f32], &[f32]) -> Result<Vec<u8>, PcaError>) -> Result<Status, PcaError> {
    if page.max(bases.unwrap_or(0)) >= s.pages {
        return Ok(Status::BAD_SLOT);
    }
    let bytes = PcaLayout::of(c, s.d).page_bytes();
    for head in 0..s.kv_heads {
        let own = |x: &[f32]| x.chunks_exact(s.kv_heads * s.d).flat_map(|token| &token[head * s.d..][..s.d]).copied().collect::<Vec<f32>>();
        let at = |page: usize| (page * s.kv_heads + head) * bytes;
        let made = page_of(bases.map(|bases| &cache[at(bases)..][..bytes]), &own(k), &own(v))?;
        cache[at(page)..][..bytes].copy_from_slice(&made);
    }
    Ok(Status::OK)
}

/// The unpacked blocks of one kv head of a sequence.
pub struct PcaHead {
    c: &'static PcaPages,
    layout: PcaLayout,
    /// The page of shared ones.
    bases: Vec<u8>,
    keys: Vec<Folded>,
    /// Those before RoPE, turned within their tiles.
    turned: Vec<Vec<i16>>,
    values: Vec<Folded>,
}

/// A query in a block's coordinates.
struct Query {
    /// Along residuals' coordinates, then along centres.
    ints: Vec<i32>,
    /// What a step is worth with each, and what is added, in log2 units.
    worth: [f32; 2],
    bias: f32,
}

impl PcaHead {
    pub fn new(c: &'static PcaPages, d: usize) -> PcaHead {
        PcaHead { c, layout: PcaLayout::of(c, d), bases: Vec::new(), keys: Vec::new(), turned: Vec::new(), values: Vec::new() }
    }

    /// With the page of the bases that its blocks share.
    pub fn under(self, bases: &[u8]) -> PcaHead {
        PcaHead { bases: bases.to_vec(), ..self }
    }

    /// That page.
    pub fn bases(&self) -> Option<&[u8]> {
        (!self.bases.is_empty()).then_some(&self.bases)
    }

    /// Tokens that are there.
    pub fn len(&self) -> usize {
        self.keys.len() * BLOCK
    }

    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// One page more.
    pub fn push(&mut self, page: &[u8]) {
        let keys = self.layout.read(page, &self.bases, 0);
        self.turned.extend(keys.turning.as_ref().map(|turning| turned_keys(&keys, turning, &self.lanes(Operand::K))));
        self.keys.push(keys);
        self.values.push(self.layout.read(page, &self.bases, 1));
    }

    /// Lanes of levels, from zero.
    fn lanes(&self, operand: Operand) -> Vec<i32> {
        let codec = self.c.halves.half(operand).bands[0];
        let lane = |n: u32| i32::from(codec.decode(codec.of_levels([n; 8]))[0] as u8) - 128;
        (0..1 << codec.spec().level_bits).map(lane).collect()
    }

    /// The numbers that pages stand for: keys and values `[token, d]`; keys before RoPE where they lie so.
    pub fn numbers(&self) -> [Vec<f64>; 2] {
        [(Operand::K, &self.keys), (Operand::V, &self.values)].map(|(operand, blocks)| {
            let lanes = self.lanes(operand);
            blocks.iter().flat_map(|block| (0..BLOCK).flat_map(|t| block.row(t, |n| lanes[n])).collect::<Vec<f64>>()).collect()
        })
    }

    /// Attention of one query row to the first `len` tokens: the output and the natural log-sum-exp. `parts`: of weights, by the heads of a kv
    /// head.
    pub fn attend(&self, q: &[f32], len: usize, parts: usize, scale: f32) -> (Vec<f32>, f32) {
        let q: Vec<f32> = q.iter().map(|q| sanitise(*q, 65504.0)).collect();
        let (rank, lanes) = (self.layout.ranks[1], [self.lanes(Operand::K), self.lanes(Operand::V)]);
        let leaf = |first: usize| {
            let (keys, values) = (&self.keys[first / BLOCK], &self.values[first / BLOCK]);
            let query = keys.turning.is_none().then(|| fold(keys, &q, scale));
            let turnable = keys.turning.as_ref().map(|turning| (turning, Turnable::of(turning, &q, scale)));
            let mut strands = [Strand::new(rank, parts), Strand::new(WAYS, parts)];
            for start in (first..len.min(first + LEAF)).step_by(TILE) {
                let tokens = start % BLOCK..start % BLOCK + TILE.min(len - start);
                let scores = match (&query, &turnable) {
                    (Some(query), _) => scores(keys, &lanes[0], query, tokens.clone()),
                    (None, Some((turning, query))) => {
                        let d = q.len();
                        let (x, worth) = query.scores(turning, &self.turned[first / BLOCK][tokens.start * d..tokens.end * d], start);
                        Scores { worth: vec![worth; x.len()], x, bias: [0.0; TILE] }
                    }
                    (None, None) => unreachable!("one of them is there"),
                };
                add(&mut strands, values, &lanes[1], scores, tokens);
            }
            strands[0].mapped(|l| unfold(values, &strands, l))
        };
        let leaves: Vec<Partial> = (0..len).step_by(LEAF).map(leaf).collect();
        let mut out = vec![0.0; q.len()];
        let lse = Partial::join(leaves, q.len()).finish(&self.c.halves.v, &mut out);
        (out, lse)
    }
}

/// Integers under the largest magnitude, and what a step of them is worth.
fn integers(x: &[f32]) -> (Vec<i32>, f32) {
    let top = x.iter().fold(1e-20, |top, x| fmax(top, x.abs()));
    let by = LARGEST / top;
    (x.iter().map(|x| (x.mul_add(by, MAGIC) - MAGIC) as i32).collect(), top * (1.0 / LARGEST))
}

fn fold(block: &Folded, q: &[f32], scale: f32) -> Query {
    let (d, frame) = (q.len(), &block.frame);
    let (ints, unit) = integers(q);
    let folded = |matrix: &[i8], worth: &[f32]| {
        let sum = |column: &[i8]| column.iter().zip(&ints).map(|(m, i)| i32::from(*m) * i).sum::<i32>() as f32;
        integers(&matrix.chunks_exact(d).zip(worth).map(|(column, worth)| sum(column) * worth * unit).collect::<Vec<f32>>())
    };
    let [(mut own, unit), (ways, length)] = [folded(&frame.matrix, &frame.worth), folded(&block.ways.matrix, &block.ways.worth)];
    let chain = |a: usize| (a * d / 8..(a + 1) * d / 8).fold(0.0_f32, |sum, i| q[i].mul_add(frame.mean[i], sum));
    let log2 = scale * std::f32::consts::LOG2_E;
    own.extend(ways);
    Query { ints: own, worth: [unit, length].map(|unit| shown_worth(unit * log2)), bias: joined8([0, 1, 2, 3].map(chain), [4, 5, 6, 7].map(chain)) * log2 }
}

pub(super) fn half(x: u16) -> f32 {
    half::f16::from_bits(x.min(0x7bff)).to_f32()
}

/// Of the tokens of a tile: scores in steps, what one is worth and what is added, in log2 units.
struct Scores {
    x: Vec<f32>,
    worth: Vec<f32>,
    bias: [f32; TILE],
}

fn scores(keys: &Folded, lanes: &[i32], query: &Query, tokens: std::ops::Range<usize>) -> Scores {
    let mut bias = [0.0; TILE];
    let (mut x, mut worth) = (Vec::with_capacity(TILE), Vec::with_capacity(TILE));
    for (t, bias) in tokens.clone().zip(&mut bias) {
        let levels = keys.levels[t * keys.rank()..][..keys.rank()].iter().zip(&query.ints).map(|(n, i)| lanes[usize::from(*n)] * i);
        let outliers = keys.more(t).map(|(j, more)| more * query.ints[j]);
        x.push((levels.sum::<i32>() + outliers.sum::<i32>()) as f32);
        worth.push(half(keys.norms[t]) * query.worth[0]);
        *bias = (query.ints[keys.rank() + usize::from(keys.numbers[t])] as f32).mul_add(half(keys.lengths[t]) * query.worth[1], query.bias);
    }
    Scores { x, worth, bias }
}

/// The tokens of a tile; the strands are of residuals' coordinates and of centres, `lanes`: of values.
fn add(strands: &mut [Strand; 2], values: &Folded, lanes: &[i32], scores: Scores, tokens: std::ops::Range<usize>) {
    let [strand, ways] = strands;
    let Scores { mut x, worth, bias } = scores;
    let before = strand.top();
    strand.weigh(&mut x, &worth, &bias);
    ways.follow(before, strand.top());
    if strand.parts == 1 && strand.top() > before {
        let factor = exp2_or_zero(before - strand.top());
        ways.o[1].iter_mut().for_each(|o| *o *= factor);
    }
    let of = |side: &[u16]| x.iter().zip(tokens.clone()).map(|(p, t)| p * half(side[t])).collect::<Vec<f32>>();
    let own: Vec<Vec<i32>> = tokens.clone().map(|t| values.lanes(t, |n| lanes[n])).collect();
    sum(strand, &of(&values.norms), 128, 1.0, |i, j| own[i][j]);
    // Every token has one centre: what its sums come to is the total of the weights.
    for part in 2 - ways.parts..2 {
        ways.totals[part] = ways.sums[part].iter().sum::<i32>() / i32::from(MARK);
    }
    sum(ways, &of(&values.lengths), 0, MARKED, |i, j| i32::from(MARK) * i32::from(usize::from(values.numbers[tokens.start + i]) == j));
}

/// Adds weights times `lane` of token and coordinate, of which `zero` was taken, each worth `step`.
fn sum(strand: &mut Strand, pv: &[f32], zero: i32, step: f32, lane: impl Fn(usize, usize) -> i32) {
    let (mut weights, d) = (vec![0; pv.len()], strand.o[1].len());
    let unit = if strand.parts == 2 {
        strand.fit(pv, &mut weights, &vec![zero; d]);
        0.0
    } else {
        quantise(pv, &mut weights) * step
    };
    for part in 2 - strand.parts..2 {
        let own: Vec<i32> = weights.iter().map(|weight| part_of(*weight, part, strand.parts)).collect();
        strand.totals[part] += own.iter().sum::<i32>();
        for j in 0..d {
            let sum: i32 = own.iter().enumerate().map(|(i, w)| w * lane(i, j)).sum();
            if strand.parts == 2 {
                strand.sums[part][j] += sum;
            } else {
                strand.o[1][j] = (sum as f32).mul_add(unit, strand.o[1][j]);
            }
        }
    }
}

/// A coordinate of a leaf, in steps of `worth`; `step`: of lanes.
fn coordinate(strand: &Strand, j: usize, worth: f32, step: f32) -> f32 {
    match strand.parts {
        1 => strand.o[1][j] * worth,
        _ => (strand.sums[0][j] as f32 * worth).mul_add(256.0, strand.sums[1][j] as f32 * worth) * (strand.unit() * step),
    }
}

/// Outputs of a leaf from its sums.
fn unfold(block: &Folded, strands: &[Strand; 2], l: f32) -> Vec<f32> {
    let (frame, ways) = (&block.frame, &block.ways);
    let of = |strand, worth: &[f32], step| worth.iter().enumerate().map(|(j, worth)| coordinate(strand, j, *worth, step)).collect::<Vec<f32>>();
    let (ints, unit) = integers(&[of(&strands[0], &frame.worth, 1.0), of(&strands[1], &ways.worth, MARKED)].concat());
    let columns = || frame.matrix.chunks_exact(frame.d).chain(ways.matrix.chunks_exact(frame.d));
    let total = |i: usize, part: fn(i32) -> i32| ints.iter().zip(columns()).map(|(x, column)| i32::from(column[i]) * part(*x)).sum::<i32>();
    let out = |(i, mean): (usize, &f32)| match strands[0].parts {
        1 => (total(i, |x| x) as f32).mul_add(unit, mean * l),
        // Both bytes of integers with 2^14 added, which the low ones lose again.
        _ => {
            let low = total(i, |x| ((x + 16384) & 255) - 16384) as f32;
            (total(i, |x| (x + 16384) >> 8) as f32).mul_add(unit, mean * 0.0).mul_add(256.0, low.mul_add(unit, mean * l))
        }
    };
    frame.mean.iter().enumerate().map(out).collect()
}

/// Attends `q` `[batch, heads, d]` to the first `lens[b]` tokens of the blocks in the pages `table[b * table_stride..]`, of which the first
/// has the bases if they are shared.
#[allow(clippy::too_many_arguments)] // the kernel's own argument list
pub fn decode_pca(c: &'static PcaPages, s: &CacheShape, cache: &[u8], q: &[f32], heads: usize, table: &[i32], table_stride: usize, lens: &[i32], scale: f32) -> Decoded {
    let (bytes, lead) = (PcaLayout::of(c, s.d).page_bytes(), c.lead());
    let head_of = |pages: &[usize], kv_head: usize, _: usize| {
        let page_of = |page: &usize| &cache[(page * s.kv_heads + kv_head) * bytes..][..bytes];
        let head = PcaHead::new(c, s.d);
        let mut head = if pages.len() > lead && lead > 0 { head.under(page_of(&pages[0])) } else { head };
        pages.iter().skip(lead).for_each(|page| head.push(page_of(page)));
        head
    };
    let parts = parts(c, heads / s.kv_heads);
    decode_by_heads(s, q, heads, table, table_stride, lead, lens, head_of, |head, q, len| head.attend(q, len, parts, scale))
}
