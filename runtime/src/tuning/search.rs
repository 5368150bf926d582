//! Measures choices for one plan on this device: device events around a replayed graph, cold L2, join included.
//!
//! All cuts of the kernel at the smallest and the largest size first; the best few at every size then, with several shares
//! for a warp. What does not beat the plan's own rules by a percent is left out, another cut by two: spread is no gain.

use std::fmt;

use super::problem::Problem;
use super::{Choice, Entry, Point, Tuning, cut, hash};
use crate::argument::Misuse;
use crate::cuda::{Device, Stream};
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
/// What another cut must win: it is one more kernel that plans load.
const CUT_GAIN: f64 = 0.98;

/// A batch of equally long sequences.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Sequences.
    pub batch: usize,
    /// Tokens of each.
    pub tokens: usize,
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}", self.batch, self.tokens)
    }
}

/// Looks for the best choices of the decode kernel of `spec` with so many kv heads, at every size; `watch` gets a line
/// for what is being done. Calibrated codecs are not tuned.
pub fn search(device: &Device, spec: &DecodeSpec, kv_heads: usize, sizes: &[Size], watch: &mut dyn FnMut(&str)) -> Result<Tuning> {
    if spec.codec.calibrated().is_ok() {
        return Err(Misuse::Other(format!("{} is not tuned: its plans go by their own rules", spec.codec.name())).into());
    }
    let own = own_meta(spec).within(device.shared_bytes());
    let (kernel, hash) = kernel_of(device, spec)?;
    let all = cuts(Choice::of(&own), &|choice| cut(own, choice, device.shared_bytes()).is_some());
    watch(&format!("{kernel}: compiling {} cuts", all.len()));
    let mut s = Search { device, stream: device.stream()?, spec, kv_heads, kernel, hash, cuts: prepared(device, spec, own, &all)? };
    s.keep_finalists(sizes, watch)?;
    let best = sizes.iter().map(|&size| s.best(size, watch)).collect::<Result<Vec<_>>>()?;
    Ok(Tuning { device: device.name().to_string(), entries: best.into_iter().flatten().collect() })
}

/// A plan for each cut, compiled on as many threads; the plan's own first. What the driver will not load is left out.
fn prepared(device: &Device, spec: &DecodeSpec, own: DecodeMeta, all: &[Choice]) -> Result<Vec<(Choice, DecodePlan)>> {
    let plan = |c: Choice| Some(DecodePlan::with_meta(device, spec, cut(own, c, device.shared_bytes())?));
    let mut plans: Vec<_> = std::thread::scope(|threads| {
        let jobs: Vec<_> = all.iter().map(|&c| (c, threads.spawn(move || plan(c)))).collect();
        jobs.into_iter().filter_map(|(c, job)| Some((c, job.join().ok()??))).collect()
    });
    plans.retain(|(c, plan)| *c == all[0] || plan.is_ok());
    plans.into_iter().map(|(c, plan)| Ok((c, plan?))).collect()
}

struct Search<'a> {
    device: &'a Device,
    stream: Stream,
    spec: &'a DecodeSpec,
    kv_heads: usize,
    kernel: String,
    hash: String,
    /// The plan's own first.
    cuts: Vec<(Choice, DecodePlan)>,
}

impl Search<'_> {
    fn problem(&self, size: Size) -> Result<Problem<'_>> {
        Problem::new(self.device, &self.stream, self.spec, self.kv_heads, size)
    }

    /// Leaves the plan's own cut, and the fastest others at the smallest and the largest size together.
    fn keep_finalists(&mut self, sizes: &[Size], watch: &mut dyn FnMut(&str)) -> Result<()> {
        let mut ranks = vec![0.0; self.cuts.len()];
        let ends = [sizes.iter().min_by_key(|s| s.batch * s.tokens), sizes.iter().max_by_key(|s| s.batch * s.tokens)];
        for &size in ends.into_iter().flatten() {
            let problem = self.problem(size)?;
            let first = problem.us(&self.cuts[0].1)?;
            for (rank, (cut, plan)) in ranks.iter_mut().zip(&self.cuts).skip(1) {
                // What the driver will not launch is out.
                let us = problem.us(plan).unwrap_or(f64::INFINITY);
                *rank += us / first;
                watch(&format!("{} {size}: {cut} {us:.1} us, the plan's own {first:.1}", self.kernel));
            }
        }
        let mut ranked: Vec<_> = ranks.into_iter().zip(std::mem::take(&mut self.cuts)).collect();
        ranked.sort_by(|a, b| a.0.total_cmp(&b.0));
        self.cuts = ranked.into_iter().take(1 + FINALISTS).map(|r| r.1).collect();
        Ok(())
    }

    /// The best of the finalists with every share, if it wins.
    fn best(&mut self, size: Size, watch: &mut dyn FnMut(&str)) -> Result<Option<Entry>> {
        let problem = Problem::new(self.device, &self.stream, self.spec, self.kv_heads, size)?;
        let tokens = size.tokens.next_multiple_of(LEAF);
        let own = self.cuts[0].0;
        let own_us = problem.us(&self.cuts[0].1)?;
        let mut best = (own_us, own_us, own);
        // A warp that may take more than a sequence is as one that may take all of it.
        for share in SHARES.map(|share| share * LEAF).into_iter().filter(|share| *share < 2 * tokens) {
            for (cut, plan) in &mut self.cuts {
                plan.take(share);
                let us = problem.us(plan)?;
                plan.take(0);
                let worth = if *cut == own { us } else { us / CUT_GAIN };
                best = if worth < best.0 { (worth, us, Choice { tokens: share, ..*cut }) } else { best };
            }
        }
        let (_, us, choice) = best;
        watch(&format!("{} {size}: {own_us:.1} us by the plan's rules, {us:.1} with {choice}", self.kernel));
        let at = Point { rows: size.batch * self.kv_heads, tokens };
        let entry = Entry { kernel: self.kernel.clone(), hash: self.hash.clone(), at, choice, us, own_us };
        Ok((us < own_us * GAIN).then_some(entry))
    }
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
