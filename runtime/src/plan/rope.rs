//! Keys as projections leave them, normalised, turned and stored in one launch, and queries made ready beside them.

use std::sync::Arc;

use super::load;
use super::store::{Rows, Store, StoreSpec, size_of_elem};
use crate::argument::{Misuse, int, within};
use crate::calibration::{Layer, needs};
use crate::cuda::{Arg, Device, Kernel, Span, Stream};
use crate::error::{Error, Reasons, Result};
use crate::page::Shape;
use kernels_gen::kernels;
use kernels_gen::kernels::Elem;
use kernels_gen::kernels::rope::Rope;

/// What such a kernel is compiled for.
#[derive(Clone, Copy, Debug)]
pub struct RopeSpec {
    /// Of the store.
    pub store: StoreSpec,
    /// What keys and queries pass.
    pub rope: Rope,
}

/// What such a store takes besides a [`Store`]. Outputs may not lie over their inputs.
#[derive(Clone, Copy, Debug)]
pub struct Roped<'a> {
    /// i32 `[tokens]`: each token's place in its sequence. A token of a place that the table does not hold is not stored, what is
    /// given back of it is 0, and the status word of a bad length is set.
    pub positions: Span<'a>,
    /// `[turns, dims]`, bf16 or f32: cosines, then sines; 16-byte aligned.
    pub table: Span<'a>,
    /// Places that the table holds.
    pub turns: usize,
    /// Added to the mean square.
    pub epsilon: f32,
    /// f32 `[d]` of the norm of keys, if it has weights; 16-byte aligned.
    pub k_weight: Option<Span<'a>>,
    /// Of the norm of queries, if these pass too.
    pub q_weight: Option<Span<'a>>,
    /// Queries `[tokens, heads, d]`, if they pass too.
    pub q: Option<Rows<'a>>,
    /// Where they go: `[tokens, heads, d]`, contiguous, 16-byte aligned.
    pub q_out: Option<Span<'a>>,
    /// Where keys go, if they are given back: `[tokens, kv heads, d]`, likewise.
    pub k_out: Option<Span<'a>>,
}

/// A store kernel with norm and RoPE in front, ready.
#[derive(Debug)]
pub struct RopePlan {
    shape: Shape,
    elem: Elem,
    rope: Rope,
    kernel: Arc<Kernel>,
}

impl RopePlan {
    /// Compiles and loads. Slow the first time; not while a stream is being captured.
    pub fn prepare(device: &Device, spec: &RopeSpec) -> Result<Self> {
        let StoreSpec { codec, head_dim, page_tokens, elem } = spec.store;
        codec.by_token("a store with rope")?;
        codec.check_store(head_dim, page_tokens)?;
        check_rope(&spec.rope, head_dim)?;
        let calibrated = codec.calibrated().is_ok();
        let kernel = load(device, kernels::rope_store(codec.info(), head_dim, page_tokens, elem, spec.rope, calibrated))?;
        Ok(RopePlan { shape: Shape { codec, head_dim, page_tokens }, elem, rope: spec.rope, kernel })
    }

    /// What it was prepared for.
    pub fn rope(&self) -> &Rope {
        &self.rope
    }

    /// Enqueues it: one launch, no allocation, no wait. Zero tokens enqueue nothing. `layer`: of a calibrated codec.
    pub fn launch(&self, stream: &Stream, call: &Store<'_>, roped: &Roped<'_>, layer: Option<Layer<'_>>) -> Result<()> {
        call.check(&self.shape, self.elem)?;
        match &layer {
            Some(layer) => layer.check(self.shape.codec, &call.cache)?,
            None if self.shape.codec.calibrated().is_ok() => return Err(needs(self.shape.codec).into()),
            None => {}
        }
        if call.tokens == 0 {
            return Ok(());
        }
        let given = self.given(call, roped)?;
        let q = roped.q.filter(|_| self.rope.group > 0).unwrap_or(Rows { base: Span::null(), token_stride: 0, head_stride: 0 });
        let turns = [Arg::Ptr(roped.positions), Arg::Ptr(roped.table), Arg::I32(int("the positions of cos_sin", roped.turns)?), Arg::F32(roped.epsilon)];
        let fitted = layer.map(|layer| layer.args()).transpose()?;
        let args: [&[Arg<'_>]; 5] = [&[call.k, call.v, q].map(Rows::args).concat(), &turns, &given.map(own), fitted.as_slice().as_flattened(), &call.stored()?];
        let args = args.concat();
        self.kernel.launch(stream, kernels::rope_grid(&self.rope, call.tokens, call.cache.kv_heads), &args)
    }

    /// Weights of keys and of queries, keys and queries given back: those that the kernel looks at, checked.
    fn given<'a>(&self, call: &Store<'_>, roped: &Roped<'a>) -> Result<[Option<Span<'a>>; 4]> {
        let (rope, d, elem) = (&self.rope, self.shape.head_dim, size_of_elem(self.elem) as u64);
        roped.positions.expect("positions", "one i32 a token", 4, 4 * call.tokens as u64)?;
        within("the positions of cos_sin", roped.turns, 1, i32::MAX as usize)?;
        roped.table.expect("cos_sin", "a row of cosines and sines a position", 16, (roped.turns * rope.dims * rope.table_elem) as u64)?;
        if rope.norm && !(roped.epsilon.is_finite() && roped.epsilon >= 0.0) {
            return Err(Misuse::Other(format!("epsilon is {}; it must be finite and not negative", roped.epsilon)).into());
        }
        let wanted = |what: &'static str, want: &'static str, wanted: bool, span: Option<Span<'a>>, bytes: u64| {
            if !wanted {
                return Ok(None);
            }
            let span = span.ok_or(Misuse::Null { what, want })?;
            span.expect(what, want, 16, bytes).map(|()| Some(span))
        };
        let (tokens, heads) = (call.tokens as u64, call.cache.kv_heads as u64);
        let weight = |what, wants, span| wanted(what, "one f32 a coordinate", wants, span, 4 * d as u64);
        let k_weight = weight("k_norm", rope.weights, roped.k_weight)?;
        let q_weight = weight("q_norm", rope.weights && rope.group > 0, roped.q_weight)?;
        let k_out = wanted("k_out", "room for the keys", rope.keys, roped.k_out, tokens * heads * d as u64 * elem)?;
        apart("k_out", "k", k_out, call.k.base, call.k.bytes(call.tokens, call.cache.kv_heads, d, self.elem))?;
        let q_heads = call.cache.kv_heads * rope.group;
        let q_out = wanted("q_out", "room for the queries", rope.group > 0, roped.q_out, tokens * q_heads as u64 * d as u64 * elem)?;
        if rope.group > 0 {
            let q = roped.q.ok_or(Misuse::Null { what: "q", want: "the queries" })?;
            q.check("q", [call.tokens, q_heads, d], self.elem)?;
            apart("q_out", "q", q_out, q.base, q.bytes(call.tokens, q_heads, d, self.elem))?;
        }
        Ok([k_weight, q_weight, k_out, q_out])
    }

    /// The kernel, for its attributes.
    pub fn kernel(&self) -> &Kernel {
        &self.kernel
    }
}

/// A null for what the kernel does not look at.
fn own(span: Option<Span<'_>>) -> Arg<'_> {
    Arg::Ptr(span.unwrap_or(Span::null()))
}

/// Fails unless the output begins behind the input or ends before it.
fn apart(what: &'static str, from: &str, out: Option<Span<'_>>, rows: Span<'_>, bytes: Option<u64>) -> Result<()> {
    let Some(out) = out else { return Ok(()) };
    let end = |address: u64, bytes: u64| address.saturating_add(bytes);
    let (bytes, room) = (bytes.unwrap_or(u64::MAX), if out.bytes() == u64::MAX { 1 } else { out.bytes() });
    if out.address() < end(rows.address(), bytes) && rows.address() < end(out.address(), room) {
        return Err(Misuse::Other(format!("{what} lies over {from}; give it memory of its own")).into());
    }
    Ok(())
}

/// Fails, with every reason, unless rows of `head_dim` can pass.
pub(crate) fn check_rope(rope: &Rope, head_dim: usize) -> Result<()> {
    let mut reasons = vec![];
    if !rope.dims.is_multiple_of(16) || !(16..=head_dim).contains(&rope.dims) {
        reasons.push(format!("a rotary dim of {} (served: multiples of 16 from 16 to the head dim, {head_dim})", rope.dims));
    }
    if rope.weights && !rope.norm {
        reasons.push("weights without a norm (served: a norm with or without weights, or neither)".into());
    }
    if rope.group > 64 {
        reasons.push(format!("{} query heads a kv head (served: up to 64)", rope.group));
    }
    if ![2, 4].contains(&rope.table_elem) {
        reasons.push(format!("a table of {} bytes a number (served: 2, bf16, and 4, f32)", rope.table_elem));
    }
    if reasons.is_empty() { Ok(()) } else { Err(Error::Unsupported(Reasons(reasons))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_listed() {
        let rope = Rope { dims: 72, weights: true, group: 65, ..Rope::default() };
        let text = check_rope(&rope, 64).unwrap_err().to_string();
        for part in ["rotary dim of 72", "weights without a norm", "65 query heads", "0 bytes a number"] {
            assert!(text.contains(part), "{text}");
        }
        assert!(check_rope(&Rope { dims: 64, table_elem: 2, ..Rope::default() }, 64).is_ok());
        assert!(check_rope(&Rope { dims: 0, table_elem: 2, ..Rope::default() }, 64).is_err());
    }

    #[test]
    fn an_output_over_its_input_is_refused() {
        let [rows, out] = [0x1000, 0x1800].map(|at| Span::made_up(at, 0x1000));
        assert!(apart("q_out", "q", Some(out), rows, Some(0x801)).is_err());
        assert!(apart("q_out", "q", Some(out), rows, Some(0x800)).is_ok());
        assert!(apart("q_out", "q", Some(rows), out, Some(0x1000)).is_err());
        assert!(apart("q_out", "q", Some(Span::made_up(0x1000, u64::MAX)), rows, Some(1)).is_err());
        assert!(apart("q_out", "q", None, rows, Some(0x1000)).is_ok());
    }
}
