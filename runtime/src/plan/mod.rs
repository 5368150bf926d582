//! Plans: everything slow is done when one is prepared, so that launching it only enqueues.
//!
//! A plan is immutable. Prepare once per shape; launch from any thread on any stream of its device.

mod decode;
mod store;

pub use decode::{Decode, DecodePlan, DecodeSpec};
pub(crate) use decode::{capacity, finite};
pub(crate) use store::size_of_elem;
pub use store::{Rows, Store, StorePlan, StoreSpec};

use std::sync::Arc;

use crate::cuda::{Device, Kernel};
use crate::error::{Error, Result};
use crate::pending::Source;

/// The bits of the status word that kernels raise: the first of four i32 in the caller's device memory,
/// never lowered by us; the second holds the index of one offender (token, or sequence).
pub mod status {
    /// A slot beyond the cache: the token was not stored.
    pub const BAD_SLOT: i32 = 1;
    /// A page index outside the cache: the sequence's output is 0, its lse -inf.
    pub const BAD_PAGE: i32 = 2;
    /// A length below 0 or above what the page table holds: likewise.
    pub const BAD_LENGTH: i32 = 4;
    /// Bytes the status takes.
    pub const BYTES: u64 = 16;
}

/// Generates nothing itself: loads what kernels-gen wrote, or says why it did not.
fn load(device: &Device, written: std::result::Result<Source, impl std::fmt::Display>) -> Result<Arc<Kernel>> {
    if !device.arch().served() {
        return Err(Error::unsupported(format!("{} (served: sm_80 and later)", device.arch())));
    }
    device.kernel(&written.map_err(|report| Error::Generate(report.to_string()))?)
}
