//! What was fitted to one model.

use std::collections::BTreeMap;

use crate::layout::Operand;
use crate::registry::CodecInfo;

use super::{BadCalibration, Bands, Preset};

/// What the model must have for a calibration to fit it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shape {
    pub layers: usize,
    pub kv_heads: usize,
    /// head dim
    pub d: usize,
}

/// The coordinates of keys or of values, for every layer and kv head.
///
/// With mu the mean and C the covariance of the rows, and M the metric in which errors are counted:
/// `eig(M^(1/2) C M^(1/2)) = V diag(energy) V^T`, basis = `M^(1/2) V`; a row x has the coordinates `(x - mu) basis`.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Fit {
    /// `[layers, kv_heads, d (of the row), d (coordinate)]`
    pub basis: Vec<f32>,
    /// `[layers, kv_heads, d]`
    pub mean: Vec<f32>,
    /// Mean square of each coordinate, descending. `[layers, kv_heads, d]`
    pub energy: Vec<f32>,
}

/// All that a calibrated codec knows of a model, for every preset.
#[derive(Clone, PartialEq, Debug)]
pub struct Calibration {
    pub shape: Shape,
    /// sha256 over the files of the model
    pub model: String,
    /// sha256 of the token ids it was fitted on, and how many
    pub text: String,
    pub tokens: usize,
    /// Radians a token by which coordinates i and i + d/2 turn. `[d / 2]`
    pub speeds: Vec<f32>,
    /// Of keys turned back to the start of their segment.
    pub keys: Fit,
    pub values: Fit,
    /// The bands of every layer under a preset, by its name; all together they take no more than the preset's bits.
    pub bands: BTreeMap<String, Vec<Bands>>,
}

impl Calibration {
    /// The bands of a layer: its own, or the preset's uniform ones.
    pub fn bands(&self, preset: &Preset, layer: usize) -> Bands {
        self.bands.get(preset.name).and_then(|layers| layers.get(layer)).cloned().unwrap_or_else(|| preset.uniform())
    }

    /// How a layer's cache is coded.
    pub fn codec(&self, preset: &Preset, layer: usize) -> Result<&'static CodecInfo, BadCalibration> {
        let malformed = |e: crate::registry::UnknownCodec| BadCalibration::Malformed { why: e.to_string() };
        self.bands(preset, layer).codec().map_err(malformed)
    }

    /// Refuses bands that are not one for each layer, or take more bits than the preset.
    pub(super) fn check_bands(&self, preset: &Preset) -> Result<(), BadCalibration> {
        let Some(own) = self.bands.get(preset.name) else { return Ok(()) };
        let malformed = |why| Err(BadCalibration::Malformed { why });
        if own.len() != self.shape.layers {
            return malformed(format!("{} has bands for {} layers of {}", preset.name, own.len(), self.shape.layers));
        }
        let (bits, most) = (own.iter().map(Bands::bits).sum::<f64>() / own.len() as f64, preset.uniform().bits());
        if bits > most + 1e-9 {
            return malformed(format!("{} takes {bits} bits a coordinate, more than its {most}", preset.name));
        }
        Ok(())
    }

    pub fn fit(&self, operand: Operand) -> &Fit {
        match operand {
            Operand::K => &self.keys,
            Operand::V => &self.values,
        }
    }

    /// Refuses a calibration of another model.
    pub fn check(&self, model: &str, shape: Shape) -> Result<(), BadCalibration> {
        if self.shape != shape {
            return Err(BadCalibration::OtherShape { found: self.shape, wanted: shape });
        }
        if self.model != model {
            return Err(BadCalibration::OtherModel { found: self.model.clone(), wanted: model.to_string() });
        }
        Ok(())
    }
}
