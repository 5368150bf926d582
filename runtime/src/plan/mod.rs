//! Plans: everything slow is done when one is prepared, so that launching it only enqueues.
//!
//! A plan is immutable. Prepare once per shape; launch from any thread on any stream of its device.

pub mod status;

mod decode;
mod latent;
mod load;
mod merge;
mod queries;
mod records;
mod rope;
mod slots;
mod store;
mod variants;
mod workspace;

pub use decode::{Decode, DecodePlan, DecodeSpec};
pub(crate) use decode::{capacity, finite, kernel_name, own_meta};
pub(crate) use latent::LatentShape;
pub use latent::{DecodeLatent, LatentList, LatentPlan, LatentRows, StoreLatent};
pub use load::{Back, Backs, Load, LoadPlan};
pub use merge::{Merge, MergePlan, State};
pub use queries::QueriesPlan;
pub(crate) use rope::check_rope;
pub use rope::{RopePlan, RopeSpec, Roped};
pub use slots::{MoveSlots, SlotCache, SlotsPlan, SlotsSpec, StoreSlots};
pub(crate) use store::size_of_elem;
pub use store::{Mapped, Rows, Store, StorePlan, StoreSpec};

use std::sync::Arc;

use crate::argument::Misuse;
use crate::cuda::{Arg, Device, Kernel, Span};
use crate::error::{Error, Result};
use kernel_dsl::Source;

/// Generates nothing itself: loads what kernels-gen wrote, or says why it did not.
fn load(device: &Device, written: std::result::Result<Source, impl std::fmt::Display>) -> Result<Arc<Kernel>> {
    if !device.arch().served() {
        return Err(Error::unsupported(format!("{} (served: sm_80 and later)", device.arch())));
    }
    device.kernel(&written.map_err(|report| Error::Generate(report.to_string()))?)
}

/// Where a counting kernel adds the bytes it moves; a plan and its launch must agree on whether it counts.
fn counter_of(counts: bool, counter: Option<Span<'_>>) -> Result<Option<Arg<'_>>> {
    match (counts, counter) {
        (false, None) => Ok(None),
        (true, Some(counter)) => {
            counter.expect("counter", "two i64 on the device", 8, 16)?;
            Ok(Some(Arg::Ptr(counter)))
        }
        (true, None) => Err(Misuse::Other("the plan counts what it moves; give it a counter by launch_counted".into()).into()),
        (false, Some(_)) => Err(Misuse::Other("the plan counts nothing; prepare it by counted".into()).into()),
    }
}
