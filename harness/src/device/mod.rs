//! The forward pass on a GPU, beside the one on the CPU: products by cuBLASLt, everything between them by kernels of
//! kernels-gen, all in f32. Keys and values go from the projection into the codes of a cache, and from there into
//! attention, without leaving the device. Sums have another order than on the CPU; two runs give the same bits.

mod attention;
mod coded;
mod exact;
mod forward;
mod identity;
mod jobs;
mod layer;
mod machine;
mod probe;
mod scores;
mod simulated;
mod windowed;

pub use attention::{Attend, DeviceRows, attention, prepare};
pub use exact::Exact;
pub use forward::{Forward, Lane};
pub use machine::Machine;
pub use probe::Probe;

use std::rc::Rc;

use crate::backend::Backend;
use crate::error::Result;
use crate::model::Model;

/// The variable that keeps the forward pass on the CPU: `KVF_FORWARD=cpu`.
const PLACE: &str = "KVF_FORWARD";

/// The forward pass on the backend's device. None, with the reason on stderr, where it stays on the CPU.
pub fn open(backend: &dyn Backend, model: &Model) -> Result<Option<Forward>> {
    let Some(device) = backend.device() else { return Ok(None) };
    if std::env::var_os(PLACE).is_some_and(|place| place == "cpu") {
        eprintln!("the forward pass runs on the cpu: {PLACE}=cpu");
        return Ok(None);
    }
    match Machine::open(device) {
        Ok(machine) => Ok(Some(Forward::new(Rc::new(machine), model)?)),
        Err(why) => {
            eprintln!("the forward pass runs on the cpu: {why}");
            Ok(None)
        }
    }
}
