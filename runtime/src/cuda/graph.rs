//! Recording launches once and replaying them.

use std::sync::{Arc, Mutex, PoisonError};

use cudarc::driver::sys::{CUgraphInstantiate_flags, CUstreamCaptureMode};
use cudarc::driver::{CudaGraph, CudaStream, result};

use super::driver::failed;
use super::stream::Stream;
use crate::argument::Misuse;
use crate::error::Result;

/// Launches recorded from a stream, replayed on that stream. Neither Send nor Sync, as the driver asks.
pub struct Graph {
    graph: CudaGraph,
    // After the graph, which uses it.
    stream: Stream,
}

impl Graph {
    /// Records what `enqueue` puts on `stream`; nothing of it runs. On an error of `enqueue` the capture
    /// is ended and the error returned, so that the stream stays usable.
    pub fn record(stream: &Stream, enqueue: impl FnOnce(&Stream) -> Result<()>) -> Result<Self> {
        let _here = stream.enter()?;
        let wrapped = stream.wrapped();
        // Thread-local, so that another thread's CUDA calls neither break nor join the capture.
        let mode = CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        wrapped.begin_capture(mode).map_err(|e| failed("beginning a capture", e))?;
        let open = OpenCapture(&wrapped);
        let enqueued = enqueue(stream);
        std::mem::forget(open);
        let graph = wrapped.end_capture(CUgraphInstantiate_flags(0));
        enqueued?;
        let graph = graph.map_err(|e| failed("ending a capture", e))?;
        let graph = graph.ok_or_else(|| Misuse::Other("the capture is empty; enqueue a launch inside it".into()))?;
        graph.upload().map_err(|e| failed("uploading a graph", e))?;
        Ok(Graph { graph, stream: stream.share() })
    }

    /// Enqueues the recorded launches.
    pub fn launch(&self) -> Result<()> {
        let _here = self.stream.enter()?;
        self.graph.launch().map_err(|e| failed("launching a graph", e))
    }
}

/// A recording that any thread may replay, on any stream of its device. Its runs follow one another, whatever their streams.
pub struct Replay {
    graph: Mutex<Graph>,
}

// SAFETY: the driver lets a graph be used from any thread, by one at a time: the mutex sees to that.
unsafe impl Send for Replay {}
// SAFETY: likewise.
unsafe impl Sync for Replay {}

impl Replay {
    /// As [`Graph::record`].
    pub fn record(stream: &Stream, enqueue: impl FnOnce(&Stream) -> Result<()>) -> Result<Self> {
        Ok(Replay { graph: Mutex::new(Graph::record(stream, enqueue)?) })
    }

    /// Enqueues the recorded launches on `stream`.
    pub fn launch(&self, stream: &Stream) -> Result<()> {
        let graph = self.graph.lock().unwrap_or_else(PoisonError::into_inner);
        if stream.context().cu_ctx() != graph.stream.context().cu_ctx() {
            return Err(Misuse::Other("what was recorded is of another device than the stream's".into()).into());
        }
        let _here = stream.enter()?;
        // SAFETY: the executable graph lives as long as the lock's guard, the stream as long as `stream`.
        unsafe { result::graph::launch(graph.graph.cu_graph_exec(), stream.raw()) }.map_err(|e| failed("launching a graph", e))
    }
}

/// Ends the capture when `enqueue` panics.
struct OpenCapture<'a>(&'a Arc<CudaStream>);

impl Drop for OpenCapture<'_> {
    fn drop(&mut self) {
        let _ = self.0.end_capture(CUgraphInstantiate_flags(0));
    }
}
