//! The scalar reference as a backend: the same bytes and, with u8 lanes, the same bits as the kernels.

use std::borrow::Cow;

use kernels_gen::layout::Operand;
use kernels_gen::reference::{CacheShape, Sequence, Status, store};
use kernels_gen::registry::CodecInfo;
use rayon::prelude::*;

use super::{Backend, CodedCache};
use crate::attention::{Fitted, Geometry, Pages};
use crate::error::{Error, Result};

/// Queries that one thread takes at a time.
const BLOCK: usize = 32;

pub struct Cpu;

impl Backend for Cpu {
    fn name(&self) -> String {
        "cpu (scalar reference)".into()
    }

    fn cache(&self, codec: &'static CodecInfo, geometry: &Geometry, pages: &Pages) -> Result<Box<dyn CodedCache>> {
        Ok(Box::new(CpuCache::new(codec, None, geometry, pages)))
    }

    fn calibrated(&self, of: (&'static Fitted, usize), geometry: &Geometry, pages: &Pages) -> Result<Box<dyn CodedCache>> {
        Ok(Box::new(CpuCache::new(of.0.layer(of.1).codec, Some(of), geometry, pages)))
    }
}

struct CpuCache {
    codec: &'static CodecInfo,
    /// a calibrated one's maps, and the layer of the model
    fitted: Option<(&'static Fitted, usize)>,
    shape: CacheShape,
    geometry: Geometry,
    layers: Vec<Vec<u8>>,
}

impl CpuCache {
    fn new(codec: &'static CodecInfo, fitted: Option<(&'static Fitted, usize)>, geometry: &Geometry, pages: &Pages) -> CpuCache {
        let (kv_heads, d) = (geometry.kv_heads, geometry.d);
        let shape = CacheShape { pages: pages.count(), page_tokens: pages.page_tokens, kv_heads, d };
        let layers = (0..geometry.layers).map(|_| vec![0; shape.bytes(codec)]).collect();
        CpuCache { codec, fitted, shape, geometry: *geometry, layers }
    }
}

impl CodedCache for CpuCache {
    /// A page is a contiguous run of bytes, so pages are stored in parallel, each as a cache of one page.
    fn store(&mut self, layer: usize, first: usize, k: &[f32], v: &[f32], pages: &Pages) -> Result<()> {
        let mapped = self.fitted.map(|(fitted, own)| [(Operand::K, k), (Operand::V, v)].map(|(operand, x)| fitted.coordinates(operand, own, first, x)));
        let (k, v) = mapped.as_ref().map_or((k, v), |[k, v]| (k, v));
        let page = CacheShape { pages: 1, ..self.shape };
        let (tokens, width) = (self.shape.page_tokens, self.shape.kv_heads * self.shape.d);
        let end = first + k.len() / width;
        let touched = first / tokens..end.div_ceil(tokens).max(first / tokens);
        let mut index_of = vec![None; pages.count()];
        touched.for_each(|index| index_of[pages.table[index] as usize] = Some(index));
        let bytes = self.layers[layer].par_chunks_exact_mut(page.bytes(self.codec));
        let status = bytes.zip(index_of).filter_map(|(bytes, index)| index.map(|index| (bytes, index)));
        let status = status.map(|(bytes, index)| {
            let own = (index * tokens).max(first)..((index + 1) * tokens).min(end);
            let slots: Vec<i64> = own.clone().map(|token| (token % tokens) as i64).collect();
            let rows = (own.start - first) * width..(own.end - first) * width;
            store(self.codec, &page, bytes, &k[rows.clone()], &v[rows], &slots)
        });
        check(status.reduce(|| Status::OK, |a, b| Status(a.0 | b.0)), self.codec)
    }

    fn attend(&mut self, layer: usize, q: &[f32], lens: &[i32], pages: &Pages) -> Result<Vec<f32>> {
        let Geometry { heads, d, scale, .. } = self.geometry;
        let longest = lens.iter().copied().max().unwrap_or(0).max(0) as usize;
        let sequence = match Sequence::new(self.codec, &self.shape, &self.layers[layer], &pages.table, longest) {
            Ok(sequence) => sequence,
            Err(status) => return check(status, self.codec).map(|()| Vec::new()),
        };
        let blocks = q.par_chunks(BLOCK * heads * d).zip(lens.par_chunks(BLOCK));
        let attend = |(q, lens)| match self.fitted {
            Some((fitted, own)) => fitted.layer(own).attend(&sequence, q, heads, lens, scale).0,
            None => sequence.attend(q, heads, lens, scale).0,
        };
        Ok(blocks.flat_map_iter(attend).collect())
    }

    fn bytes(&self, layer: usize) -> Result<Cow<'_, [u8]>> {
        Ok(Cow::Borrowed(&self.layers[layer]))
    }

    fn allocated(&self) -> u64 {
        self.layers.iter().map(|layer| layer.len() as u64).sum()
    }
}

fn check(status: Status, codec: &CodecInfo) -> Result<()> {
    if status.is_ok() {
        return Ok(());
    }
    let reasons = vec![format!("the cache of {} reported status {:#x}: a slot, page or length was out of range", codec.name, status.0)];
    Err(Error::Invalid { reasons })
}
