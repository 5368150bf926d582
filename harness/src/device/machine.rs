//! What the forward pass launches: products and kernels by name, on one stream. Kernels are made when first asked for.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use kernel_dsl::{Report, Source};
use kernels_gen::kernels::forward::attention::AttentionMeta;
use kernels_gen::kernels::forward::distances::{BYTES, ROWS};
use kernels_gen::kernels::forward::heads::HeadsMeta;
use kernels_gen::kernels::forward::scores::NUMBERS;
use kernels_gen::kernels::forward::{self, THREADS, WARPS};
use runtime::{Arg, Backs, Calibration, Device, Kernel, Memory, Products, Span, Stream};

use super::plans::Plans;
use super::tile_plans::TilePlans;
use crate::attention::{Fitted, Geometry};
use crate::error::Result;

pub struct Machine {
    pub device: Device,
    pub stream: Stream,
    products: Products,
    kernels: RefCell<HashMap<String, Arc<Kernel>>>,
    /// of codecs, by the name asked for and the bands
    pub(super) plans: RefCell<HashMap<[&'static str; 2], Rc<Plans>>>,
    /// of codecs of whole tiles
    pub(super) tiles: RefCell<HashMap<&'static str, Rc<TilePlans>>>,
    /// of calibrated codecs, by where they lie for the rest of the program
    pub(super) calibrations: RefCell<HashMap<*const Fitted, Rc<Calibration>>>,
    pub(super) backs: RefCell<HashMap<*const Fitted, Rc<Backs>>>,
    /// memory that is used within one call, by what it is for
    scratch: RefCell<HashMap<&'static str, Rc<Memory>>>,
}

impl Machine {
    /// Fails where cuBLASLt is missing.
    pub fn open(device: &Device) -> Result<Machine> {
        Ok(Machine {
            device: device.clone(),
            stream: device.stream()?,
            products: Products::open(device)?,
            kernels: RefCell::default(),
            plans: RefCell::default(),
            tiles: RefCell::default(),
            calibrations: RefCell::default(),
            backs: RefCell::default(),
            scratch: RefCell::default(),
        })
    }

    /// One line for the report.
    pub fn name(&self) -> String {
        let (major, minor) = self.products.version();
        format!("forward on the gpu, f32, cuBLASLt {major}.{minor}")
    }

    /// At least `bytes` bytes for `what`, the same ones at every call.
    pub fn scratch(&self, what: &'static str, bytes: usize) -> Result<Rc<Memory>> {
        let mut all = self.scratch.borrow_mut();
        if let Some(memory) = all.get(what).filter(|memory| memory.bytes() >= bytes) {
            return Ok(memory.clone());
        }
        // Work that uses the old memory ends before it is freed: dropping waits for the device.
        all.remove(what);
        let memory = Rc::new(Memory::zeroed(&self.device, bytes)?);
        all.insert(what, memory.clone());
        Ok(memory)
    }

    pub fn floats(&self, values: &[f32]) -> Result<Memory> {
        Ok(Memory::from_slice(&self.device, values)?)
    }

    /// `out = a b^T`, or added to `out`.
    pub fn product(&self, matrices: [Span; 3], sizes: [usize; 3], add: bool) -> Result<()> {
        Ok(self.products.launch(&self.stream, matrices, sizes, add)?)
    }

    pub fn norm(&self, [x, weight, out]: [Span; 3], rows: usize, width: usize, epsilon: f32) -> Result<()> {
        let args = [Arg::Ptr(x), Arg::Ptr(weight), Arg::Ptr(out), Arg::I32(rows as i32), Arg::F32(epsilon)];
        self.launch("norm", &width, || forward::norm(width), [rows.div_ceil(WARPS), 1, 1], &args)
    }

    /// `x` is [tokens, all heads, d]; then bias, norms, turns, and where q, k and v go.
    pub fn heads(&self, m: &HeadsMeta, spans: [Span; 7], tokens: usize, start: usize, epsilon: f32) -> Result<()> {
        let mut args: Vec<Arg> = spans.into_iter().map(Arg::Ptr).collect();
        args.extend([Arg::I32(start as i32), Arg::F32(epsilon)]);
        self.launch("heads", m, || forward::heads(m), [tokens, 1, 1], &args)
    }

    pub fn gate(&self, [x, out]: [Span; 2], rows: usize, width: usize) -> Result<()> {
        let grid = [rows, width.div_ceil(THREADS), 1];
        self.launch("gate", &width, || forward::gate(width), grid, &[Arg::Ptr(x), Arg::Ptr(out)])
    }

    pub fn shift(&self, [x, by]: [Span; 2], rows: usize, width: usize) -> Result<()> {
        let grid = [rows, width.div_ceil(THREADS), 1];
        self.launch("shift", &width, || forward::shift(width), grid, &[Arg::Ptr(x), Arg::Ptr(by)])
    }

    /// q, k, v, positions, out; `keys` of a tile decide the order of sums.
    pub fn attention(&self, geometry: &Geometry, keys: usize, spans: [Span; 5], queries: usize) -> Result<()> {
        let Geometry { heads, kv_heads, d, scale, .. } = *geometry;
        let m = AttentionMeta::of(d, heads / kv_heads, keys, self.device.shared_bytes());
        let mut args: Vec<Arg> = spans.into_iter().map(Arg::Ptr).collect();
        let factor = (f64::from(scale) * std::f64::consts::LOG2_E) as f32;
        args.extend([Arg::I32(queries as i32), Arg::I32(kv_heads as i32), Arg::F32(factor)]);
        self.launch("attention", &m, || forward::attention(&m), [m.blocks(queries), kv_heads, 1], &args)
    }

    /// Rows to their places, or from them.
    pub fn scatter(&self, [x, places, out]: [Span; 3], rows: usize, width: usize) -> Result<()> {
        let args = [x, places, out].map(Arg::Ptr);
        self.launch("scatter", &width, || forward::scatter(width), [rows, 1, 1], &args)
    }

    pub fn gather(&self, [x, places, out]: [Span; 3], rows: usize, width: usize) -> Result<()> {
        let args = [x, places, out].map(Arg::Ptr);
        self.launch("gather", &width, || forward::gather(width), [rows, 1, 1], &args)
    }

    pub fn reorder(&self, [x, from, out]: [Span; 3], rows: usize, width: usize) -> Result<()> {
        let args = [x, from, out].map(Arg::Ptr);
        self.launch("reorder", &width, || forward::reorder(width), [rows, 1, 1], &args)
    }

    /// Rows, what they became, and the sums of `Compared`.
    pub fn distances(&self, [x, y, out]: [Span; 3], rows: usize, d: usize) -> Result<()> {
        let args = [Arg::Ptr(x), Arg::Ptr(y), Arg::Ptr(out), Arg::I32(rows as i32)];
        self.launch("distances", &d, || forward::distances(d), [rows.div_ceil(ROWS), 1, 1], &args)
    }

    /// Bytes that two memories have in common, counted by blocks of `BYTES`.
    pub fn same_bytes(&self, [a, b, out]: [Span; 3], bytes: usize) -> Result<()> {
        let args = [Arg::Ptr(a), Arg::Ptr(b), Arg::Ptr(out), Arg::I32((bytes / 4) as i32)];
        self.launch("same_bytes", &(), forward::same_bytes, [bytes.div_ceil(BYTES), 1, 1], &args)
    }

    /// `NUMBERS` numbers a position of two models' logits.
    pub fn scores(&self, [base, coded, gold]: [Span; 3], positions: usize, vocab: usize) -> Result<Vec<f32>> {
        let out = self.scratch("scores", 4 * NUMBERS * positions)?;
        let args = [Arg::Ptr(base), Arg::Ptr(coded), Arg::Ptr(gold), Arg::Ptr(out.span()), Arg::I32(vocab as i32)];
        self.launch("scores", &(), forward::scores, [positions, 1, 1], &args)?;
        Ok(out.download(&self.stream, 0, NUMBERS * positions)?)
    }

    fn launch(&self, name: &str, shape: &impl std::fmt::Debug, make: impl FnOnce() -> std::result::Result<Source, Report>, grid: [usize; 3], args: &[Arg]) -> Result<()> {
        let key = format!("{name} {shape:?}");
        let known = self.kernels.borrow().get(&key).cloned();
        let kernel = match known {
            Some(kernel) => kernel,
            None => {
                let kernel = self.device.kernel(&make()?)?;
                self.kernels.borrow_mut().insert(key, kernel.clone());
                kernel
            }
        };
        Ok(kernel.launch(&self.stream, grid.map(|n| n as u32), args)?)
    }
}
