//! The calibration that a run uses: read from its file, refused if it is not the model's.

use std::path::{Path, PathBuf};

use kernels_gen::preset::{Calibration, Shape};
use serde::{Deserialize, Serialize};

use crate::assets;
use crate::error::{Error, Result};

/// A calibration and where it came from.
#[derive(Debug)]
pub struct Opened {
    pub path: PathBuf,
    pub sha256: String,
    pub calibration: Calibration,
}

/// What a report says of it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Facts {
    pub file: String,
    pub sha256: String,
    /// of the token ids it was fitted on
    pub text_sha256: String,
    pub tokens: usize,
    /// of the maps of one preset over all layers, as f32: not part of the stored bits, the same for any context
    pub static_bytes: usize,
}

/// The file that was asked for, or the one in the model's folder.
pub fn open(asked: Option<&Path>, folder: &Path, shape: Shape) -> Result<Opened> {
    let path = asked.map_or_else(|| folder.join(assets::CALIBRATION), Path::to_path_buf);
    if !path.is_file() {
        return Err(Error::NoCalibration { path, model: folder.to_path_buf() });
    }
    let bytes = std::fs::read(&path).map_err(Error::reading(&path))?;
    let within = |why| Error::Calibration { path: path.clone(), why };
    let calibration = Calibration::from_bytes(&bytes).map_err(within)?;
    calibration.check(&calibration.model, shape).map_err(within)?;
    Ok(Opened { sha256: crate::model::sha256(&bytes), path, calibration })
}

impl Opened {
    /// Refuses the calibration of another model.
    pub fn check(&self, model: &str) -> Result<()> {
        let within = |why| Error::Calibration { path: self.path.clone(), why };
        self.calibration.check(model, self.calibration.shape).map_err(within)
    }

    pub fn facts(&self) -> Facts {
        let Shape { layers, kv_heads, d } = self.calibration.shape;
        Facts {
            file: self.path.display().to_string(),
            sha256: self.sha256.clone(),
            text_sha256: self.calibration.text.clone(),
            tokens: self.calibration.tokens,
            // two matrices and a mean for keys and as much for values
            static_bytes: layers * kv_heads * (8 * d * d + 24 * d),
        }
    }
}
