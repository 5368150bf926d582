//! Measures choices for one plan on this device: device events around a replayed graph, cold L2, join included.
//!
//! All cuts of the kernel at the smallest and the largest size first; the best few at every size then, with several shares
//! for a warp. What does not beat the plan's own rules by a percent is left out: spread is no gain.

use super::problem::Problem;
use super::{Choice, Entry, Point, Tuning, cut, hash};
use crate::argument::Misuse;
use crate::compile;
use crate::cuda::Device;
use crate::error::{Error, Result};
use crate::plan::{DecodePlan, DecodeSpec, kernel_name, own_meta};
use kernel_dsl::Source;
use kernels_gen::kernels::decode_attention::DecodeMeta;
use kernels_gen::kernels::{self, LEAF};

/// Warps of a block, tiles of a ring; blocks follow from the warps that a multiprocessor may hold.
const WARPS: [usize; 3] = [2, 4, 8];
const STAGES: [usize; 3] = [2, 3, 4];
const WARPS_OF_ONE: std::ops::RangeInclusive<usize> = 8..=20;
/// How many cuts are measured at every size.
const FINALISTS: usize = 3;
/// Most leaves of a warp; 0: the plan's rule.
const SHARES: [usize; 5] = [0, 1, 2, 4, 8];
/// What a choice must win.
const GAIN: f64 = 0.99;

/// A batch of equally long sequences.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Sequences.
    pub batch: usize,
    /// Tokens of each.
    pub tokens: usize,
}

/// Looks for the best choices of the decode kernel of `spec` with so many kv heads, at every size; `watch` gets a line
/// for what is being done. Calibrated codecs are not tuned.
pub fn search(device: &Device, spec: &DecodeSpec, kv_heads: usize, sizes: &[Size], watch: &mut dyn FnMut(&str)) -> Result<Tuning> {
    if spec.codec.calibrated().is_ok() {
        return Err(Misuse::Other(format!("{} is not tuned: its kernels are its layers' own; tune the codecs of its bands", spec.codec.name())).into());
    }
    let stream = device.stream()?;
    let own = own_meta(spec).within(device.shared_bytes());
    let meta = |choice: Choice| cut(own, choice, device.shared_bytes());
    let plan = |choice: Choice| {
        let meta = meta(choice).ok_or_else(|| Error::unsupported("more shared memory than the device has"))?;
        DecodePlan::with_share(device, spec, meta, choice.tokens)
    };
    let as_own = Choice::of(&own);
    let (kernel, hash) = kernel_of(device, spec)?;
    let cuts = cuts(as_own, &|choice| meta(choice).is_some());
    watch(&format!("{kernel}: compiling {} cuts", cuts.len()));
    // Their compilation is what takes longest; plans then find them in the cache.
    std::thread::scope(|s| cuts.iter().filter_map(|&c| meta(c)).for_each(|m| drop(s.spawn(move || text(spec, &m).map(|source| compile::compile(&source, device.arch()).is_ok())))));
    let mut entries = vec![];
    let mut ranks = vec![0.0; cuts.len()];
    let ends = [sizes.iter().min_by_key(|s| s.batch * s.tokens), sizes.iter().max_by_key(|s| s.batch * s.tokens)];
    for &size in ends.into_iter().flatten() {
        let problem = Problem::new(device, &stream, spec, kv_heads, size)?;
        let first = problem.us(&plan(cuts[0])?)?;
        for (rank, &cut) in ranks.iter_mut().zip(&cuts) {
            let us = plan(cut).and_then(|plan| problem.us(&plan)).unwrap_or(f64::INFINITY);
            *rank += us / first;
            watch(&format!("{kernel} {}x{}: {cut:?} {us:.1} us", size.batch, size.tokens));
        }
    }
    let mut order: Vec<usize> = (1..cuts.len()).collect();
    order.sort_by(|&a, &b| ranks[a].total_cmp(&ranks[b]));
    let finalists: Vec<Choice> = std::iter::once(0).chain(order.into_iter().take(FINALISTS)).map(|i| cuts[i]).collect();
    for &size in sizes {
        let problem = Problem::new(device, &stream, spec, kv_heads, size)?;
        let own_us = problem.us(&plan(as_own)?)?;
        let mut best = (own_us, as_own);
        for choice in finalists.iter().flat_map(|c| SHARES.map(|share| Choice { tokens: share * LEAF, ..*c })) {
            // A warp that may take more than a sequence is as one that may take all of it.
            if choice.tokens >= 2 * size.tokens.next_multiple_of(LEAF) {
                continue;
            }
            let us = plan(choice).and_then(|plan| problem.us(&plan))?;
            if us < best.0 {
                best = (us, choice);
            }
        }
        watch(&format!("{kernel} {}x{}: {own_us:.1} us by the plan's rules, {:.1} with {:?}", size.batch, size.tokens, best.0, best.1));
        if best.0 < own_us * GAIN {
            let at = Point { rows: size.batch * kv_heads, tokens: size.tokens.next_multiple_of(LEAF) };
            entries.push(Entry { kernel: kernel.clone(), hash: hash.clone(), at, choice: best.1, us: best.0, own_us });
        }
    }
    Ok(Tuning { device: device.name().to_string(), entries })
}

/// What a tuning calls the decode kernel of `spec`, and the hash of its text.
pub fn kernel_of(device: &Device, spec: &DecodeSpec) -> Result<(String, String)> {
    Ok((kernel_name(spec), hash(&text(spec, &own_meta(spec).within(device.shared_bytes()))?)))
}

fn text(spec: &DecodeSpec, m: &DecodeMeta) -> Result<Source> {
    kernels::decode_of(spec.codec.info(), m, spec.elem).map_err(|e| Error::Generate(e.to_string()))
}

/// The plan's own cut, then the others that a multiprocessor can hold.
fn cuts(own: Choice, fits: &dyn Fn(Choice) -> bool) -> Vec<Choice> {
    let all = WARPS.into_iter().flat_map(|w| STAGES.into_iter().flat_map(move |s| (1..=10).map(move |b| (w, s, b))));
    let all = all.map(|(warps, stages, min_blocks)| Choice { warps, stages, min_blocks, tokens: 0 });
    let others = all.filter(|c| WARPS_OF_ONE.contains(&(c.warps * c.min_blocks)) && *c != own && fits(*c));
    std::iter::once(own).chain(others).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use kernels_gen::kernels::Elem;

    #[test]
    fn cuts_fit_a_multiprocessor_and_begin_with_the_plans_own() {
        let of = |name: &str| {
            let spec = DecodeSpec { codec: crate::Codec::open(name).unwrap(), head_dim: 128, group: 4, page_tokens: 64, elem: Elem::Bf16, splits: 0 };
            let own = own_meta(&spec);
            (own, cuts(Choice::of(&own), &|c| cut(own, c, 227 << 10).is_some()))
        };
        let (own, all) = of("int4");
        assert_eq!((all[0], all.iter().filter(|c| **c == Choice::of(&own)).count()), (Choice::of(&own), 1));
        assert!(all.len() > 5 && all.iter().all(|c| c.min_blocks * c.warps * c.stages * own.tile_bytes < 227 << 10));
        // Large tiles: fewer.
        assert!(of("bf16").1.len() < all.len());
    }
}
