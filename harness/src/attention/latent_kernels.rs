//! Rows that serve all heads through the kernels: stored by one, attended to by the other, both held to the scalar reference, stored bytes
//! all of them and outputs of some queries, bit for bit.

use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;

use half::bf16;
use kernels_gen::latent::{DIM, Format, LEAF, List, Problem};
use runtime::{DecodeLatent, Device, LatentList, LatentPlan, LatentRows, Memory, StoreLatent, Stream};

use crate::error::{Error, Result};
use crate::model::v4::{Call, Place, RowKind};

/// Query heads come in so many: what a model lacks is filled up with heads of zeros.
const HEADS: usize = 64;

/// Rows of a block. Results depend on it.
const SHARE: usize = 640;

/// Queries of a call whose outputs the reference computes too.
const COMPARED: usize = 2;

/// The kernels of a format on a device.
pub struct LatentKernels {
    device: Device,
    plan: LatentPlan,
}

impl LatentKernels {
    /// None where no kernel has the format.
    pub fn of(device: &Device, format: &Format) -> Result<Option<Rc<LatentKernels>>> {
        match LatentPlan::check_format(format) {
            Err(_) => Ok(None),
            Ok(()) => Ok(Some(Rc::new(LatentKernels { device: device.clone(), plan: LatentPlan::prepare(device, format)? }))),
        }
    }
}

/// The caches of a passage.
pub struct OnDevice {
    kernels: Rc<LatentKernels>,
    stream: Stream,
    /// of a layer and a kind, and how many rows are in it
    caches: BTreeMap<(usize, RowKind), (Memory, usize)>,
    /// query rows whose outputs came from a kernel
    pub outputs: u64,
}

impl fmt::Debug for OnDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OnDevice({}, {} caches)", self.kernels.plan.format().name(), self.caches.len())
    }
}

/// A list of rows, one of a token's after another, and how many each token has.
struct Lists {
    at: Vec<i32>,
    lens: Vec<i32>,
    capacity: usize,
}

impl Lists {
    fn of(each: &[Vec<i32>]) -> Lists {
        let capacity = each.iter().map(Vec::len).max().unwrap_or(0);
        let padded = |list: &Vec<i32>| list.iter().copied().chain(std::iter::repeat(-1)).take(capacity).collect::<Vec<i32>>();
        Lists { at: each.iter().flat_map(padded).collect(), lens: each.iter().map(|list| list.len() as i32).collect(), capacity }
    }
}

impl OnDevice {
    pub fn new(kernels: &Rc<LatentKernels>) -> Result<OnDevice> {
        Ok(OnDevice { stream: kernels.device.stream()?, kernels: kernels.clone(), caches: BTreeMap::new(), outputs: 0 })
    }

    /// Stores rows behind those that are there; `wanted` are their bytes by the reference.
    pub fn store(&mut self, place: Place, rows: &[f32], wanted: &[u8]) -> Result<()> {
        let (device, stream, plan) = (&self.kernels.device, &self.stream, &self.kernels.plan);
        let (count, bytes) = (rows.len() / DIM, plan.format().row_bytes());
        if count == 0 {
            return Ok(());
        }
        let end = place.first + count;
        let key = (place.layer, place.kind);
        if self.caches.get(&key).is_none_or(|(memory, _)| memory.bytes() < end * bytes) {
            let wider = Memory::zeroed(device, end.next_power_of_two() * bytes)?;
            if let Some((old, _)) = self.caches.get(&key) {
                wider.copy_from(stream, 0, old.span())?;
                stream.synchronise()?;
            }
            self.caches.insert(key, (wider, end));
        }
        let Some((memory, held)) = self.caches.get_mut(&key) else { return Ok(()) };
        *held = end;
        let slots: Vec<i64> = (place.first..end).map(|slot| slot as i64).collect();
        let (x, slots, status) = (Memory::from_slice(device, rows)?, Memory::from_slice(device, &slots)?, Memory::zeroed(device, 16)?);
        let cache = LatentRows { base: memory.span(), rows: end };
        plan.store(stream, &StoreLatent { rows: count, x: x.span(), slots: slots.span(), cache, status: status.span() })?;
        let found: Vec<u8> = memory.download(stream, place.first * bytes, count * bytes)?;
        let flags: Vec<i32> = status.download(stream, 0, 4)?;
        match found.iter().zip(wanted).position(|(a, b)| a != b) {
            Some(at) => Err(self.differs(&format!("byte {at} of the rows that layer {} stored", place.layer))),
            None if flags[0] != 0 => Err(self.differs("a slot")),
            None => Ok(()),
        }
    }

    /// Outputs [token, head, d] of a call.
    pub fn attend(&mut self, call: &Call, group: Option<RowKind>) -> Result<Vec<f32>> {
        let (device, stream, plan) = (&self.kernels.device, &self.stream, &self.kernels.plan);
        let own = call.attention.sinks.len();
        let heads = own.next_multiple_of(HEADS);
        let window = |at: usize| ((at + 1).saturating_sub(call.attention.window) as i32..=at as i32).collect::<Vec<i32>>();
        let groups = |token: usize| match call.picks.of(token) {
            Some(chosen) => chosen.iter().map(|group| *group as i32).collect(),
            None => (0..((call.start + token + 1) / call.attention.ratio) as i32).collect::<Vec<i32>>(),
        };
        let near = Lists::of(&(call.start..call.start + call.tokens).map(window).collect::<Vec<_>>());
        let far = Lists::of(&(0..call.tokens).map(groups).collect::<Vec<_>>());
        let lens: Vec<i32> = near.lens.iter().zip(&far.lens).flat_map(|(a, b)| [*a, *b]).collect();
        let padded = |x: &[f32], fill: f32, width: usize| x.chunks(own * width).flat_map(|x| x.iter().copied().chain(std::iter::repeat_n(fill, (heads - own) * width))).collect::<Vec<f32>>();
        let q: Vec<bf16> = padded(call.q, 0.0, DIM).into_iter().map(bf16::from_f32).collect();
        let scale = (DIM as f32).sqrt().recip();
        let put = |x: &[i32]| Memory::from_slice(device, if x.is_empty() { &[0] } else { x });
        let (gq, gsinks) = (Memory::from_slice(device, &q)?, Memory::from_slice(device, &padded(&call.attention.sinks, f32::NEG_INFINITY, 1))?);
        let (gnear, gfar, glens) = (put(&near.at)?, put(&far.at)?, put(&lens)?);
        let (out, lse) = (Memory::zeroed(device, 2 * q.len())?, Memory::zeroed(device, 4 * call.tokens * heads)?);
        let none = Memory::zeroed(device, 16)?;
        let cache = |kind: Option<RowKind>| match kind.and_then(|kind| self.caches.get(&(call.layer, kind))) {
            Some((memory, held)) => LatentRows { base: memory.span(), rows: *held },
            None => LatentRows { base: none.span(), rows: 0 },
        };
        let (first, second) = (cache(Some(RowKind::Window)), cache(group));
        let mut asked = DecodeLatent {
            tokens: call.tokens,
            heads,
            q: gq.span(),
            window: LatentList { cache: first, at: gnear.span(), capacity: near.capacity },
            extra: LatentList { cache: second, at: gfar.span(), capacity: far.capacity },
            lens: glens.span(),
            sinks: gsinks.span(),
            out: out.span(),
            lse: lse.span(),
            scale,
            share: SHARE,
            workspace: none.span(),
        };
        let workspace = Memory::zeroed(device, plan.workspace_bytes(&asked)?.max(16) as usize)?;
        asked.workspace = workspace.span();
        plan.decode(stream, &asked)?;
        let found: Vec<bf16> = out.download(stream, 0, q.len())?;
        let (near_rows, far_rows) = (self.bytes(call.layer, Some(RowKind::Window))?, self.bytes(call.layer, group)?);
        // The last query of a call reads most, the first least.
        for token in [call.tokens - 1, 0].into_iter().take(COMPARED.min(call.tokens)) {
            let of = |lists: &Lists| (lists.at[token * lists.capacity..][..lists.capacity].to_vec(), [lists.lens[token]]);
            let ((near_at, near_len), (far_at, far_len)) = (of(&near), of(&far));
            let wide: Vec<f32> = q[token * heads * DIM..][..own * DIM].iter().map(|q| q.to_f32()).collect();
            let problem = Problem {
                q: &wide,
                heads: own,
                window: List { rows: &near_rows, at: &near_at, capacity: near.capacity, lens: &near_len },
                extra: List { rows: &far_rows, at: &far_at, capacity: far.capacity, lens: &far_len },
                sinks: &call.attention.sinks,
                scale,
                share: SHARE / LEAF,
            };
            let Some(integers) = plan.format().integers() else { return Err(self.differs("the format")) };
            let wanted = problem.solve(integers).0;
            if let Some(at) = wanted.iter().zip(&found[token * heads * DIM..]).position(|(a, b)| bf16::from_f32(*a) != *b) {
                return Err(self.differs(&format!("number {at} of what the query at position {} of layer {} reads", call.start + token, call.layer)));
            }
        }
        self.outputs += (call.tokens * own) as u64;
        Ok(found.chunks(heads * DIM).flat_map(|token| token[..own * DIM].iter().map(|x| x.to_f32())).collect())
    }

    fn bytes(&self, layer: usize, kind: Option<RowKind>) -> Result<Vec<u8>> {
        let Some((memory, held)) = kind.and_then(|kind| self.caches.get(&(layer, kind))) else { return Ok(Vec::new()) };
        Ok(memory.download(&self.stream, 0, held * self.kernels.plan.format().row_bytes())?)
    }

    fn differs(&self, what: &str) -> Error {
        Error::Invalid { reasons: vec![format!("{}: {what} is not the reference's", self.kernels.plan.format().name())] }
    }
}
