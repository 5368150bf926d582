//! Several query tokens a sequence: each is decode attention by itself, over the tokens up to its own.

use crate::reference::attention::{Decoded, decode};
use crate::reference::{CacheShape, Sequence, Status};
use crate::registry::CodecInfo;

/// Attends `q` `[batch, queries, heads, d]`: query token i of sequence b sees its first `lens[b] - queries + i + 1`
/// tokens, none where that is below 1. Returns `[batch, queries, heads, d]` and `[batch, queries, heads]`.
#[allow(clippy::too_many_arguments)] // the kernel's own argument list
pub fn prefill(c: &CodecInfo, s: &CacheShape, cache: &[u8], q: &[f32], queries: usize, heads: usize, table: &[i32], table_stride: usize, lens: &[i32], scale: f32) -> Decoded {
    let many = |sequence: &Sequence, q: &[f32], own: &[i32]| sequence.attend(q, heads, own, scale);
    prefill_with(c, s, cache, q, queries, heads, table, table_stride, lens, many, |q, table, own| decode(c, s, cache, q, heads, table, table_stride, own, scale))
}

/// As `prefill`: `many` attends the rows of a good sequence, `one_by_one` what may be wrong with pages and lengths.
#[allow(clippy::too_many_arguments)]
pub(super) fn prefill_with(
    c: &CodecInfo,
    s: &CacheShape,
    cache: &[u8],
    q: &[f32],
    queries: usize,
    heads: usize,
    table: &[i32],
    table_stride: usize,
    lens: &[i32],
    many: impl Fn(&Sequence, &[f32], &[i32]) -> (Vec<f32>, Vec<f32>),
    one_by_one: impl Fn(&[f32], &[i32], &[i32]) -> Decoded,
) -> Decoded {
    let mut all = Decoded { out: vec![], lse: vec![], status: Status::OK };
    for (b, &len) in lens.iter().enumerate() {
        let pages = &table[b * table_stride..][..table_stride];
        let q = &q[b * queries * heads * s.d..][..queries * heads * s.d];
        let good = 0 <= len && len as usize <= table_stride * s.page_tokens;
        // A wrong length stays as it is, for `decode` to report.
        let own: Vec<i32> = (1..=queries as i32).map(|i| if good { (len - queries as i32 + i).max(0) } else { len }).collect();
        let found = match Sequence::new(c, s, cache, pages, len.max(0) as usize) {
            Ok(sequence) if good => {
                let (out, lse) = many(&sequence, q, &own);
                Decoded { out, lse, status: Status::OK }
            }
            _ => one_by_one(q, &pages.repeat(queries), &own),
        };
        all.out.extend(found.out);
        all.lse.extend(found.lse);
        all.status.set(found.status);
    }
    all
}
