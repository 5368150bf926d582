//! Slots.

use crate::registry::CodecInfo;

/// Bytes of a token of one kv head in a cache of slots, an even number.
pub fn slot_bytes(c: &CodecInfo, d: usize) -> usize {
    c.k.slot_bytes(d) + c.v.slot_bytes(d)
}
