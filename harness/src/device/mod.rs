//! The forward pass on a GPU, beside the one on the CPU: products by cuBLASLt, everything between them by kernels of
//! kernels-gen, all in f32. Keys and values go from the projection into the codes of a cache, and from there into
//! attention, without leaving the device. Sums have another order than on the CPU; two runs give the same bits.

mod attention;
mod cache;
mod coded;
mod compared;
mod exact;
mod forward;
mod identity;
mod layer;
mod loaded;
mod machine;
mod plans;
mod probe;
mod scores;
mod simulated;
mod tile_plans;
mod tiles;
mod twins;
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

/// Where the forward pass runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// on the backend's device, if it has one
    Device,
    Cpu,
}

impl Place {
    /// As the environment asks.
    pub fn asked() -> Place {
        if std::env::var_os(PLACE).is_some_and(|place| place == "cpu") { Place::Cpu } else { Place::Device }
    }
}

/// The forward pass on the backend's device. None, with the reason on stderr, where it stays on the CPU.
pub fn open(backend: &dyn Backend, model: &Model, place: Place) -> Result<Option<Forward>> {
    let Some(device) = backend.device() else { return Ok(None) };
    if place == Place::Cpu {
        eprintln!("the forward pass runs on the cpu, as asked");
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
