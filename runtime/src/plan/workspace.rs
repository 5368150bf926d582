//! What a decode call keeps in its workspace, and where: the plan says how much, the caller owns the memory.

use super::Decode;
use super::records::Records;
use crate::argument::{Misuse, product};
use crate::cuda::Span;
use crate::error::Result;
use kernels_gen::kernels::decode_attention::DecodeMeta;
use kernels_gen::kernels::{self, SEGMENT};

/// How a call is cut, and where its partial results lie in the workspace, in bytes.
pub(super) struct Workspace {
    /// log2 of the leaves of a warp; none: the device chooses.
    pub unit: Option<usize>,
    /// Parts that the longest sequence may leave; 1: none.
    pub splits: usize,
    pub segments: usize,
    pub part: u64,
    pub stat: u64,
    pub chosen: u64,
    pub lse: u64,
    /// Queries of a calibrated codec.
    pub records: u64,
}

impl Workspace {
    /// f32 part `[batch, kv_heads, splits, group, d]`, stat `[batch, kv_heads, splits, group, 2]`, as kernels take kv heads, i32 chosen `[1]`, lse `[batch, heads]`, each rounded
    /// up to 256 bytes, no part where blocks have whole sequences; then records `[batch, kv_heads, segments, record]`.
    pub fn new(batch: usize, heads: usize, m: &DecodeMeta, capacity: usize, unit: Option<usize>) -> Result<Self> {
        let (splits, segments, d) = (kernels::splits_of(m, capacity, unit.unwrap_or(m.least())), capacity.div_ceil(SEGMENT), m.d);
        let (left, kv_heads) = (if splits > 1 { splits } else { 0 }, m.kv_heads(heads));
        let rounded = |factors: &[usize]| Ok::<_, crate::Error>(product("the workspace", factors)?.next_multiple_of(256));
        Ok(Workspace {
            unit,
            splits,
            segments,
            part: rounded(&[batch, kv_heads, left, m.group, d, 4])?,
            stat: rounded(&[batch, kv_heads, left, m.group, 2, 4])?,
            chosen: 256,
            lse: rounded(&[batch, heads, 4])?,
            records: Records::bytes(m, batch, kv_heads, 1, capacity)?.next_multiple_of(256),
        })
    }

    /// part, stat, chosen, lse, records.
    pub fn cut<'a>(&self, call: &Decode<'a>) -> Result<[Span<'a>; 5]> {
        let mut at = 0;
        let mut next = |bytes| {
            at += bytes;
            call.workspace.part(at - bytes, bytes)
        };
        Ok([next(self.part)?, next(self.stat)?, next(self.chosen)?, next(self.lse)?, next(self.records)?])
    }

    pub fn bytes(&self) -> Result<u64> {
        let sum = [self.stat, self.chosen, self.lse, self.records].into_iter().try_fold(self.part, u64::checked_add);
        Ok(sum.ok_or(Misuse::Overflow { what: "the workspace", limit: "64 bits" })?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::Codec;

    #[test]
    fn the_workspace_holds_every_part() {
        let codec = Codec::open("kvfuse-4").unwrap();
        let m = kernels::decode_meta(codec.info(), 128, 4, 64);
        assert_eq!(m.warps, 8);
        let space = Workspace::new(3, 8, &m, 4097, None).unwrap();
        assert_eq!((space.splits, space.part, space.stat, space.lse), (3, 3 * 8 * 3 * 128 * 4, 768, 256));
        assert_eq!(space.bytes().unwrap(), space.part + 768 + 256 + 256);
        let one = Workspace::new(3, 8, &m, 4097, Some(2)).unwrap();
        assert_eq!((one.splits, one.part, one.stat), (1, 0, 0));
        assert!(Workspace::new(usize::MAX, 8, &m, 4097, None).is_err());
        // A smaller batch may be cut into more parts: no cut takes more than the least share.
        let most = Workspace::new(64, 8, &m, 1 << 17, Some(m.least())).unwrap().bytes().unwrap();
        for (batch, unit) in [(64, None), (64, Some(m.depth)), (1, None), (1, Some(m.least())), (63, Some(m.least()))] {
            assert!(Workspace::new(batch, 8, &m, 1 << 17, unit).unwrap().bytes().unwrap() <= most);
        }
        // Queries of five segments and two kv heads, 8 columns of 128 bytes and 12 more each.
        let m = kernels::calibrated_meta(codec.info(), 128, 4, 64);
        let more = Workspace::new(3, 8, &m, 4097, None).unwrap();
        assert_eq!(more.records, (3 * 2 * 5 * 8 * 140_u64).next_multiple_of(256));
        assert_eq!(more.bytes().unwrap(), space.bytes().unwrap() + more.records);
    }
}
