//! The builder that the macros call: it runs the device half of a function and records tile IR.
//!
//! The first fault is kept with its Rust line; building goes on with poison values, so that nothing
//! panics and the user sees the mistake that came first.

mod control;
mod kept;
mod memory;
mod product;
mod ring;
mod scalar;
mod tile;
mod value;

pub use value::{Arguments, DeviceStruct, Konst, V, device_struct};

use crate::dtype::DType;
use crate::ir::*;
use crate::report::{Fault, Report};
use std::cell::{Cell, RefCell};

/// State of one kernel being built.
pub struct B {
    program: RefCell<Program>,
    regions: RefCell<Vec<Vec<Stmt>>>,
    span: Cell<Span>,
    fault: RefCell<Option<Report>>,
    /// Depth of warp- and block-parallel loops around the current statement.
    in_warps: Cell<bool>,
    in_threads: Cell<bool>,
    /// Inside an `if` whose condition differs by element.
    by_element: Cell<bool>,
    /// Names of the device functions being built.
    calls: RefCell<Vec<String>>,
}

/// Calls inside calls: more are taken for a function that calls itself.
const MAX_DEPTH: usize = 64;

impl B {
    pub fn new(name: &str, warps: usize, min_blocks: usize) -> B {
        let program = Program { name: name.into(), warps, min_blocks, ..Program::default() };
        B {
            program: RefCell::new(program),
            regions: RefCell::new(vec![Vec::new()]),
            span: Cell::new(Span { file: "", line: 0 }),
            fault: RefCell::new(None),
            in_warps: Cell::new(false),
            in_threads: Cell::new(false),
            by_element: Cell::new(false),
            calls: RefCell::new(vec![]),
        }
    }

    /// Sets the Rust position of what follows.
    pub fn at(&self, file: &'static str, line: u32) {
        self.span.set(Span { file, line });
    }

    /// A call of a device function; what follows it belongs to the caller's line again.
    pub fn call(&self, name: &str, f: impl FnOnce() -> V) -> V {
        // Kernels hold thousands of calls: all but `f` itself is compiled once.
        let span = self.span.get();
        let out = if self.enter(name) { f() } else { V::Poison };
        self.leave(span);
        out
    }

    /// False if calls are too deep.
    fn enter(&self, name: &str) -> bool {
        self.calls.borrow_mut().push(name.into());
        let deep = self.calls.borrow().len() > MAX_DEPTH;
        if deep {
            self.fail(Fault::Recursion { circle: self.circle() });
        }
        !deep
    }

    fn leave(&self, span: Span) {
        self.span.set(span);
        self.calls.borrow_mut().pop();
    }

    /// From the last call back to the one of the same name before it.
    fn circle(&self) -> String {
        let calls = self.calls.borrow();
        let Some((last, before)) = calls.split_last() else { return String::new() };
        let from = before.iter().rposition(|c| c == last).unwrap_or(0);
        calls[from..].iter().map(|c| format!("`{c}`")).collect::<Vec<_>>().join(" → ")
    }

    /// Keeps the first fault and gives a poison value.
    pub fn fail(&self, what: Fault) -> V {
        let mut slot = self.fault.borrow_mut();
        if slot.is_none() {
            *slot = Some(Report { what, span: Some(self.span.get()) });
        }
        V::Poison
    }

    pub fn buffer(&self, name: &str, dtype: DType, writable: bool) -> V {
        let mut p = self.program.borrow_mut();
        p.params.push(Param::Buffer { name: name.into(), dtype, writable });
        V::Buf(Buf::Param(p.params.len() - 1), dtype)
    }

    pub fn scalar_param(&self, name: &str, dtype: DType) -> V {
        let mut p = self.program.borrow_mut();
        let id = p.fresh(Ty::Scalar(dtype));
        p.params.push(Param::Scalar { name: name.into(), dtype, id });
        V::S(id)
    }

    /// Ends the kernel: the tile IR, or the first fault.
    pub fn finish(self) -> Result<Program, Report> {
        if let Some(r) = self.fault.into_inner() {
            return Err(r);
        }
        let mut p = self.program.into_inner();
        p.body = self.regions.into_inner().pop().unwrap_or_default();
        crate::ir::verify::tile(&p)?;
        Ok(p)
    }

    pub(crate) fn ty(&self, id: Id) -> Ty {
        self.program.borrow().ty(id)
    }

    pub(crate) fn push(&self, op: Op, outs: Vec<Id>) {
        let span = self.span.get();
        if let Some(r) = self.regions.borrow_mut().last_mut() {
            r.push(Stmt { op, outs, span });
        }
    }

    pub(crate) fn emit(&self, op: Op, ty: Ty) -> V {
        if let Some(wants) = unfit(ty) {
            return self.fail(Fault::TileSize { tile: self.describe(ty), wants });
        }
        let id = self.program.borrow_mut().fresh(ty);
        self.push(op, vec![id]);
        V::S(id)
    }

    /// Records the statements of `f` apart from the current region, and comes back to the current line.
    pub(crate) fn region<T>(&self, f: impl FnOnce() -> T) -> (Vec<Stmt>, T) {
        let span = self.span.get();
        self.regions.borrow_mut().push(Vec::new());
        let out = f();
        self.span.set(span);
        (self.regions.borrow_mut().pop().unwrap_or_default(), out)
    }

    pub(crate) fn append(&self, stmts: Vec<Stmt>) {
        if let Some(r) = self.regions.borrow_mut().last_mut() {
            r.extend(stmts);
        }
    }

    /// Builds a device function of `params` words apart from the kernel's body; gives its index.
    pub(crate) fn func(&self, name: &str, params: usize, results: usize, f: &dyn Fn(&B, Vec<V>) -> V) -> usize {
        let ids: Vec<Id> = (0..params).map(|_| self.program.borrow_mut().fresh(Ty::Scalar(DType::U32))).collect();
        let arg = V::Array(ids.iter().map(|&i| V::S(i)).collect());
        let (body, out) = self.region(|| {
            let out = f(self, vec![arg]);
            match self.get(&out) {
                V::Array(items) | V::Tuple(items) => items.iter().take(results).map(|v| self.id_of(v, DType::U32)).collect(),
                v => vec![self.id_of(&v, DType::U32)],
            }
        });
        let mut p = self.program.borrow_mut();
        let taken = p.funcs.iter().any(|f| f.name == name);
        let name = if taken { format!("{name}_{}", p.funcs.len()) } else { name.to_string() };
        p.funcs.push(Func { name, params: ids, body, results: out });
        p.funcs.len() - 1
    }
}

/// What a tile's sizes should be, if they do not fill the registers of a warp.
fn unfit(ty: Ty) -> Option<&'static str> {
    let Ty::Tile { dtype, rows, cols, layout } = ty else { return None };
    // A lane reads its quarter of a row 8 bytes or a multiple of 16 at a time.
    let run = |k: usize| k > 0 && (k * dtype.size() == 32 || (k * dtype.size()) % 64 == 0);
    let each = |n: usize, by: usize| n > 0 && n % by == 0;
    match layout {
        Layout::MmaA if !each(rows, 16) || !run(cols) => Some("m a multiple of 16, k 32 bytes or a multiple of 64"),
        Layout::MmaB if !each(cols, 8) || !run(rows) => Some("n a multiple of 8, k 32 bytes or a multiple of 64"),
        Layout::MmaC if !(rows == 8 || each(rows, 16)) || !each(cols, 8) => Some("its rows 8 or a multiple of 16, its columns a multiple of 8"),
        Layout::Rows if !(rows == 8 || each(rows, 16)) => Some("its rows 8 or a multiple of 16"),
        Layout::Cols if !each(cols, 8) => Some("its columns a multiple of 8"),
        Layout::Row if !each(cols, 32) => Some("its length a multiple of 32"),
        _ => None,
    }
}
