//! Norm and RoPE in front of a store, over the C ABI.
#![allow(unsafe_code)]

use std::ffi::c_void;

use kernels_gen::kernels::Elem;
use kernels_gen::kernels::rope::Rope;
use kernels_gen::reference::{CacheShape, RopeTable, Status};

use crate::argument::{Misuse, agree, within};
use crate::calibration::Layer;
use crate::cuda::Stream;
use crate::error::Result;
use crate::ffi_plan::{rows, unknown};
use crate::ffi_plan_parts::Plan;
use crate::ffi_reference::{address, gather, numbers_of, values, write_numbers};
use crate::ffi_struct::{RopeArgs, StoreArgs, count, read};
use crate::plan::{Roped, Rows, Store, check_rope};

/// `KVF_ROPE_*`.
const INTERLEAVED: i32 = 1;
const NORM: i32 = 2;
const WEIGHTS: i32 = 4;
const BF16: i32 = 8;
const QUERIES: i32 = 16;
const KEYS_OUT: i32 = 32;

/// What a plan or a call asks for, of `group` query heads a kv head.
pub(crate) fn of_desc(rotary_dim: i32, flags: i32, group: usize) -> Result<Rope> {
    if flags & !(INTERLEAVED | NORM | WEIGHTS | BF16 | QUERIES | KEYS_OUT) != 0 {
        return Err(Misuse::Range { what: "the flags of rope", value: i64::from(flags), allowed: "a sum of KVF_ROPE_*, below 64".into() }.into());
    }
    let has = |flag| flags & flag != 0;
    Ok(Rope { dims: count("rotary_dim", rotary_dim)?, pairs: has(INTERLEAVED), norm: has(NORM), weights: has(WEIGHTS), table_elem: if has(BF16) { 2 } else { 4 }, group: if has(QUERIES) { group } else { 0 }, keys: has(KEYS_OUT) })
}

/// # Safety
/// `args.rope` is null or a filled `kvf_rope`.
pub(crate) unsafe fn rope_of(args: &StoreArgs) -> Result<Option<RopeArgs>> {
    if args.rope.is_null() {
        return Ok(None);
    }
    // SAFETY: the caller's promise.
    unsafe { read(args.rope) }.map(Some)
}

/// Query heads of a kv head that a call gives; 0 where it gives none.
fn group_of(args: &RopeArgs, kv_heads: usize) -> Result<usize> {
    if args.flags & QUERIES == 0 {
        return Ok(0);
    }
    let heads = count("heads", args.heads)?;
    within("heads", heads, kv_heads, 65535)?;
    if !heads.is_multiple_of(kv_heads) {
        return Err(Misuse::Other(format!("{heads} heads do not share {kv_heads} kv_heads evenly; heads must be a multiple of kv_heads")).into());
    }
    Ok(heads / kv_heads)
}

impl Plan {
    /// What `kvf_store` enqueues for keys as projections leave them.
    pub fn enqueue_rope(&self, call: &Store<'_>, args: &StoreArgs, rope: &RopeArgs, layer: Option<Layer<'_>>, stream: &Stream) -> Result<()> {
        let none = || Misuse::Other("this plan knows no rope; create it with KVF_PLAN_ROPE, or leave rope null".into());
        let plan = self.rope.as_ref().ok_or_else(none)?;
        let own = of_desc(rope.rotary_dim, rope.flags, group_of(rope, self.kv_heads)?)?;
        agree("rotary_dim", own.dims, plan.rope().dims, "plan")?;
        agree("heads", own.group * self.kv_heads, plan.rope().group * self.kv_heads, "plan")?;
        if own != *plan.rope() {
            return Err(Misuse::Other(format!("the flags of rope are {} and others in the plan; make them agree", rope.flags)).into());
        }
        let roped = Roped {
            positions: unknown(args.positions),
            table: unknown(rope.cos_sin),
            turns: count("the positions of cos_sin", rope.positions)?,
            epsilon: rope.epsilon,
            k_weight: Some(unknown(rope.k_norm)),
            q_weight: Some(unknown(rope.q_norm)),
            q: Some(rows(rope.q, rope.q_token_stride, rope.q_head_stride)),
            q_out: Some(unknown(rope.q_out)),
            k_out: Some(unknown(rope.k_out)),
        };
        if call.tokens > 0 {
            let weights = own.weights.then_some([("k_norm", unknown(rope.k_norm))]).into_iter().flatten();
            let queries = (own.group > 0).then_some([("q", unknown(rope.q)), ("q_out", unknown(rope.q_out))]).into_iter().flatten();
            let keys = own.keys.then_some([("k_out", unknown(rope.k_out))]).into_iter().flatten();
            self.expect_device([("positions", roped.positions), ("cos_sin", roped.table)].into_iter().chain(weights).chain(queries).chain(keys))?;
        }
        plan.launch(stream, call, &roped, layer)
    }
}

/// Keys as they are coded, the slots of those whose position the table holds, and whether there are others; what is wanted
/// back is written.
///
/// # Safety
/// As for [`crate::ffi_reference::kvf_ref_store`].
pub(crate) unsafe fn turn_on_host(args: &StoreArgs, rope: &RopeArgs, elem: Elem, tokens: usize, shape: &CacheShape, k: &[f32], slots: Vec<i64>) -> Result<(Vec<f32>, Vec<i64>, Status)> {
    let own = of_desc(rope.rotary_dim, rope.flags, group_of(rope, shape.kv_heads)?)?;
    check_rope(&own, shape.d)?;
    let turns = count("the positions of cos_sin", rope.positions)?;
    within("the positions of cos_sin", turns, 1, i32::MAX as usize)?;
    if own.norm && !(rope.epsilon.is_finite() && rope.epsilon >= 0.0) {
        return Err(Misuse::Other(format!("epsilon is {}; it must be finite and not negative", rope.epsilon)).into());
    }
    // SAFETY: the caller's promise, for each of these and what follows.
    let positions = unsafe { values("positions", args.positions, tokens) }?;
    let of_table = if own.table_elem == 2 { Elem::Bf16 } else { Elem::F32 };
    // SAFETY: likewise.
    let table = unsafe { numbers_of("cos_sin", rope.cos_sin, of_table, turns * own.dims) }?;
    // SAFETY: likewise.
    let weight = |what, from| if own.weights { unsafe { values(what, from, shape.d) } } else { Ok(vec![]) };
    let of = RopeTable { rope: own, table: &table, epsilon: rope.epsilon };
    let k_weight = weight("k_norm", rope.k_norm)?;
    if own.keys {
        // SAFETY: likewise.
        unsafe { write_numbers("k_out", rope.k_out, elem, &of.given(k, shape.d, &k_weight, &positions)) }?;
    }
    if own.group > 0 {
        let q_weight = weight("q_norm", rope.q_norm)?;
        let heads = CacheShape { kv_heads: shape.kv_heads * own.group, ..*shape };
        let strided = Rows { base: address(rope.q), token_stride: rope.q_token_stride, head_stride: rope.q_head_stride };
        // SAFETY: likewise.
        let q = unsafe { gather("q", &strided, elem, tokens, &heads) }?;
        // SAFETY: likewise.
        unsafe { write_numbers("q_out", rope.q_out as *mut c_void, elem, &of.given(&q, shape.d, &q_weight, &positions)) }?;
    }
    let mut status = Status::OK;
    let past = (shape.pages * shape.page_tokens) as i64;
    let mut at = |(slot, position): (i64, &i32)| {
        // A slot past the cache is reported as such.
        if of.knows(*position) || slot < 0 || slot >= past {
            return slot;
        }
        status.set(Status::BAD_LENGTH);
        -1
    };
    let slots = slots.into_iter().zip(&positions).map(&mut at).collect();
    let places: Vec<usize> = positions.iter().map(|p| if of.knows(*p) { *p as usize } else { 0 }).collect();
    Ok((of.rows(k, shape.d, &k_weight, &places), slots, status))
}
