//! A stream: our own, or one an engine lends for the length of a call.

use std::ffi::c_void;
use std::fmt;
use std::sync::Arc;

use cudarc::driver::result::stream::StreamKind;
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
    owned: Option<Arc<Owned>>,
}

/// A stream that is destroyed with its last user. cudarc's own would leave its context current.
struct Owned {
    context: Arc<CudaContext>,
    raw: sys::CUstream,
}

// SAFETY: the driver's stream handles may be used, and destroyed, from any thread.
unsafe impl Send for Owned {}
// SAFETY: nothing of it is mutable.
unsafe impl Sync for Owned {}

impl Drop for Owned {
    fn drop(&mut self) {
        let _here = enter(&self.context);
        // SAFETY: created by us, destroyed once; work already enqueued still runs.
        let _ = unsafe { result::stream::destroy(self.raw) };
    }
}

// SAFETY: the driver's stream handles may be used from any thread.
unsafe impl Send for Stream {}
// SAFETY: the driver serialises what threads enqueue on one stream.
unsafe impl Sync for Stream {}

impl Stream {
    pub(super) fn create(context: &Arc<CudaContext>) -> Result<Self> {
        let _here = enter(context)?;
        let raw = result::stream::create(StreamKind::NonBlocking).map_err(|e| failed("creating a stream", e))?;
        let owned = Arc::new(Owned { context: context.clone(), raw });
        Ok(Stream { context: context.clone(), raw, owned: Some(owned) })
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

    /// Another handle of the same stream.
    pub(super) fn share(&self) -> Self {
        Stream { context: self.context.clone(), raw: self.raw, owned: self.owned.clone() }
    }

    /// The stream in cudarc's form, for captures; it must not outlive `self`.
    pub(super) fn wrapped(&self) -> Arc<CudaStream> {
        // SAFETY: live while `self` is; the wrapper does not destroy it.
        unsafe { self.context.wrap_borrowed_stream(self.raw) }
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Stream({:?}, {})", self.raw, if self.owned.is_some() { "ours" } else { "borrowed" })
    }
}
