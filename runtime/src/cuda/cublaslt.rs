//! Products of f32 matrices by cuBLASLt, loaded when first asked for.
//!
//! The file is found as NVRTC's is and opened by us; cudarc's own search then meets the library that is already
//! there. Sums are f32 (no TF32). Products with matrices of one shape take one algorithm, however many rows the left side
//! has: a row then has the same bits whether it comes alone or among others.

use std::collections::HashMap;
use std::ffi::c_void;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use cudarc::cublaslt::{result, sys};
use cudarc::driver::CudaContext;
use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};

use super::context::enter;
use super::device::Device;
use super::memory::{Memory, Span};
use super::stream::Stream;
use crate::argument::product;
use crate::error::{Error, Result};
use crate::nvrtc::{CUBLASLT, Candidate, candidates_of};

/// What an algorithm may use beside its operands.
const WORKSPACE: usize = 32 << 20;

/// Rows of the left side that algorithms are chosen for.
const ROWS: usize = 2048;

/// cuBLASLt on one device. Launches are asynchronous; one stream at a time may use it, because of its workspace.
pub struct Products {
    context: Arc<CudaContext>,
    handle: sys::cublasLtHandle_t,
    workspace: Memory,
    plans: Mutex<HashMap<[usize; 3], Plan>>,
}

// SAFETY: a cuBLASLt handle may be used from any thread; the rest is locked or constant.
unsafe impl Send for Products {}
// SAFETY: likewise.
unsafe impl Sync for Products {}

/// How a product of one shape is done.
struct Plan {
    describe: sys::cublasLtMatmulDesc_t,
    /// of the right side, the left side, the result
    layouts: [sys::cublasLtMatrixLayout_t; 3],
    algorithm: sys::cublasLtMatmulAlgo_t,
}

impl Products {
    /// Loads the library and makes a handle; fails with the places that were searched.
    pub fn open(device: &Device) -> Result<Products> {
        load()?;
        let _here = device.enter()?;
        let handle = result::create_handle().map_err(|e| refused("making a handle", e))?;
        let workspace = Memory::zeroed(device, WORKSPACE)?;
        Ok(Products { context: device.context().clone(), handle, workspace, plans: Mutex::default() })
    }

    /// The library's version as (major, minor).
    pub fn version(&self) -> (usize, usize) {
        // SAFETY: the library is loaded.
        let version = unsafe { sys::cublasLtGetVersion() };
        (version / 10_000, version % 10_000 / 100)
    }

    /// Enqueues `out = a b^T`, or `out += a b^T` if `add`: a is `[m, k]`, b `[n, k]`, out `[m, n]`, all row major.
    pub fn launch(&self, stream: &Stream, [a, b, out]: [Span<'_>; 3], [m, n, k]: [usize; 3], add: bool) -> Result<()> {
        let bytes = |rows, columns| product("a matrix", &[rows, columns, 4]);
        a.expect("a", "the left matrix", 16, bytes(m, k)?)?;
        b.expect("b", "the right matrix", 16, bytes(n, k)?)?;
        out.expect("out", "the product", 16, bytes(m, n)?)?;
        let _here = enter(&self.context)?;
        let mut plans = self.plans.lock().unwrap_or_else(PoisonError::into_inner);
        for rows in [ROWS, m] {
            if !plans.contains_key(&[rows, n, k]) {
                let chosen = plans.get(&[ROWS, n, k]).map(|plan| plan.algorithm);
                plans.insert([rows, n, k], self.plan([rows, n, k], chosen)?);
            }
        }
        let plan = &plans[&[m, n, k]];
        let (alpha, beta) = (1.0_f32, if add { 1.0_f32 } else { 0.0_f32 });
        let pointer = |span: Span<'_>| span.address() as *mut c_void;
        // SAFETY: handle and plan are live; the spans hold the matrices that the layouts describe; the workspace has
        // the size that the algorithm was chosen for; the scalars are read before the call returns.
        unsafe {
            result::matmul(
                self.handle,
                plan.describe,
                (&raw const alpha).cast(),
                (&raw const beta).cast(),
                pointer(b),
                plan.layouts[0],
                pointer(a),
                plan.layouts[1],
                pointer(out),
                plan.layouts[2],
                pointer(out),
                plan.layouts[2],
                &plan.algorithm,
                pointer(self.workspace.span()),
                WORKSPACE,
                stream.handle().cast(),
            )
        }
        .map_err(|e| refused(&format!("multiplying [{m}, {k}] by [{n}, {k}]"), e))
    }

    /// cuBLASLt counts in columns: row-major `out [m, n]` is its `[n, m] = b a^T`, with b transposed. Takes the algorithm
    /// that was `chosen` if it can do this shape.
    fn plan(&self, [m, n, k]: [usize; 3], chosen: Option<sys::cublasLtMatmulAlgo_t>) -> Result<Plan> {
        let failed = |e| refused(&format!("planning a product of [{m}, {k}] by [{n}, {k}]"), e);
        let float = sys::cudaDataType::CUDA_R_32F;
        let describe = result::create_matmul_desc(sys::cublasComputeType_t::CUBLAS_COMPUTE_32F, float).map_err(failed)?;
        let layout = |rows: usize, columns: usize| result::create_matrix_layout(float, rows as u64, columns as u64, rows as i64).map_err(failed);
        let layouts = [layout(k, n)?, layout(k, m)?, layout(n, m)?];
        let (transposed, attribute) = (1_i32, sys::cublasLtMatmulDescAttributes_t::CUBLASLT_MATMUL_DESC_TRANSA);
        // SAFETY: the description was just made; the attribute is an int.
        unsafe { result::set_matmul_desc_attribute(describe, attribute, (&raw const transposed).cast(), 4) }.map_err(failed)?;
        let known = chosen.filter(|algorithm| self.serves(describe, layouts, algorithm));
        let algorithm = known.map_or_else(|| self.best(describe, layouts).map_err(failed), Ok)?;
        Ok(Plan { describe, layouts, algorithm })
    }

    fn serves(&self, describe: sys::cublasLtMatmulDesc_t, [b, a, out]: [sys::cublasLtMatrixLayout_t; 3], algorithm: &sys::cublasLtMatmulAlgo_t) -> bool {
        let mut found = std::mem::MaybeUninit::<sys::cublasLtMatmulHeuristicResult_t>::zeroed();
        // SAFETY: all objects are live; the result is written where the status says so, and is plain data.
        let (status, found) = unsafe {
            let status = sys::cublasLtMatmulAlgoCheck(self.handle, describe, b, a, out, out, algorithm, found.as_mut_ptr());
            (status, found.assume_init())
        };
        status == sys::cublasStatus_t::CUBLAS_STATUS_SUCCESS && found.workspaceSize <= WORKSPACE
    }

    /// What the library itself would take.
    fn best(&self, describe: sys::cublasLtMatmulDesc_t, [b, a, out]: [sys::cublasLtMatrixLayout_t; 3]) -> std::result::Result<sys::cublasLtMatmulAlgo_t, result::CublasError> {
        let (wish, workspace) = (result::create_matmul_pref()?, WORKSPACE);
        let space = sys::cublasLtMatmulPreferenceAttributes_t::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES;
        // SAFETY: all objects are live; the attribute is a size_t; the preference was made above and is destroyed once.
        unsafe {
            let found = result::set_matmul_pref_attribute(wish, space, (&raw const workspace).cast(), 8).and_then(|()| result::get_matmul_algo_heuristic(self.handle, describe, b, a, out, out, wish));
            let _ = result::destroy_matmul_pref(wish);
            Ok(found?.algo)
        }
    }
}

impl Drop for Products {
    fn drop(&mut self) {
        let _here = enter(&self.context);
        let plans = std::mem::take(self.plans.get_mut().unwrap_or_else(PoisonError::into_inner));
        // SAFETY: all were made by us and are destroyed once.
        unsafe {
            for plan in plans.into_values() {
                let _ = result::destroy_matmul_desc(plan.describe);
                for layout in plan.layouts {
                    let _ = result::destroy_matrix_layout(layout);
                }
            }
            let _ = result::destroy_handle(self.handle);
        }
    }
}

/// Opens the first file that loads; cudarc panics where there is none.
fn load() -> Result<()> {
    static LOADED: Mutex<bool> = Mutex::new(false);
    let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    if !*loaded {
        let places = candidates_of(&CUBLASLT, &|name| std::env::var_os(name));
        open_first(&places)?;
        // SAFETY: only opens and closes the library.
        if !unsafe { sys::is_culib_present() } {
            return Err(missing(&places));
        }
        *loaded = true;
    }
    Ok(())
}

fn open_first(places: &[Candidate]) -> Result<()> {
    for place in places {
        // SAFETY: the library's initialisers have no precondition. Global, so that a later search by name finds it.
        match unsafe { Library::open(Some(&place.file), RTLD_NOW | RTLD_GLOBAL) } {
            Ok(library) => {
                std::mem::forget(library);
                return Ok(());
            }
            Err(why) if place.named => {
                return Err(Error::unsupported(format!("{} does not load as cuBLASLt: {why}", place.file.display())));
            }
            Err(_) => {}
        }
    }
    Err(missing(places))
}

fn missing(places: &[Candidate]) -> Error {
    let is_path = |file: &&Path| file.components().count() > 1;
    let files = places.iter().map(|place| place.file.as_path()).filter(is_path);
    let looked: String = files.map(|file| format!(", {}", file.display())).collect();
    Error::unsupported(format!(
        "no libcublasLt found: install it (pip install nvidia-cublas) or set KVF_CUBLASLT to the file; \
         looked at the loader's path{looked}"
    ))
}

fn refused(doing: &str, error: result::CublasError) -> Error {
    Error::unsupported(format!("cuBLASLt, while {doing}: {error}"))
}
