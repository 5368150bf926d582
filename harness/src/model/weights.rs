//! Safetensors shards of a checkpoint, read whole and handed out as f32 by name, with dtype and shape checked.

use std::collections::HashMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use safetensors::{Dtype, SafeTensors};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};

/// Name and sha256 of one file of the model, for the report.
#[derive(Clone, Debug, Serialize)]
pub struct FileDigest {
    pub file: String,
    pub sha256: String,
}

pub struct Weights {
    folder: PathBuf,
    shards: Vec<Vec<u8>>,
    shard_of: HashMap<String, usize>,
    pub digests: Vec<FileDigest>,
}

#[derive(Deserialize)]
struct Index {
    weight_map: HashMap<String, String>,
}

impl Weights {
    pub fn read(folder: &Path) -> Result<Weights> {
        let index = folder.join("model.safetensors.index.json");
        let files = if index.exists() {
            let text = std::fs::read_to_string(&index).map_err(Error::reading(&index))?;
            let index: Index = serde_json::from_str(&text).map_err(|e| Error::malformed(&index, e.to_string()))?;
            let mut files: Vec<String> = index.weight_map.into_values().collect();
            files.sort();
            files.dedup();
            files
        } else {
            vec!["model.safetensors".to_string()]
        };
        let mut weights =
            Weights { folder: folder.to_path_buf(), shards: Vec::new(), shard_of: HashMap::new(), digests: Vec::new() };
        for file in files {
            weights.add_shard(file)?;
        }
        Ok(weights)
    }

    fn add_shard(&mut self, file: String) -> Result<()> {
        let path = self.folder.join(&file);
        let bytes = std::fs::read(&path).map_err(Error::reading(&path))?;
        let tensors = SafeTensors::deserialize(&bytes).map_err(|e| Error::malformed(&path, e.to_string()))?;
        for name in tensors.names() {
            self.shard_of.insert(name.to_string(), self.shards.len());
        }
        self.digests.push(FileDigest { file, sha256: sha256(&bytes) });
        self.shards.push(bytes);
        Ok(())
    }

    /// The tensor as f32, row major; bf16 and f16 widen exactly.
    pub fn tensor(&self, name: &str, wanted: &[usize]) -> Result<Vec<f32>> {
        let missing = || Error::MissingTensor { name: name.into(), path: self.folder.clone() };
        let shard = self.shard_of.get(name).ok_or_else(missing)?;
        let tensors = SafeTensors::deserialize(&self.shards[*shard])
            .map_err(|e| Error::malformed(&self.folder, e.to_string()))?;
        let view = tensors.tensor(name).map_err(|_| missing())?;
        if view.shape() != wanted {
            return Err(Error::Shape { name: name.into(), found: view.shape().to_vec(), wanted: wanted.to_vec() });
        }
        let halves = || view.data().as_chunks::<2>().0.iter().map(|b| u16::from_le_bytes(*b));
        match view.dtype() {
            Dtype::BF16 => Ok(halves().map(|h| f32::from_bits(u32::from(h) << 16)).collect()),
            Dtype::F16 => Ok(halves().map(|h| half::f16::from_bits(h).to_f32()).collect()),
            Dtype::F32 => Ok(view.data().as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()),
            other => Err(Error::Dtype { name: name.into(), found: format!("{other:?}") }),
        }
    }
}

pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
