//! From a kernel's text to a running kernel, and the C library around it.
//!
//! Three steps, named alike everywhere: *prepare* compiles and loads, and may allocate; *launch* only
//! enqueues on a stream, so it can be captured into a graph; *memory* is always the caller's.
//!
//! ```no_run
//! # fn main() -> Result<(), runtime::Error> {
//! # let (q, table, lens, out, space, status, cache): (runtime::Span, runtime::Span, runtime::Span, runtime::Span, runtime::Span, runtime::Span, runtime::Span) = todo!();
//! use runtime::{Codec, Decode, DecodePlan, DecodeSpec, Device, Elem, PagedCache};
//! let device = Device::open(0)?;
//! let codec = Codec::open("int4")?;
//! let spec = DecodeSpec { codec, head_dim: 128, group: 4, page_tokens: 64, elem: Elem::Bf16, splits: 0 };
//! let plan = DecodePlan::prepare(&device, &spec)?;
//! let cache = PagedCache { base: cache, pages: 4096, page_tokens: 64, kv_heads: 8, head_dim: 128 };
//! let need = plan.workspace_bytes(32, 32, 128)?; // ask, then give `space`
//! let (batch, table_stride, scale) = (32, 128, 128_f32.sqrt().recip());
//! let call = Decode { batch, q, cache, table, table_stride, lens, out, lse: None, scale, workspace: space, status };
//! plan.launch(&device.stream()?, &call)?;
//! # Ok(()) }
//! ```

pub mod cache;
pub mod compile;
pub mod cuda;
pub mod nvrtc;
#[doc(hidden)]
pub mod pending;

mod arch;
mod argument;
mod codec;
mod doctor;
mod error;
mod ffi;
mod ffi_codec;
mod ffi_handle;
mod ffi_plan;
mod ffi_reference;
mod ffi_struct;
mod page;
mod plan;

pub use arch::Arch;
pub use argument::Misuse;
pub use codec::Codec;
pub use cuda::{Arg, Device, Event, Graph, Kernel, Memory, Span, Stream};
pub use doctor::{Doctor, doctor};
pub use error::{Error, Kind, Places, Reasons, Result};
pub use page::PagedCache;
pub use pending::kernels::Elem;
pub use plan::{Decode, DecodePlan, DecodeSpec, Rows, Store, StorePlan, StoreSpec, status};
