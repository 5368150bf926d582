//! Store and attention of a calibrated codec: the plain ones between the affine maps of its layer.
//!
//! Store: a key is sanitised, turned back to its segment, mapped, coded; a value is mapped and coded. Attention: a query
//! is sanitised, turned back and mapped once a segment, its dot product with the keys' mean is the bias of the
//! segment's scores; the joined output is mapped back. Between the maps nothing differs from another codec.

use kernel_dsl::math::sanitise;

use crate::layout::Operand;
use crate::preset::{LayerMaps, Turns};
use crate::reference::attention::{Decoded, decode_with};
use crate::reference::prefill::prefill_with;
use crate::reference::strand::{Query, SEGMENT};
use crate::reference::{CacheShape, Row, Sequence, Status, project, store};
use crate::registry::CodecInfo;

/// A layer of a calibrated codec.
#[derive(Clone, Copy)]
pub struct Calibrated<'a> {
    /// its bands
    pub codec: &'static CodecInfo,
    pub maps: &'a LayerMaps,
    /// for all positions of the cache
    pub turns: &'a Turns,
}

impl Calibrated<'_> {
    /// Coordinates of keys `[token, kv head, d]`; `positions[token]` counts from the start of the sequence.
    pub fn keys(&self, k: &[f32], positions: &[usize]) -> Vec<f32> {
        let (d, heads) = (self.maps.d, self.maps.kv_heads);
        let mut turned: Vec<f32> = k.iter().map(|k| sanitise(*k, 65504.0)).collect();
        for (row, position) in turned.chunks_exact_mut(heads * d).zip(positions) {
            row.chunks_exact_mut(d).for_each(|row| self.turns.back(row, position / SEGMENT));
        }
        project(&self.maps.store_k.view(), d, 1, &turned)
    }

    /// Coordinates of values `[token, kv head, d]`.
    pub fn values(&self, v: &[f32]) -> Vec<f32> {
        let finite: Vec<f32> = v.iter().map(|v| sanitise(*v, 65504.0)).collect();
        project(&self.maps.store_v.view(), self.maps.d, 1, &finite)
    }

    /// As [`store`], for tokens at these positions of their sequences.
    pub fn store(&self, s: &CacheShape, cache: &mut [u8], k: &[f32], v: &[f32], positions: &[usize], slots: &[i64]) -> Status {
        store(self.codec, s, cache, &self.keys(k, positions), &self.values(v), slots)
    }

    /// The key or value that a coded row of a kv head stands for.
    pub fn decode_row(&self, operand: Operand, row: &Row, kv_head: usize, position: usize) -> Vec<f32> {
        self.row_of(operand, &self.codec.half(operand).decode_row(row, self.maps.d), kv_head, position)
    }

    /// The key or value with the coordinates `y`.
    pub fn row_of(&self, operand: Operand, y: &[f32], kv_head: usize, position: usize) -> Vec<f32> {
        let d = self.maps.d;
        if operand == Operand::V {
            return project(&self.maps.output.of_head(kv_head), d, 1, y);
        }
        // y B + mu, with the query's map B^T
        let map = self.maps.query.of_head(kv_head);
        let y: Vec<f32> = y.iter().zip(map.worth).map(|(y, worth)| y * (worth * 0.0078125)).collect();
        let mean = &self.maps.key_mean[kv_head * d..][..d];
        let mut x: Vec<f32> = map.matrix.chunks_exact(d).zip(mean).map(|(line, mean)| dot(line, &y) + mean).collect();
        self.turns.forth(&mut x, position / SEGMENT);
        x
    }

    /// As [`crate::reference::decode`].
    #[allow(clippy::too_many_arguments)] // the kernels' own argument list
    pub fn decode(&self, s: &CacheShape, cache: &[u8], q: &[f32], heads: usize, table: &[i32], table_stride: usize, lens: &[i32], scale: f32) -> Decoded {
        let queries = |row, len| self.queries(q, heads, row, len, scale);
        let mut decoded = decode_with(self.codec, s, cache, heads, table, table_stride, lens, queries);
        decoded.out = self.output(&decoded.out, &decoded.lse, heads);
        decoded
    }

    /// As [`crate::reference::prefill`].
    #[allow(clippy::too_many_arguments)] // the kernels' own argument list
    pub fn prefill(&self, s: &CacheShape, cache: &[u8], q: &[f32], queries: usize, heads: usize, table: &[i32], table_stride: usize, lens: &[i32], scale: f32) -> Decoded {
        let many = |sequence: &Sequence, q: &[f32], own: &[i32]| self.attend(sequence, q, heads, own, scale);
        let one_by_one = |q: &[f32], table: &[i32], own: &[i32]| self.decode(s, cache, q, heads, table, table_stride, own, scale);
        prefill_with(self.codec, s, cache, q, queries, heads, table, table_stride, lens, many, one_by_one)
    }

    /// As [`Sequence::attend`], over a sequence that was stored by `store` at the positions of its tokens.
    pub fn attend(&self, sequence: &Sequence, q: &[f32], heads: usize, lens: &[i32], scale: f32) -> (Vec<f32>, Vec<f32>) {
        let (out, lse) = sequence.attend_with(heads, lens, |row, len| self.queries(q, heads, row, len, scale));
        (self.output(&out, &lse, heads), lse)
    }

    /// The queries of one row of `q` `[n, heads, d]`, one for each segment of `len` tokens.
    fn queries(&self, q: &[f32], heads: usize, row: usize, len: usize, scale: f32) -> Vec<Query> {
        let (d, group) = (self.maps.d, heads / self.maps.kv_heads);
        let kv_head = row % heads / group;
        let mean = &self.maps.key_mean[kv_head * d..][..d];
        let of_segment = |segment| {
            let mut turned: Vec<f32> = q[row * d..][..d].iter().map(|q| sanitise(*q, 65504.0)).collect();
            self.turns.back(&mut turned, segment);
            let mapped = project(&self.maps.query.of_head(kv_head), d, 1, &turned);
            let (low, high) = turned.split_at(d / 2);
            let pair = |sum: f32, i: usize| high[i].mul_add(mean[i + d / 2], low[i].mul_add(mean[i], sum));
            let p: [f32; 4] = std::array::from_fn(|j| (0..d / 2).filter(|i| i / 8 % 4 == j).fold(0.0, pair));
            let bias = ((p[0] + p[1]) + (p[2] + p[3])) * (scale * std::f32::consts::LOG2_E);
            Query { bias, ..Query::new(&self.codec.k, &mapped, scale) }
        };
        (0..len.div_ceil(SEGMENT).max(1)).map(of_segment).collect()
    }

    /// Outputs `[n, heads, d]` as values; a row without tokens stays 0.
    fn output(&self, out: &[f32], lse: &[f32], heads: usize) -> Vec<f32> {
        let d = self.maps.d;
        let finite: Vec<f32> = out.iter().map(|o| sanitise(*o, 65504.0)).collect();
        let mut mapped = project(&self.maps.output.view(), d, heads / self.maps.kv_heads, &finite);
        for (row, _) in mapped.chunks_exact_mut(d).zip(lse).filter(|(_, lse)| **lse == f32::NEG_INFINITY) {
            row.fill(0.0);
        }
        mapped
    }
}

fn dot(a: &[i16], b: &[f32]) -> f32 {
    a.iter().zip(b).fold(0.0, |sum, (a, b)| f32::from(*a).mul_add(*b, sum))
}
