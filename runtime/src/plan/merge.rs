//! Joining two attention states of the same query rows over different tokens.

use std::sync::Arc;

use super::load;
use super::store::size_of_elem;
use crate::argument::{Misuse, int, product, within};
use crate::cuda::{Arg, Device, Kernel, Span, Stream};
use crate::error::{Error, Reasons, Result};
use kernels_gen::kernels::Elem;
use kernels_gen::kernels::merge::{MergeMeta, merge, merge_grid, merge_meta};
use kernels_gen::registry::HEAD_DIMS_STORE;

/// What attention over some tokens gives: see [`super::Decode`].
#[derive(Clone, Copy, Debug)]
pub struct State<'a> {
    /// `[rows, d]`, 16-byte aligned.
    pub out: Span<'a>,
    /// f32 `[rows]`: natural log of the sum of exponentials, -inf without tokens.
    pub lse: Span<'a>,
}

/// One merge call.
#[derive(Clone, Copy, Debug)]
pub struct Merge<'a> {
    /// Query rows: sequences times heads.
    pub rows: usize,
    /// Over some tokens.
    pub a: State<'a>,
    /// Over others.
    pub b: State<'a>,
    /// Over both; it may be `a` or `b`.
    pub into: State<'a>,
}

/// The merge kernel, ready.
#[derive(Debug)]
pub struct MergePlan {
    meta: MergeMeta,
    elem: Elem,
    kernel: Arc<Kernel>,
}

impl MergePlan {
    /// Compiles and loads. Slow the first time; not while a stream is being captured.
    pub fn prepare(device: &Device, head_dim: usize, elem: Elem) -> Result<Self> {
        Self::check_dim(head_dim)?;
        Ok(MergePlan { meta: merge_meta(head_dim), elem, kernel: load(device, merge(head_dim, elem))? })
    }

    /// Fails for a head dim without a kernel.
    pub(crate) fn check_dim(head_dim: usize) -> Result<()> {
        if HEAD_DIMS_STORE.contains(&head_dim) {
            return Ok(());
        }
        Err(Error::Unsupported(Reasons(vec![format!("head dim {head_dim} (served: 64, 128, 256, 512)")])))
    }

    /// Enqueues the merge: one launch, no allocation, no wait. Zero rows enqueue nothing.
    pub fn launch(&self, stream: &Stream, call: &Merge<'_>) -> Result<()> {
        if call.rows == 0 {
            return Ok(());
        }
        within("rows", call.rows, 1, i32::MAX as usize)?;
        let rows = product("the rows", &[call.rows, self.meta.d, size_of_elem(self.elem)])?;
        if rows > i64::MAX as u64 {
            return Err(Misuse::Overflow { what: "the rows", limit: "63 bits" }.into());
        }
        for (what, state) in [("a", call.a), ("b", call.b), ("the merged state", call.into)] {
            state.out.expect(what, "the first row", 16, rows)?;
            state.lse.expect(what, "one f32 a row", 4, 4 * call.rows as u64)?;
        }
        let spans = [call.a.out, call.a.lse, call.b.out, call.b.lse, call.into.out, call.into.lse].map(Arg::Ptr);
        self.kernel.launch(stream, merge_grid(&self.meta, call.rows), &[&spans[..], &[Arg::I32(int("rows", call.rows)?)]].concat())
    }

    /// The kernel, for its attributes.
    pub fn kernel(&self) -> &Kernel {
        &self.kernel
    }
}
