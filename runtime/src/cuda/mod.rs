//! The driver, NVRTC and cuBLASLt: with the C ABI, the only places where this crate is unsafe.
//!
//! Promise: on a machine without libcuda or libnvrtc every call here is an error value. cudarc panics
//! when a library or a symbol is missing, so each entry asks for the library first ([`driver`]), and
//! NVRTC is opened by us, file by file ([`nvrtc`]).
#![allow(unsafe_code)]

pub(crate) mod nvrtc;

mod context;
mod cublaslt;
mod device;
mod driver;
mod event;
mod graph;
mod kernel;
mod memory;
mod stream;

pub use cublaslt::Products;
pub use device::Device;
pub use driver::{device_count, driver_version, mapped_files};
pub use event::Event;
pub use graph::{Graph, Replay};
pub use kernel::{Arg, Attributes, Kernel};
pub use memory::{Memory, Plain, Span};
pub use stream::Stream;

pub(crate) use memory::is_device_address;
