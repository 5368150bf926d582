//! Times on the device's clock.

use std::sync::Arc;

use cudarc::driver::sys::CUevent_flags;
use cudarc::driver::{CudaContext, result, sys};

use super::context::enter;
use super::device::Device;
use super::driver::failed;
use super::stream::Stream;
use crate::error::Result;

/// A point in a stream's work whose time is kept.
pub struct Event {
    context: Arc<CudaContext>,
    raw: sys::CUevent,
}

// SAFETY: the driver's event handles may be used from any thread.
unsafe impl Send for Event {}
// SAFETY: the driver serialises calls on one event.
unsafe impl Sync for Event {}

impl Event {
    /// An event that keeps the time.
    pub fn new(device: &Device) -> Result<Self> {
        let _here = device.enter()?;
        let raw = result::event::create(CUevent_flags::CU_EVENT_DEFAULT).map_err(|e| failed("creating an event", e))?;
        Ok(Event { context: device.context().clone(), raw })
    }

    /// Marks the present end of `stream`'s work.
    pub fn record(&self, stream: &Stream) -> Result<()> {
        let _here = stream.enter()?;
        // SAFETY: both are live; the driver refuses a stream of another context.
        unsafe { result::event::record(self.raw, stream.raw()) }.map_err(|e| failed("recording an event", e))
    }

    /// Milliseconds from `self` to `end`; waits for `end`.
    pub fn elapsed_ms(&self, end: &Event) -> Result<f32> {
        let _here = enter(&self.context)?;
        // SAFETY: both are live.
        let waited = unsafe { result::event::synchronize(end.raw) };
        // SAFETY: likewise.
        waited.and_then(|()| unsafe { result::event::elapsed(self.raw, end.raw) }).map_err(|e| failed("reading an event", e))
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        let _here = enter(&self.context);
        // SAFETY: created by us, destroyed once.
        let _ = unsafe { result::event::destroy(self.raw) };
    }
}
