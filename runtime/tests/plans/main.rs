//! Store and decode on a GPU against the scalar reference: the cache byte for byte, the output bit for
//! bit where the codec promises it. Every buffer lies between guard zones that must not change.
//! Skipped, aloud, without a GPU or NVRTC.

mod buffers;
mod decode;
mod enqueued;
mod guarded;
mod latent;
mod problem;
mod refused;
mod rope;
mod slots;
mod tuning;

use runtime::*;

/// The first device; none, said aloud, where kernels cannot run.
fn device() -> Option<Device> {
    match (Device::open(0), nvrtc::version()) {
        (Ok(device), Ok(_)) => Some(device),
        (Err(error), _) | (_, Err(error)) => {
            eprintln!("SKIPPED: {error}");
            None
        }
    }
}
