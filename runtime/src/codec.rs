//! A codec as engines see it: a name, its sizes, and which shapes its kernels serve.

use kernels_gen::layout::TILE;
use kernels_gen::registry::{CodecInfo, HEAD_DIMS_STORE, codec};

use crate::argument::product;
use crate::error::{Error, Reasons, Result};

/// Head dims that decode kernels are generated for.
pub(crate) const HEAD_DIMS_DECODE: [usize; 3] = [64, 128, 256];

/// The largest page, far above what any engine uses; it keeps offsets in 31 bits.
const MAX_PAGE_TOKENS: usize = 1 << 16;

/// A codec of the registry. Copy it freely.
#[derive(Clone, Copy, Debug)]
pub struct Codec(&'static CodecInfo);

impl Codec {
    /// The codec of that name; the error lists the known ones, nearest first.
    pub fn open(name: &str) -> Result<Self> {
        Ok(Codec(codec(name)?))
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        self.0.name
    }

    /// What the registry says of it.
    pub fn info(self) -> &'static CodecInfo {
        self.0
    }

    /// Bits a cached number takes, sides included.
    pub fn stored_bits_per_element(self, head_dim: usize) -> Result<f64> {
        refuse(dim_reasons(head_dim, &HEAD_DIMS_STORE))?;
        Ok(self.0.stored_bits_per_element(head_dim))
    }

    /// Bytes of one page of one kv head, keys and values.
    pub fn block_bytes(self, head_dim: usize, page_tokens: usize) -> Result<usize> {
        self.check_store(head_dim, page_tokens)?;
        Ok(page_tokens / TILE * self.0.tile_bytes(head_dim))
    }

    /// Bytes of a cache of `pages` pages.
    pub fn cache_bytes(self, pages: usize, page_tokens: usize, kv_heads: usize, head_dim: usize) -> Result<u64> {
        Ok(product("the cache", &[pages, kv_heads, self.block_bytes(head_dim, page_tokens)?])?)
    }

    /// Fails, with every reason, unless rows can be stored in this shape.
    pub fn check_store(self, head_dim: usize, page_tokens: usize) -> Result<()> {
        let mut reasons = dim_reasons(head_dim, &HEAD_DIMS_STORE);
        reasons.extend(self.band_reasons(head_dim));
        reasons.extend(page_reasons(page_tokens));
        refuse(reasons)
    }

    /// Fails, with every reason, unless attention is served in this shape.
    pub fn check_decode(self, head_dim: usize, group: usize, page_tokens: usize) -> Result<()> {
        let mut reasons = dim_reasons(head_dim, &HEAD_DIMS_DECODE);
        if !(1..=8).contains(&group) && group != 16 {
            reasons.push(format!("{group} query heads a kv head (served: 1 to 8, and 16)"));
        }
        reasons.extend(self.band_reasons(head_dim));
        reasons.extend(page_reasons(page_tokens));
        refuse(reasons)
    }

    fn band_reasons(self, head_dim: usize) -> Option<String> {
        (!self.0.serves(head_dim)).then(|| format!("{} at head dim {head_dim} (a band has at least 32 dims of a key, 64 of a value)", self.0.name))
    }
}

fn dim_reasons(head_dim: usize, served: &[usize]) -> Vec<String> {
    if served.contains(&head_dim) {
        return vec![];
    }
    let list: Vec<String> = served.iter().map(ToString::to_string).collect();
    vec![format!("head dim {head_dim} (served: {})", list.join(", "))]
}

fn page_reasons(page_tokens: usize) -> Option<String> {
    let served = page_tokens.is_multiple_of(TILE) && (TILE..=MAX_PAGE_TOKENS).contains(&page_tokens);
    (!served).then(|| format!("pages of {page_tokens} tokens (served: multiples of {TILE} up to {MAX_PAGE_TOKENS})"))
}

fn refuse(reasons: Vec<String>) -> Result<()> {
    if reasons.is_empty() { Ok(()) } else { Err(Error::Unsupported(Reasons(reasons))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_listed() {
        let codec = Codec::open("int4").unwrap();
        let text = codec.check_decode(80, 9, 33).unwrap_err().to_string();
        assert_eq!(
            text,
            "unsupported: head dim 80 (served: 64, 128, 256); 9 query heads a kv head (served: 1 to 8, and 16); \
             pages of 33 tokens (served: multiples of 32 up to 65536)"
        );
        assert!(codec.check_decode(128, 16, 32).is_ok());
        assert!(codec.check_store(512, 0).is_err());
    }

    #[test]
    fn sizes_never_wrap() {
        let codec = Codec::open("bf16").unwrap();
        let block = codec.block_bytes(128, 64).unwrap();
        assert_eq!(codec.cache_bytes(10, 64, 8, 128).unwrap(), 80 * block as u64);
        assert!(codec.cache_bytes(usize::MAX, 64, 8, 128).is_err());
        assert!(codec.cache_bytes(1 << 40, 64, 1 << 20, 128).is_err());
    }
}
