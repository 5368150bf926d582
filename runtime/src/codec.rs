//! A codec as engines see it: a name, its sizes, and which shapes its kernels serve.

use kernels_gen::kernels::{kivi as groups, pca as blocks};
use kernels_gen::kivi::{self, Kivi, KiviLayout};
use kernels_gen::layout::TILE;
use kernels_gen::pca::pages::{self, BLOCK, PcaLayout, PcaPages};
use kernels_gen::preset::{self, Preset};
use kernels_gen::registry::{CodecInfo, HEAD_DIMS_STORE, codec};

use crate::argument::{Misuse, product};
use crate::error::{Error, Reasons, Result};

/// Head dims that decode kernels are generated for.
pub(crate) const HEAD_DIMS_DECODE: [usize; 3] = [64, 128, 256];

/// The largest page, far above what any engine uses; it keeps offsets in 31 bits.
const MAX_PAGE_TOKENS: usize = 1 << 16;

/// A codec of the registry, or a calibrated one. Copy it freely.
#[derive(Clone, Copy, Debug)]
pub struct Codec {
    info: &'static CodecInfo,
    preset: Option<&'static Preset>,
    /// It codes groups of 32 tokens.
    kivi: Option<&'static Kivi>,
    /// It codes blocks of 512 tokens, each with a basis of its own.
    pca: Option<&'static PcaPages>,
}

impl Codec {
    /// The codec of that name; the error lists the known ones, nearest first.
    pub fn open(name: &str) -> Result<Self> {
        if let Some(kivi) = kivi::open(name) {
            return Ok(Codec { info: kivi.halves(), preset: None, kivi: Some(kivi), pca: None });
        }
        if let Some(pca) = pages::open(name).filter(|_| !name.starts_with("pca_static")) {
            let pca = pca.map_err(|e| Misuse::Other(e.to_string()))?;
            return Ok(Codec { info: &pca.halves, preset: None, kivi: None, pca: Some(pca) });
        }
        let preset = preset::preset(name);
        let info = preset.map_or_else(|| codec(name), Preset::codec)?;
        Ok(Codec { info, preset, kivi: None, pca: None })
    }

    /// A calibrated codec with the bands of one layer.
    pub(crate) fn fitted(preset: &'static Preset, info: &'static CodecInfo) -> Self {
        Codec { info, preset: Some(preset), kivi: None, pca: None }
    }

    /// What makes it a calibrated one: `kvfuse-4` and its like, which need a [`crate::Calibration`].
    pub fn calibrated(self) -> Result<&'static Preset> {
        let none = || Misuse::Other(format!("{} takes no calibration; only kvfuse codecs do", self.name())).into();
        self.preset.ok_or_else(none)
    }

    /// As `open`, for a codec of blocks whose name says `_fitted`: with the levels that were fitted to a model, of keys and of values.
    pub fn open_fitted(name: &str, keys: Option<&[f32]>, values: Option<&[f32]>) -> Result<Self> {
        let pca = pages::open_fitted(name, [keys, values]).ok_or_else(|| Misuse::Other(format!("{name} has no fitted levels; write pca_b3_post_fitted, or open it without any")))?;
        let pca = pca.map_err(|e| Misuse::Other(e.to_string()))?;
        Ok(Codec { info: &pca.halves, preset: None, kivi: None, pca: Some(pca) })
    }

    /// What makes it one that codes whole tiles of 32 tokens: `kivi_k2v2` and its like.
    pub fn kivi(self) -> Option<&'static Kivi> {
        self.kivi
    }

    /// What makes it one whose pages are blocks of 512 tokens: `pca_b3_post` and its like.
    pub fn pca(self) -> Option<&'static PcaPages> {
        self.pca
    }

    /// The page of one kv head of such a codec: 512 keys and values `[token, head dim]`. It is the host's work, and takes some
    /// milliseconds; the caller copies the bytes into the cache, page p of kv head h to `(p * kv_heads + h) * block_bytes`.
    pub fn encode_block(self, head_dim: usize, keys: &[f32], values: &[f32]) -> Result<Vec<u8>> {
        self.encode_block_under(head_dim, None, keys, values)
    }

    /// As `encode_block`, for a codec whose blocks share bases: under the page that [`fit_bases`](Self::fit_bases) made of them.
    pub fn encode_block_under(self, head_dim: usize, bases: Option<&[u8]>, keys: &[f32], values: &[f32]) -> Result<Vec<u8>> {
        let pca = self.blocks()?;
        self.check_store(head_dim, BLOCK)?;
        for (what, rows) in [("keys", keys), ("values", values)] {
            if rows.len() != BLOCK * head_dim {
                return Err(Misuse::Other(format!("{} {what}; a block has {BLOCK} rows of {head_dim}", rows.len())).into());
            }
        }
        Ok(pca.encode(bases, keys, values, head_dim).map_err(|e| Misuse::Other(e.to_string()))?)
    }

    /// The page of one kv head's bases for a codec whose blocks share them, fitted to keys and values `[token, head_dim]`, as many as there
    /// are; the caller copies it as it copies blocks. The first entry of a sequence's row of the page table names it.
    pub fn fit_bases(self, head_dim: usize, keys: &[f32], values: &[f32]) -> Result<Vec<u8>> {
        let pca = self.blocks()?;
        self.check_store(head_dim, BLOCK)?;
        Ok(pca.fit_bases(keys, values, head_dim).map_err(|e| Misuse::Other(e.to_string()))?)
    }

    /// Entries of a row of the page table before those of tokens: 1 for a codec whose blocks share bases.
    pub fn lead_pages(self) -> usize {
        self.pca.map_or(0, PcaPages::lead)
    }

    fn blocks(self) -> Result<&'static PcaPages> {
        self.pca.ok_or_else(|| Misuse::Other(format!("{} codes no blocks; store its tokens by a store plan", self.name())).into())
    }

    /// Tokens of such a block.
    pub fn block_tokens(self) -> Result<usize> {
        self.blocks().map(|_| BLOCK)
    }

    /// Fails for a codec whose blocks the host codes.
    pub(crate) fn on_device(self) -> Result<()> {
        self.pca.map_or(Ok(()), |pca| Err(Misuse::Other(format!("{} has no store kernel: a block of {BLOCK} tokens is fitted on the host; encode_block makes its page", pca.name)).into()))
    }

    /// Fails for a codec that codes groups of tokens: what asks works on single ones.
    pub(crate) fn by_token(self, what: &str) -> Result<()> {
        self.pca.map_or(Ok(()), |pca| Err(Misuse::Other(format!("{} codes blocks of {BLOCK} tokens; {what} takes codecs that code tokens", pca.name))))?;
        self.kivi.map_or(Ok(()), |kivi| Err(Misuse::Other(format!("{} codes groups of {TILE} tokens; {what} takes codecs that code tokens", kivi.name)).into()))
    }

    /// Fails unless so many tokens can be stored at once.
    pub(crate) fn check_tokens(self, tokens: usize) -> Result<()> {
        match self.kivi {
            Some(kivi) if !tokens.is_multiple_of(TILE) => Err(Misuse::Other(format!("{tokens} tokens for {}, which codes whole tiles; store a multiple of {TILE}", kivi.name)).into()),
            _ => Ok(()),
        }
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        if let Some(kivi) = self.kivi {
            return &kivi.name;
        }
        if let Some(pca) = self.pca {
            return &pca.name;
        }
        self.preset.map_or(self.info.name, |preset| preset.name)
    }

    /// What the registry says of it; of a calibrated one, of its bands.
    pub fn info(self) -> &'static CodecInfo {
        self.info
    }

    /// Bits a cached number takes, sides included.
    pub fn stored_bits_per_element(self, head_dim: usize) -> Result<f64> {
        refuse(dim_reasons(head_dim, self.dims(&HEAD_DIMS_STORE)))?;
        let tokens = if self.pca.is_some() { BLOCK } else { TILE };
        Ok((8 * self.page_bytes(head_dim, tokens)) as f64 / (2 * tokens * head_dim) as f64)
    }

    /// Of a served shape.
    fn page_bytes(self, head_dim: usize, page_tokens: usize) -> usize {
        self.pca.map_or_else(|| page_tokens / TILE * self.tile_bytes(head_dim), |pca| PcaLayout::of(pca, head_dim).page_bytes())
    }

    fn tile_bytes(self, head_dim: usize) -> usize {
        self.kivi.map_or_else(|| self.info.tile_bytes(head_dim), |kivi| KiviLayout::of(kivi, head_dim).tile_bytes())
    }

    /// Those of `served` that this codec has kernels for.
    fn dims<'a>(self, served: &'a [usize]) -> &'a [usize] {
        match (self.kivi, self.pca) {
            (Some(_), _) => &groups::HEAD_DIMS,
            (_, Some(_)) => &blocks::HEAD_DIMS,
            _ => served,
        }
    }

    /// Bytes of one page of one kv head, keys and values.
    pub fn block_bytes(self, head_dim: usize, page_tokens: usize) -> Result<usize> {
        self.check_store(head_dim, page_tokens)?;
        Ok(self.page_bytes(head_dim, page_tokens))
    }

    /// Bytes of a cache of `pages` pages.
    pub fn cache_bytes(self, pages: usize, page_tokens: usize, kv_heads: usize, head_dim: usize) -> Result<u64> {
        Ok(product("the cache", &[pages, kv_heads, self.block_bytes(head_dim, page_tokens)?])?)
    }

    /// Fails, with every reason, unless rows can be stored in this shape.
    pub fn check_store(self, head_dim: usize, page_tokens: usize) -> Result<()> {
        let mut reasons = dim_reasons(head_dim, self.dims(&HEAD_DIMS_STORE));
        reasons.extend(self.band_reasons(head_dim));
        reasons.extend(self.page_reasons(page_tokens));
        refuse(reasons)
    }

    /// Fails unless the C library gives rows back in this shape.
    pub(crate) fn check_load(self, head_dim: usize, page_tokens: usize) -> Result<()> {
        self.by_token("load")?;
        if self.preset.is_some() {
            return Err(Error::unsupported(format!("load of {}, whose rows are in fitted coordinates", self.name())));
        }
        self.check_store(head_dim, page_tokens)
    }

    /// Fails, with every reason, unless attention is served in this shape.
    pub fn check_decode(self, head_dim: usize, group: usize, page_tokens: usize) -> Result<()> {
        let mut reasons = dim_reasons(head_dim, self.dims(&HEAD_DIMS_DECODE));
        let narrow = self.kivi.is_some() || self.pca.is_some();
        if !(1..=8).contains(&group) && (group != 16 || narrow) {
            reasons.push(format!("{group} query heads a kv head (served: 1 to 8{})", if narrow { "" } else { ", and 16" }));
        }
        reasons.extend(self.band_reasons(head_dim));
        reasons.extend(self.page_reasons(page_tokens));
        refuse(reasons)
    }

    /// Fails, with every reason, unless tokens can be stored in slots and moved between these and tiles.
    pub fn check_slots(self, head_dim: usize, slot_page_tokens: usize, page_tokens: usize) -> Result<()> {
        let mut reasons = dim_reasons(head_dim, &HEAD_DIMS_STORE);
        if !self.info.has_slots() || self.kivi.is_some() || self.pca.is_some() {
            reasons.push(format!("slots of {} (served: the turboquant presets, and fp8_e4m3 and lloyd keys beside affine values)", self.name()));
        }
        if !(1..=MAX_PAGE_TOKENS).contains(&slot_page_tokens) {
            reasons.push(format!("pages of {slot_page_tokens} slots (served: 1 to {MAX_PAGE_TOKENS})"));
        }
        reasons.extend(page_reasons(page_tokens));
        refuse(reasons)
    }

    fn page_reasons(self, page_tokens: usize) -> Option<String> {
        match self.pca {
            Some(_) => (page_tokens != BLOCK).then(|| format!("pages of {page_tokens} tokens (served: {BLOCK}, a block)")),
            None => page_reasons(page_tokens),
        }
    }

    fn band_reasons(self, head_dim: usize) -> Option<String> {
        (!self.info.serves(head_dim)).then(|| format!("{} at head dim {head_dim} (a band has at least 32 dims of a key, 64 of a value)", self.name()))
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
        let text = Codec::open("kivi_k2v2").unwrap().check_decode(256, 16, 64).unwrap_err().to_string();
        assert_eq!(text, "unsupported: head dim 256 (served: 64, 128); 16 query heads a kv head (served: 1 to 8)");
    }

    #[test]
    fn groups_of_tokens() {
        let codec = Codec::open("kivi_k2v4_r32").unwrap();
        assert_eq!((codec.name(), codec.block_bytes(128, 64).unwrap()), ("kivi_k2v4_r32", 2 * (32 * 128 * 6 / 8 + 2 * 512)));
        // Two bits and four, and a pair of f16 for 32 numbers.
        assert_eq!(codec.stored_bits_per_element(64).unwrap(), 4.0);
        assert!(codec.check_tokens(64).is_ok() && codec.check_tokens(33).is_err());
        assert!(codec.by_token("load").unwrap_err().to_string().contains("groups of 32 tokens; load takes"));
        assert!(codec.check_slots(128, 16, 32).is_err());
        assert!(Codec::open("int4").unwrap().by_token("load").is_ok());
    }

    #[test]
    fn blocks_of_tokens() {
        let codec = Codec::open("pca_b3_post_r64").unwrap();
        let layout = PcaLayout::of(codec.pca().unwrap(), 128);
        assert_eq!((codec.name(), codec.block_bytes(128, 512).unwrap()), ("pca_b3_post_r64", layout.page_bytes()));
        // 64 coordinates of 3 bits, a norm, a length and a number for each of two rows; the maps of 512.
        assert_eq!(layout.page_bytes(), 512 * 2 * (24 + 4 + 1) + 2 * (96 * (128 + 4) + 512) + 512);
        let text = codec.check_decode(256, 16, 64).unwrap_err().to_string();
        assert_eq!(text, "unsupported: head dim 256 (served: 64, 128); 16 query heads a kv head (served: 1 to 8); pages of 64 tokens (served: 512, a block)");
        assert!(codec.by_token("load").is_err() && codec.on_device().is_err() && codec.check_slots(128, 16, 32).is_err());
        let rows = vec![1.0; 512 * 128];
        assert_eq!(codec.encode_block(128, &rows, &rows).unwrap().len(), layout.page_bytes());
        assert!(codec.encode_block(128, &rows[1..], &rows).unwrap_err().to_string().contains("512 rows of 128"));
        assert!(Codec::open("int4").unwrap().encode_block(128, &rows, &rows).is_err());
        assert!(Codec::open("pca_b3_share").unwrap_err().to_string().contains("_own"));
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
