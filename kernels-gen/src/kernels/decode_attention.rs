//! Decode attention over the coded cache, one new token a sequence: flash attention whose keys and
//! values are decoded inside the loop, straight into tensor-core operands.
//!
//! A warp walks a run of 512-token segments of one (sequence, kv head), tile after tile of 32 tokens, from a
//! ring of its own: no barrier in the loop. Every segment starts afresh and leaves one partial result, so
//! the number of splits changes who computes, not what. Sums across lanes are integers or maxima: exact.
//!
//! Cost: reads tile_bytes for 32 tokens; writes (d + 2) * 4 bytes a head and segment.

use super::attend::attend;
use crate::codec::Codec;
use kernel_dsl::prelude::*;

/// Tokens of a segment. Part of the result's definition, as the order of its sums is.
pub const SEGMENT: usize = 512;

/// Shape of a decode kernel.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DecodeMeta {
    pub d: usize,
    /// Query heads of a kv head.
    pub group: usize,
    /// `group` rounded up to the tensor core's 8 columns.
    pub cols: usize,
    /// Bytes of a weight that are columns of their own: 2 with up to 4 heads, see [`kernel_dsl::tile::pair`].
    pub parts: usize,
    /// Blocks of `queries` query tokens, see [`super::prefill_attention`]; else one token a sequence.
    pub many: bool,
    pub queries: usize,
    /// The bytes of a weight have outputs of their own though they are no columns: as with two parts, for more rows.
    pub apart: bool,
    pub page_tokens: usize,
    pub tile_bytes: usize,
    /// Byte offsets in a tile: key codes and value codes of each band, side values.
    pub keys_at: [usize; 4],
    pub values_at: [usize; 2],
    pub sides_at: usize,
    /// Values are stored transposed, four tokens to a word.
    pub quads: bool,
    /// Keys are, four blocks to a word.
    pub key_quads: bool,
    /// The queries come quantised, a record of so many bytes a segment, with a bias: see [`super::maps::queries`]. 0: they do not.
    pub record: usize,
    /// Tokens of a segment; part of the result's definition.
    pub segment: usize,
    pub warps: usize,
    pub stages: usize,
    pub min_blocks: usize,
    pub inv_sqrt_d: f32,
}

impl DecodeMeta {
    /// Query rows of a block.
    pub fn rows(&self) -> usize {
        self.queries * self.group
    }

    /// With as many warps as fit a block's `shared` bytes: their number changes no result.
    pub fn within(mut self, shared: usize) -> DecodeMeta {
        let query = 2 * self.cols * self.d + 1024;
        while self.warps > 1 && self.warps * self.stages * self.tile_bytes + query > shared {
            self.warps -= 1;
        }
        self
    }
}

impl Meta for DecodeMeta {
    fn launch(&self) -> Launch {
        Launch { warps: self.warps, min_blocks: self.min_blocks }
    }
}

#[kernel]
pub fn decode_attention<T: Float>(
    m: DecodeMeta,
    k: &[&dyn Codec], // one a band
    v: &[&dyn Codec],
    q: &Global<T>,            // [batch, heads, d], or records [batch, kv_heads, segments, m.record]
    cache: &Global<u8>,       // [pages, kv_heads, block]
    table: &Global<i32>,      // [batch, table_stride]
    lens: &Global<i32>,       // [batch]
    part: &mut Global<f32>,   // [batch, kv_heads, segments, group, d]
    stat: &mut Global<f32>,   // [batch, kv_heads, segments, group, 2]: maximum, sum
    status: &mut Global<i32>, // bad slot, bad page, bad length, where
    kv_heads: i32,
    pages: i32,
    table_stride: i32,
    segments: i32,
    run: i32, // segments of a warp
    scale: f32,
) {
    attend::<T>(&m, k, v, q, cache, table, lens, part, stat, status, kv_heads, pages, table_stride, segments, run, scale, block_id(0), 1_i32, 0_i32, 0_i32, 1_i32, 0_i32);
}
