//! A stream: our own, or one an engine lends for the length of a call.

use std::ffi::c_void;
use std::fmt;
use std::sync::Arc;

use cudarc::driver::{CudaContext, CudaStream, result, sys};

use super::context::{Entered, enter};
use super::device::Device;
use super::driver::failed;
use crate::error::Result;

/// Where work is enqueued. Everything this crate launches is asynchronous with respect to the host.
pub struct Stream {
    context: Arc<CudaContext>,
    raw: sys::CUstream,
    // Keeps a stream of our own alive; a borrowed one has none and costs no allocation.
    owned: Option<Arc<CudaStream>>,
}

// SAFETY: the driver's stream handles may be used from any thread.
unsafe impl Send for Stream {}
// SAFETY: the driver serialises what threads enqueue on one stream.
unsafe impl Sync for Stream {}

impl Stream {
    pub(super) fn create(context: &Arc<CudaContext>) -> Result<Self> {
        let _here = enter(context)?;
        let owned = context.new_stream().map_err(|e| failed("creating a stream", e))?;
        Ok(Stream { context: context.clone(), raw: owned.cu_stream(), owned: Some(owned) })
    }

    /// A caller's stream: a CUstream or cudaStream_t, null for the legacy default stream.
    /// Dropping the result leaves the stream alone.
    ///
    /// # Safety
    /// `raw` is null, a special handle of CUDA, or a live stream of the device's primary context, and
    /// stays so while the result lives.
    pub unsafe fn borrow(device: &Device, raw: *mut c_void) -> Self {
        Stream { context: device.context().clone(), raw: raw.cast(), owned: None }
    }

    /// The CUstream, to hand to other libraries; it stays this object's.
    pub fn handle(&self) -> *mut c_void {
        self.raw.cast()
    }

    /// Waits until everything enqueued so far has run.
    pub fn synchronise(&self) -> Result<()> {
        let _here = self.enter()?;
        // SAFETY: the stream is live: ours while `owned` is, else by `borrow`'s contract.
        unsafe { result::stream::synchronize(self.raw) }.map_err(|e| failed("waiting for a stream", e))
    }

    pub(super) fn enter(&self) -> Result<Entered> {
        enter(&self.context)
    }

    pub(super) fn context(&self) -> &Arc<CudaContext> {
        &self.context
    }

    pub(super) fn raw(&self) -> sys::CUstream {
        self.raw
    }

    /// The stream in cudarc's form, for events and captures.
    pub(super) fn wrapped(&self) -> Arc<CudaStream> {
        match &self.owned {
            Some(stream) => stream.clone(),
            // SAFETY: live by `borrow`'s contract; the wrapper does not destroy it.
            None => unsafe { self.context.wrap_borrowed_stream(self.raw) },
        }
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Stream({:?}, {})", self.raw, if self.owned.is_some() { "ours" } else { "borrowed" })
    }
}
