//! A calibration of one layer whose maps keep rows as they are, but for their steps.

use crate::support::D;
use kernels_gen::preset::{Calibration as Fitted, Fit, Preset, Shape};
use runtime::{Calibration, Codec, Device, Result};

pub fn calibration(device: &Device, codec: Codec, preset: &Preset, kv_heads: usize, positions: usize) -> Result<Calibration> {
    let shape = Shape { layers: 1, kv_heads, d: D };
    let mut basis = vec![0.0; kv_heads * D * D];
    (0..kv_heads * D).for_each(|row| basis[row * D + row % D] = 1.0);
    let fit = Fit { basis, mean: vec![0.0; kv_heads * D], energy: vec![0.3; kv_heads * D] };
    let speeds = (0..D / 2).map(|i| 1e4_f32.powf(-((2 * i) as f32) / D as f32)).collect();
    let fitted = Fitted { shape, model: String::new(), text: String::new(), tokens: 0, speeds, keys: fit.clone(), values: fit, bands: Default::default() };
    Calibration::upload(device, codec, &[(preset.codec()?, fitted.maps(preset, 0)?)], &fitted.turns(positions))
}
