//! Times on the device's clock.

use cudarc::driver::{CudaEvent, sys::CUevent_flags};

use super::context::enter;
use super::device::Device;
use super::driver::failed;
use super::stream::Stream;
use crate::error::Result;

/// A point in a stream's work whose time is kept.
pub struct Event(CudaEvent);

impl Event {
    /// An event that keeps the time.
    pub fn new(device: &Device) -> Result<Self> {
        let _here = device.enter()?;
        // cudarc's default flag turns timing off, after which elapsed_ms fails.
        let event = device.context().new_event(Some(CUevent_flags::CU_EVENT_DEFAULT));
        event.map(Event).map_err(|e| failed("creating an event", e))
    }

    /// Marks the present end of `stream`'s work.
    pub fn record(&self, stream: &Stream) -> Result<()> {
        let _here = stream.enter()?;
        self.0.record(&stream.wrapped()).map_err(|e| failed("recording an event", e))
    }

    /// Milliseconds from `self` to `end`; waits for both.
    pub fn elapsed_ms(&self, end: &Event) -> Result<f32> {
        let _here = enter(self.0.context())?;
        self.0.elapsed_ms(&end.0).map_err(|e| failed("reading an event", e))
    }
}
