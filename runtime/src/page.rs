//! The paged cache as kernels and callers agree on it.
//!
//! Page p of kv head h is one block at `(p * kv_heads + h) * block_bytes`; a token's slot is
//! `p * page_tokens + offset`. Nothing outside `[base, base + bytes)` is ever touched.

use crate::argument::{agree, int, product, within};
use crate::codec::Codec;
use crate::cuda::Span;
use crate::error::Result;

/// A cache in the caller's device memory.
#[derive(Clone, Copy, Debug)]
pub struct PagedCache<'a> {
    /// Its bytes, 16-byte aligned.
    pub base: Span<'a>,
    /// Pages it holds.
    pub pages: usize,
    /// Tokens a page: a multiple of 32.
    pub page_tokens: usize,
    /// Key/value heads.
    pub kv_heads: usize,
    /// Dims a head.
    pub head_dim: usize,
}

/// The shape a plan was prepared for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub codec: Codec,
    pub head_dim: usize,
    pub page_tokens: usize,
}

impl PagedCache<'_> {
    /// Fails unless the memory holds the pages and the shape is the plan's.
    pub(crate) fn check(&self, plan: &Shape) -> Result<()> {
        agree("head_dim", self.head_dim, plan.head_dim, "plan")?;
        agree("page_tokens", self.page_tokens, plan.page_tokens, "plan")?;
        within("kv_heads", self.kv_heads, 1, 65535)?;
        within("pages", self.pages, 1, i32::MAX as usize)?;
        let need = plan.codec.cache_bytes(self.pages, self.page_tokens, self.kv_heads, self.head_dim)?;
        Ok(self.base.expect("the cache", "the first page", 16, need)?)
    }

    /// How many slots it has.
    pub(crate) fn slots(&self) -> Result<i64> {
        // At most i64::MAX by `product`'s own check.
        Ok(product("the number of slots", &[self.pages, self.page_tokens])? as i64)
    }

    /// The counts kernels take, as their types.
    pub(crate) fn ints(&self) -> Result<(i32, i32)> {
        Ok((int("kv_heads", self.kv_heads)?, int("pages", self.pages)?))
    }
}
