//! Where the bundled model and passages are: `KVF_ASSETS`, else the repository this was built from, else `./assets`.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::hub;

/// Name of the file in a model's folder that `calibrate` writes.
pub const CALIBRATION: &str = "kvfuse.calibration";
pub const BUNDLED_MODEL: &str = "qwen3-tiny";

/// The assets folder.
pub fn folder() -> Result<PathBuf> {
    let looked = match std::env::var_os("KVF_ASSETS") {
        Some(path) => vec![PathBuf::from(path)],
        None => vec![Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("assets"), PathBuf::from("assets")],
    };
    match looked.iter().find(|p| p.join("eval").is_dir()) {
        Some(path) => Ok(path.clone()),
        None => Err(Error::NoAssets { looked }),
    }
}

/// A folder is taken as it is; `hub:OWNER/NAME` is fetched; a bare name is looked up among the bundled models.
pub fn model(name: &str) -> Result<PathBuf> {
    if let Some(repo) = name.strip_prefix("hub:") {
        return hub::fetch(repo);
    }
    let given = PathBuf::from(name);
    if given.is_dir() {
        return Ok(given);
    }
    if name.contains(['/', '\\']) || name.starts_with('.') {
        return Err(Error::Data(format!("model folder {name} does not exist; give the folder that holds config.json")));
    }
    let bundled = folder()?.join(name);
    if bundled.join("config.json").is_file() {
        return Ok(bundled);
    }
    Err(Error::Data(format!("there is no model folder and no bundled model called {name}; give a folder, or use {BUNDLED_MODEL}")))
}

pub fn passages() -> Result<PathBuf> {
    Ok(folder()?.join("eval").join("passages.npy"))
}

/// Text of the kinds that the bundled model was trained on, none of it in the passages.
pub fn calibration_text() -> Result<PathBuf> {
    Ok(folder()?.join("eval").join("calibration.npy"))
}
