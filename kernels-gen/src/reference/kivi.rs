//! KIVI's cache: whole tiles coded by groups, and attention of query rows over them.
//!
//! The steps of keys go into the query tile by tile; a band of 32 channels of values is a strand of its own under the same scores.

use kernel_dsl::math::sanitise;

use crate::kernels::kivi::queries::{integer_of, joined8, lift_of};
use crate::kivi::{GROUP, Group, Kivi, KiviLayout};
use crate::layout::{Operand, TILE};
use crate::reference::attention::decode_by_heads;
use crate::reference::store::position;
use crate::reference::strand::{LEAF, Partial, Strand, part_of};
use crate::reference::{CacheShape, Decoded, Status};

/// First byte of tile `slot / 32` of a kv head.
fn tile_byte(s: &CacheShape, tile: usize, page: usize, head: usize, offset: usize) -> usize {
    ((page * s.kv_heads + head) * (s.page_tokens / TILE) + offset / TILE) * tile
}

/// Codes whole tiles of `k` and `v` `[token, kv head, d]`: 32 tokens go to the slot of the first and those behind it. A negative
/// slot is skipped; one that begins no tile of the cache is too, and reported.
pub fn store_groups(c: &Kivi, s: &CacheShape, cache: &mut [u8], k: &[f32], v: &[f32], slots: &[i64]) -> Status {
    let (layout, mut status) = (KiviLayout::of(c, s.d), Status::OK);
    for (i, &slot) in slots.iter().step_by(TILE).enumerate().filter(|(_, slot)| **slot >= 0) {
        let Some((page, offset)) = position(s, slot).filter(|(_, offset)| offset % TILE == 0) else {
            status.set(Status::BAD_SLOT);
            continue;
        };
        for head in 0..s.kv_heads {
            let at = |t: usize, dim: usize| ((i * TILE + t) * s.kv_heads + head) * s.d + dim;
            let keys: Vec<Group> = (0..s.d).map(|dim| Group::of(&std::array::from_fn(|t| k[at(t, dim)]), c.key_bits)).collect();
            let values: Vec<Group> = (0..TILE * (s.d / GROUP)).map(|g| Group::of(&std::array::from_fn(|e| v[at(g / (s.d / GROUP), g % (s.d / GROUP) * GROUP + e)]), c.value_bits)).collect();
            let from = tile_byte(s, layout.tile_bytes(), page, head, offset);
            layout.write(&mut cache[from..from + layout.tile_bytes()], &keys, &values);
        }
    }
    status
}

/// The unpacked tiles of one kv head of a sequence.
pub struct KiviHead {
    c: Kivi,
    d: usize,
    /// Digits of keys `[token, d]`, of values `[token, d]` in the order of the channels.
    keys: Vec<u8>,
    values: Vec<u8>,
    /// Step and least value of keys `[tile, d]`, of values `[token, d / 32]`.
    key_pairs: Vec<[f32; 2]>,
    value_pairs: Vec<[f32; 2]>,
}

impl KiviHead {
    pub fn new(c: &Kivi, d: usize) -> KiviHead {
        KiviHead { c: c.clone(), d, keys: Vec::new(), values: Vec::new(), key_pairs: Vec::new(), value_pairs: Vec::new() }
    }

    /// Tokens that are there.
    pub fn len(&self) -> usize {
        self.keys.len() / self.d
    }

    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// One tile more.
    pub fn push(&mut self, tile: &[u8]) {
        let (layout, groups) = (KiviLayout::of(&self.c, self.d), self.d / GROUP);
        let half = |at: usize| half::f16::from_le_bytes([tile[at], tile[at + 1]]).to_f32();
        let pair = |at: usize| [half(at), half(at + 2)];
        self.keys.extend(layout.digits(tile, Operand::K));
        let values = layout.digits(tile, Operand::V);
        self.values.extend((0..TILE * self.d).map(|i| values[i / self.d * self.d + layout.coordinate(i % self.d)]));
        self.key_pairs.extend((0..self.d).map(|dim| pair(layout.key_pair(dim))));
        self.value_pairs.extend((0..TILE * groups).map(|i| pair(layout.value_pair(i / groups, i % groups))));
    }

    /// The numbers that the tiles stand for: keys and values `[token, d]`.
    pub fn numbers(&self) -> [Vec<f32>; 2] {
        let of = |digit: u8, pair: [f32; 2]| f32::from(digit).mul_add(pair[0], pair[1]);
        let keys = self.keys.iter().enumerate().map(|(i, x)| of(*x, self.key_pairs[i / self.d / TILE * self.d + i % self.d]));
        [keys.collect(), self.values.iter().enumerate().map(|(i, x)| of(*x, self.value_pairs[i / GROUP])).collect()]
    }

    /// Attention of one query row to the first `len` tokens. The output and the natural log-sum-exp.
    pub fn attend(&self, q: &[f32], len: usize, scale: f32) -> (Vec<f32>, f32) {
        let q: Vec<f32> = q.iter().map(|q| sanitise(*q, 65504.0)).collect();
        let groups = self.d / GROUP;
        let mut leaves: Vec<Vec<Partial>> = (0..groups).map(|_| Vec::new()).collect();
        for first in (0..len).step_by(LEAF) {
            let mut strands: Vec<Strand> = (0..groups).map(|_| Strand::new(GROUP, 2)).collect();
            for start in (first..len.min(first + LEAF)).step_by(TILE) {
                let tokens = TILE.min(len - start);
                let (scores, worth, bias) = self.scores(&q, start, tokens, scale);
                for (group, strand) in strands.iter_mut().enumerate() {
                    self.add(strand, group, start, scores.clone(), worth, bias);
                }
            }
            leaves.iter_mut().zip(strands).for_each(|(leaves, strand)| leaves.push(strand.closed(false, true)));
        }
        let (mut out, mut lse) = (vec![0.0; self.d], f32::NEG_INFINITY);
        for (leaves, out) in leaves.into_iter().zip(out.as_chunks_mut::<GROUP>().0) {
            lse = Partial::join(leaves, GROUP).finish(&self.c.halves().v, out);
        }
        (out, lse)
    }

    /// Exact dots of a tile's keys with the integers of a query row times their steps; what one is worth, and what is added.
    fn scores(&self, q: &[f32], start: usize, tokens: usize, scale: f32) -> (Vec<f32>, f32, f32) {
        let pairs = &self.key_pairs[start / TILE * self.d..][..self.d];
        let z: Vec<f32> = q.iter().zip(pairs).map(|(q, pair)| q * pair[0]).collect();
        let lift = lift_of(f32::from_bits(z.iter().map(|z| z.abs().to_bits()).max().unwrap_or(0)));
        let ints: Vec<i32> = z.iter().map(|z| i32::from(integer_of(*z, f32::from_bits((lift as u32) << 23)) as i16)).collect();
        let chain = |a: usize| (a * self.d / 8..(a + 1) * self.d / 8).fold(0.0_f32, |sum, i| q[i].mul_add(pairs[i][1], sum));
        let unit = scale * std::f32::consts::LOG2_E;
        let bias = joined8([0, 1, 2, 3].map(chain), [4, 5, 6, 7].map(chain)) * unit;
        let keys = self.keys[start * self.d..][..tokens * self.d].chunks_exact(self.d);
        let dots = keys.map(|key| key.iter().zip(&ints).map(|(k, i)| i32::from(*k) * i).sum::<i32>() as f32);
        (dots.collect(), f32::from_bits(((254 - lift) as u32) << 23) * unit, bias)
    }

    /// A tile's values of one band.
    fn add(&self, strand: &mut Strand, group: usize, start: usize, mut x: Vec<f32>, worth: f32, bias: f32) {
        let (groups, tokens) = (self.d / GROUP, x.len());
        strand.weigh(&mut x, &vec![worth; tokens], &[bias; TILE]);
        let pair = |t: usize| self.value_pairs[(start + t) * groups + group];
        strand.add_offsets(&x, &(0..tokens).map(|t| pair(t)[1]).collect::<Vec<f32>>());
        x.iter_mut().enumerate().for_each(|(t, p)| *p *= pair(t)[0]);
        let mut weights = vec![0; tokens];
        strand.fit(&x, &mut weights, &[0; GROUP]);
        for part in 0..2 {
            for (t, weight) in weights.iter().enumerate() {
                let weight = part_of(*weight, part, 2);
                strand.totals[part] += weight;
                let values = &self.values[(start + t) * self.d + group * GROUP..][..GROUP];
                strand.sums[part].iter_mut().zip(values).for_each(|(sum, v)| *sum += i32::from(*v) * weight);
            }
        }
    }
}

/// Attends `q` `[batch, heads, d]` to the first `lens[b]` tokens of the tiles in the pages `table[b * table_stride..]`.
#[allow(clippy::too_many_arguments)] // the kernel's own argument list
pub fn decode_kivi(c: &Kivi, s: &CacheShape, cache: &[u8], q: &[f32], heads: usize, table: &[i32], table_stride: usize, lens: &[i32], scale: f32) -> Decoded {
    let bytes = KiviLayout::of(c, s.d).tile_bytes();
    let head_of = |pages: &[usize], kv_head: usize, len: usize| {
        let mut head = KiviHead::new(c, s.d);
        for token in (0..len).step_by(TILE) {
            let at = tile_byte(s, bytes, pages[token / s.page_tokens], kv_head, token % s.page_tokens);
            head.push(&cache[at..at + bytes]);
        }
        head
    };
    decode_by_heads(s, q, heads, table, table_stride, 0, lens, head_of, |head, q, len| head.attend(q, len, scale))
}
