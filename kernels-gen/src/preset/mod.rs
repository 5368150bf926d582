//! Calibrated codecs: what a model's own keys and values look like decides the coordinates in which they are coded.
//!
//! A preset is a name, the bits that it may take and the bands that serve where nothing better is known. A
//! [`Calibration`] is what was fitted to one model: a mean, a basis and the energy of each coordinate, for every layer
//! and kv head, and the [`Bands`] of each layer under each preset: few distinct ones, so that few kernels are compiled. Together they give the [`LayerMaps`] of a layer: the affine maps in front of the store and around
//! attention that make the basis vanish. Keys are coded in the frame of their segment, see [`Turns`].

mod bands;
mod calibration;
mod file;
mod fold;
mod inverse;
mod share;
mod turns;

pub use bands::Bands;
pub use calibration::{Calibration, Fit, Shape};
pub use file::{BadCalibration, FORMAT, VERSION};
pub use fold::{LayerMaps, OwnedMap};
pub use inverse::inverse;
pub use share::{Costs, menu, share};
pub use turns::Turns;

use crate::registry::{CodecInfo, UnknownCodec};

/// A calibrated codec.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Preset {
    pub name: &'static str,
    /// Widths of the bands of keys and of values, in bits a coordinate; the first band has the largest energies.
    pub keys: &'static [usize],
    pub values: &'static [usize],
}

/// The bands are those of least expected error for the bundled model, summed over its layers and heads, among
/// schedules of widths 1 to 7; between near equals the measured KL divergence decided.
pub const PRESETS: [Preset; 4] = [
    Preset { name: "kvfuse-2", keys: &[4, 2, 1, 1], values: &[3, 3, 1, 1] },
    Preset { name: "kvfuse-3", keys: &[5, 3, 3, 1], values: &[5, 3, 3, 1] },
    Preset { name: "kvfuse-4", keys: &[6, 4, 4, 2], values: &[6, 4, 4, 2] },
    Preset { name: "kvfuse-6", keys: &[7, 7, 6, 4], values: &[7, 7, 6, 4] },
];

/// The preset of that name.
pub fn preset(name: &str) -> Option<&'static Preset> {
    PRESETS.iter().find(|p| p.name == name)
}

impl Preset {
    /// The bands of every layer where a calibration has none of its own.
    pub fn uniform(&self) -> Bands {
        Bands { keys: self.keys.to_vec(), values: self.values.to_vec() }
    }

    /// What the registry calls the uniform bands: `intc6442/intc6442`.
    pub fn bands(&self) -> String {
        self.uniform().codec_name()
    }

    /// The codes of the uniform bands and their layout.
    pub fn codec(&self) -> Result<&'static CodecInfo, UnknownCodec> {
        self.uniform().codec()
    }
}

/// Mean squared error of a Gaussian coordinate of variance 1 coded in so many bits, 0 to 8, with the steps of [`STEPS`] in a row
/// of several widths under the scale that a search finds.
pub const ERRORS: [f64; 9] = [1.0, 0.352, 0.115, 0.0357, 0.0106, 0.00308, 0.00083, 0.00021, 0.000055];

/// The step for a coordinate of variance 1, by the bits of the band. A row's scale follows its largest coordinates, so wide bands need
/// less room, and narrow ones more, than under a fixed scale; that far of the way to the best for Gaussian rows, as real ones have longer tails.
pub const STEPS: [f64; 9] = [1.0, 1.74, 1.085, 0.64, 0.353, 0.192, 0.1016, 0.0528, 0.0286];
