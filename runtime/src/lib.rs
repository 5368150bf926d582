//! From a kernel's text to a running kernel, and the C library around it.
//!
//! Three steps, named alike everywhere: *prepare* compiles and loads, and may allocate; *launch* only
//! enqueues on a stream, so it can be captured into a graph; *memory* is always the caller's.
//!
//! ```no_run
//! use runtime::{Codec, Decode, DecodePlan, DecodeSpec, Device, Elem, PagedCache, Result, Span};
//!
//! fn decode(cache: Span, [q, table, lens, out, workspace, status]: [Span; 6]) -> Result<()> {
//!     let device = Device::open(0)?;
//!     let codec = Codec::open("int4")?;
//!     let spec = DecodeSpec { codec, head_dim: 128, group: 4, page_tokens: 64, elem: Elem::Bf16, splits: 0 };
//!     let plan = DecodePlan::prepare(&device, &spec)?;
//!     let cache = PagedCache { base: cache, pages: 4096, page_tokens: 64, kv_heads: 8, head_dim: 128 };
//!     let (batch, heads, table_stride, scale) = (32, 32, 128, 128_f32.sqrt().recip());
//!     let _needed = plan.workspace_bytes(batch, heads, table_stride)?;
//!     let call = Decode { batch, q, cache, table, table_stride, lens, out, lse: None, scale, workspace, status };
//!     plan.launch(&device.stream()?, &call)
//! }
//! ```

#![deny(unsafe_code)]

pub mod cache;
pub mod compile;
pub mod cuda;
pub mod nvrtc;
pub mod tuning;

mod arch;
mod argument;
mod calibration;
mod codec;
mod doctor;
mod error;
mod ffi;
mod ffi_block;
mod ffi_calibration;
mod ffi_codec;
mod ffi_handle;
mod ffi_latent;
mod ffi_load;
mod ffi_merge;
mod ffi_plan;
mod ffi_plan_parts;
mod ffi_reference;
mod ffi_rope;
mod ffi_slots;
mod ffi_step;
mod ffi_struct;
mod page;
mod plan;

pub use arch::Arch;
pub use argument::Misuse;
pub use calibration::{Calibration, Layer};
pub use codec::Codec;
pub use cuda::{Arg, Device, Event, Graph, Kernel, Memory, Products, Replay, Span, Stream};
pub use doctor::{Doctor, doctor};
pub use error::{Error, Kind, Places, Reasons, Result};
pub use kernels_gen::kernels::Elem;
pub use kernels_gen::kernels::rope::Rope;
pub use page::PagedCache;
pub use plan::{
    Back, Backs, Decode, DecodeLatent, DecodePlan, DecodeSpec, LatentList, LatentPlan, LatentRows, Load, LoadPlan, Mapped, Merge, MergePlan, MoveSlots, QueriesPlan, RopePlan, RopeSpec, Roped, Rows, SlotCache, SlotsPlan, SlotsSpec, State,
    Store, StoreLatent, StorePlan, StoreSlots, StoreSpec, status,
};
