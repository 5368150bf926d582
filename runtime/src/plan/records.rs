//! Queries of a calibrated codec, which a launch before attention maps, and what every kernel of such a codec takes besides; queries of a
//! codec whose blocks have bases, which one folds into these.

use std::sync::Arc;

use super::{Decode, load};
use crate::argument::{int, product};
use crate::calibration::{Layer, needs};
use crate::codec::Codec;
use crate::cuda::{Arg, Device, Kernel, Span, Stream};
use crate::error::Result;
use kernels_gen::kernels::decode_attention::DecodeMeta;
use kernels_gen::kernels::maps::MapMeta;
use kernels_gen::kernels::{self, Elem, SEGMENT};

/// The kernel that makes records of queries, ready.
#[derive(Debug)]
pub(super) struct Records {
    kind: Kind,
    kernel: Arc<Kernel>,
}

#[derive(Debug)]
enum Kind {
    /// Maps them to segments.
    Map(MapMeta),
    /// Folds them into blocks.
    Fold,
}

/// Query tokens of a launch: of `queries` a sequence, `blocks` blocks from the `first`-th on.
#[derive(Clone, Copy)]
pub(super) struct Tokens {
    pub queries: usize,
    pub first: usize,
    pub blocks: usize,
}

impl Records {
    /// For attention kernels of `m`, if they take records.
    pub fn prepare(device: &Device, codec: Codec, m: &DecodeMeta, elem: Elem) -> Result<Option<Self>> {
        if m.blocks() {
            return Ok(Some(Records { kind: Kind::Fold, kernel: load(device, kernels::pca::fold_queries(&kernels::pca::fold_meta(m, elem)))? }));
        }
        if m.record == 0 {
            return Ok(None);
        }
        let meta = kernels::queries_meta(m, elem);
        Ok(Some(Records { kernel: load(device, kernels::map_queries(codec.info(), &meta))?, kind: Kind::Map(meta) }))
    }

    /// Bytes of the records of `blocks` blocks of query tokens a sequence.
    pub fn bytes(m: &DecodeMeta, batch: usize, kv_heads: usize, blocks: usize, capacity: usize) -> Result<u64> {
        let (each, record) = if m.blocks() { (m.page_tokens, m.folded()) } else { (SEGMENT, m.record) };
        Ok(product("the workspace", &[batch, kv_heads, blocks, capacity.div_ceil(each), record])?)
    }

    /// Enqueues the records of a call's queries for tables of `capacity` tokens a row; `layer`: of a calibrated codec.
    pub fn launch(&self, stream: &Stream, call: &Decode<'_>, layer: Option<&Layer<'_>>, records: Span<'_>, capacity: usize, of: Tokens) -> Result<()> {
        match (&self.kind, layer) {
            (Kind::Map(meta), Some(layer)) => self.map(stream, call, meta, layer, records, capacity, of),
            (Kind::Map(_), None) => Ok(()),
            (Kind::Fold, _) => self.fold(stream, call, records),
        }
    }

    fn fold(&self, stream: &Stream, call: &Decode<'_>, records: Span<'_>) -> Result<()> {
        let (kv_heads, pages) = call.cache.ints()?;
        let stride = int("table_stride", call.table_stride)?;
        let args = [Arg::Ptr(call.q), Arg::Ptr(call.cache.base), Arg::Ptr(call.table), Arg::Ptr(call.lens), Arg::Ptr(records), Arg::I32(kv_heads), Arg::I32(pages), Arg::I32(stride), Arg::F32(call.scale)];
        self.kernel.launch_with(stream, [stride as u32, kv_heads as u32, call.batch as u32], &[&args])
    }

    #[allow(clippy::too_many_arguments)]
    fn map(&self, stream: &Stream, call: &Decode<'_>, meta: &MapMeta, layer: &Layer<'_>, records: Span<'_>, capacity: usize, of: Tokens) -> Result<()> {
        let (segments, kv_heads) = (capacity.div_ceil(SEGMENT), call.cache.kv_heads * meta.fold);
        let args = [
            Arg::Ptr(call.lens),
            Arg::Ptr(records),
            Arg::I32(int("the number of heads", kv_heads)?),
            Arg::I32(int("table_stride", call.table_stride)?),
            Arg::I32(int("the number of segments", segments)?),
            Arg::F32(call.scale),
            Arg::I32(int("queries", of.queries)?),
            Arg::I32(int("queries", of.first)?),
            Arg::I32(int("queries", of.blocks)?),
            Arg::I32(kernels::query_parts(meta, segments).ilog2() as i32),
        ];
        int("queries", product("queries", &[kernels::query_parts(meta, segments), of.blocks])? as usize)?;
        let grid = kernels::queries_grid(meta, segments, kv_heads, call.batch, of.blocks);
        self.kernel.launch_with(stream, grid, &[&[Arg::Ptr(call.q), Arg::Ptr(layer.turns())], Buffers::of(Some(layer)).args(), &args])
    }
}

/// Maps and scales of a layer, as attention and join take them; of none.
pub(super) struct Buffers<'a>(Option<[Arg<'a>; 2]>);

impl<'a> Buffers<'a> {
    pub fn of(layer: Option<&Layer<'a>>) -> Self {
        Buffers(layer.map(|layer| [Arg::Ptr(layer.maps()), Arg::Ptr(layer.scales())]))
    }

    pub fn args(&self) -> &[Arg<'a>] {
        self.0.as_ref().map_or(&[], |all| all)
    }
}

/// Fails unless there is a layer for a calibrated codec, of its shape and for tables of that capacity, and none for another one.
pub(super) fn agrees(codec: Codec, call: &Decode<'_>, layer: Option<&Layer<'_>>, capacity: usize) -> Result<()> {
    match layer {
        None if codec.calibrated().is_ok() => Err(needs(codec).into()),
        None => Ok(()),
        Some(_) if codec.calibrated().is_err() => Err(needs(codec).into()),
        Some(layer) => {
            layer.check(codec, &call.cache)?;
            layer.reaches(capacity)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_of_a_block_and_a_segment() {
        let codec = Codec::open("kvfuse-4").unwrap();
        let m = kernels::calibrated_meta(codec.info(), 128, 4, 64);
        // Queries of five segments and two kv heads, 8 columns of 128 bytes and 12 more each.
        assert_eq!(Records::bytes(&m, 3, 2, 1, 4097).unwrap(), 3 * 2 * 5 * 8 * 140);
        assert_eq!(Records::bytes(&m, 3, 2, 7, 4097).unwrap(), 7 * 3 * 2 * 5 * 8 * 140);
        assert!(Records::bytes(&m, usize::MAX, 2, 1, 4097).is_err());
        let plain = kernels::decode_meta(codec.info(), 128, 4, 64);
        assert_eq!(Records::bytes(&plain, 3, 2, 1, 4097).unwrap(), 0);
    }
}
