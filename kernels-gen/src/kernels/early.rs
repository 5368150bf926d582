//! What a launch of few sequences asks for before the one before it has ended: some ten megabytes of tiles, into the L2, while nobody reads.
//!
//! Lengths and pages may be old by then. So nothing of this is kept: it is a hint, for tiles that some block will read, and behind the wait
//! all is looked up anew.

use super::decode_attention::DecodeMeta;
use super::leaves::TILES;
use super::schedule::{leaves_of, quotient};
use kernel_dsl::prelude::*;

/// Every warp of block `block` asks for the first tiles of a leaf: all warps of a head's blocks for leaves of all its sequences, equally far apart,
/// as warps begin with them where a launch has one turn.
#[device]
#[allow(clippy::too_many_arguments)]
pub fn ask_early(m: &DecodeMeta, cache: &Global<u8>, table: &Global<i32>, lens: &Global<i32>, batch: i32, capacity: i32, kv_heads: i32, pages: i32, table_stride: i32, block: i32, blocks: i32) {
    let of_head = quotient(block, kv_heads);
    // Blocks of a sequence's head.
    let each = quotient(blocks, kv_heads * batch).max(1_i32);
    let seq = quotient(of_head, each);
    for w in warps(m.warps) {
        for _ in lanes(1) {
            let leaves = leaves_of(lens.peek(seq.min(batch - 1_i32)), capacity);
            let (own, all) = ((of_head - seq * each) * m.warps as i32 + w, each * m.warps as i32);
            let leaf = if leaves > all { quotient(own * leaves, all) } else { own };
            if (seq < batch) & (leaf < leaves) {
                let tile = (leaf * TILES as i32) as u32;
                let page = table.peek(seq * table_stride + (tile / (m.page_tokens / 32) as u32) as i32) as u32;
                if page < pages as u32 {
                    let page_bytes = (m.page_tokens / 32 * m.tile_bytes) as u32;
                    let own_page = page * (kv_heads / m.fold as i32) as u32 + ((block - of_head * kv_heads) / m.fold as i32) as u32;
                    cache.prefetch_some(own_page as i64 * page_bytes as i64 + (tile % (m.page_tokens / 32) as u32 * m.tile_bytes as u32) as i64, m.asked() as i32);
                }
            }
        }
    }
}
