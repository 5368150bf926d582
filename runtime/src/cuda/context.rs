//! Making a device's context current for the length of a call, and putting the caller's back.
//!
//! We live inside an engine: its threads may have another device's context current, and find it
//! current again when our call returns.

use std::marker::PhantomData;
use std::sync::Arc;

use cudarc::driver::{CudaContext, result, sys};

use super::driver::failed;
use crate::error::Result;

/// While it lives, `context` is current on this thread.
pub(super) struct Entered {
    previous: Option<sys::CUcontext>,
    // Not Send: it names a thread's state.
    _thread: PhantomData<*const ()>,
}

/// Makes `context` current until the returned guard drops; one driver query when it already is.
pub(super) fn enter(context: &Arc<CudaContext>) -> Result<Entered> {
    // cudarc keeps an error met while something was dropped and would give it to the next, unrelated call.
    let _ = context.check_err();
    let previous = current()?;
    if previous == context.cu_ctx() {
        return Ok(Entered { previous: None, _thread: PhantomData });
    }
    // SAFETY: the Arc keeps the context alive.
    unsafe { result::ctx::set_current(context.cu_ctx()) }.map_err(|e| failed("making the context current", e))?;
    Ok(Entered { previous: Some(previous), _thread: PhantomData })
}

/// Restores on drop whatever context is current now, for calls that change it themselves.
pub(super) fn remember() -> Result<Entered> {
    Ok(Entered { previous: Some(current()?), _thread: PhantomData })
}

/// The thread's current context; null if it has none.
fn current() -> Result<sys::CUcontext> {
    let current = result::ctx::get_current().map_err(|e| failed("asking for the current context", e))?;
    Ok(current.unwrap_or(std::ptr::null_mut()))
}

impl Drop for Entered {
    fn drop(&mut self) {
        if let Some(previous) = self.previous {
            // SAFETY: it was this thread's current context (or none) when the guard was made. An error
            // can only mean that its owner destroyed it meanwhile; there is nothing to restore then.
            let _ = unsafe { result::ctx::set_current(previous) };
        }
    }
}
