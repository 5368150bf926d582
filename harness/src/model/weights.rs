//! Safetensors shards of a checkpoint, handed out as f32 by name, with dtype and shape checked. Only headers stay in
//! memory: a tensor is read when it is asked for, so a model may be larger than the machine's memory.

use std::collections::HashMap;
use std::fmt::Write;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use safetensors::Dtype;
use safetensors::tensor::TensorInfo;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};

/// Name and sha256 of one file of the model, for the report.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FileDigest {
    pub file: String,
    pub sha256: String,
}

pub struct Weights {
    folder: PathBuf,
    tensors: HashMap<String, Place>,
    pub digests: Vec<FileDigest>,
}

/// Where a tensor lies.
struct Place {
    path: PathBuf,
    dtype: Dtype,
    shape: Vec<usize>,
    /// of its first byte in the file
    start: u64,
    bytes: usize,
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
        let mut weights = Weights { folder: folder.to_path_buf(), tensors: HashMap::new(), digests: Vec::new() };
        for file in files {
            weights.add_shard(file)?;
        }
        Ok(weights)
    }

    fn add_shard(&mut self, file: String) -> Result<()> {
        let path = self.folder.join(&file);
        let mut reader = File::open(&path).map_err(Error::reading(&path))?;
        let length = reader.metadata().map_err(Error::reading(&path))?.len();
        let mut size = [0; 8];
        let cut = |_| Error::malformed(&path, "it is cut off before its header ends; copy it again");
        reader.read_exact(&mut size).map_err(cut)?;
        let header_bytes = u64::from_le_bytes(size);
        if header_bytes > length.saturating_sub(8) {
            return Err(Error::malformed(&path, "its header is longer than the file; copy it again"));
        }
        let mut header = size.to_vec();
        header.resize(8 + header_bytes as usize, 0);
        reader.read_exact(&mut header[8..]).map_err(cut)?;
        let mut entries: HashMap<String, Value> = serde_json::from_slice(header[8..].trim_ascii_end()).map_err(|e| Error::malformed(&path, e.to_string()))?;
        entries.remove("__metadata__");
        for (name, entry) in entries {
            let info: TensorInfo = serde_json::from_value(entry).map_err(|e| Error::malformed(&path, format!("the header's entry of tensor {name} is unreadable: {e}")))?;
            let (first, end) = info.data_offsets;
            let start = 8 + header_bytes + first as u64;
            let bits = info.shape.iter().try_fold(info.dtype.bitsize(), |n, d| n.checked_mul(*d));
            if end < first || bits != Some(8 * (end - first)) {
                return Err(Error::malformed(&path, format!("tensor {name} has other bytes than its shape asks for")));
            }
            if start + (end - first) as u64 > length {
                return Err(Error::malformed(&path, format!("it ends before tensor {name} does; copy it again")));
            }
            let place = Place { path: path.clone(), dtype: info.dtype, shape: info.shape, start, bytes: end - first };
            self.tensors.insert(name, place);
        }
        self.digests.push(FileDigest { file, sha256: sha256_of_file(&path)? });
        Ok(())
    }

    /// The tensor as f32, row major; bf16 and f16 widen exactly.
    pub fn tensor(&self, name: &str, wanted: &[usize]) -> Result<Vec<f32>> {
        let place = self.place(name, wanted)?;
        place.read(name, 0, place.bytes)
    }

    pub fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// Shape and dtype of a tensor, where there is one.
    pub(super) fn found(&self, name: &str) -> Option<(&[usize], Dtype)> {
        self.tensors.get(name).map(|place| (&place.shape[..], place.dtype))
    }

    /// The bytes of a tensor as they lie in the file.
    pub(super) fn bytes(&self, name: &str, wanted: &[usize]) -> Result<Vec<u8>> {
        let place = self.place(name, wanted)?;
        place.bytes(0, place.bytes)
    }

    /// Whole numbers; no number below zero has a place in a checkpoint.
    pub fn integers(&self, name: &str, wanted: &[usize]) -> Result<Vec<u32>> {
        let place = self.place(name, wanted)?;
        let data = place.bytes(0, place.bytes)?;
        let wide: Vec<i64> = match place.dtype {
            Dtype::I32 => data.as_chunks::<4>().0.iter().map(|b| i32::from_le_bytes(*b).into()).collect(),
            Dtype::I64 => data.as_chunks::<8>().0.iter().map(|b| i64::from_le_bytes(*b)).collect(),
            other => return Err(Error::Dtype { name: name.into(), found: format!("{other:?}"), wanted: "i32 or i64" }),
        };
        let number = |n: &i64| u32::try_from(*n).map_err(|_| Error::Data(format!("tensor {name} holds {n}; its numbers start at 0")));
        wide.iter().map(number).collect()
    }

    /// One of the matrices that lie in a tensor [matrix, rows, columns].
    pub fn slab(&self, name: &str, wanted: &[usize; 3], index: usize) -> Result<Vec<f32>> {
        let place = self.place(name, wanted)?;
        let bytes = place.bytes / wanted[0];
        place.read(name, index * bytes, bytes)
    }

    /// Rows of a matrix [rows, columns], in the order asked for.
    pub fn rows(&self, name: &str, wanted: &[usize; 2], rows: &[u32]) -> Result<Vec<f32>> {
        let place = self.place(name, wanted)?;
        let bytes = place.bytes / wanted[0];
        let mut values = Vec::with_capacity(rows.len() * wanted[1]);
        for row in rows {
            values.extend(place.read(name, *row as usize * bytes, bytes)?);
        }
        Ok(values)
    }

    fn place(&self, name: &str, wanted: &[usize]) -> Result<&Place> {
        let missing = || Error::MissingTensor { name: name.into(), path: self.folder.clone() };
        let place = self.tensors.get(name).ok_or_else(missing)?;
        if place.shape != wanted {
            return Err(Error::Shape { name: name.into(), found: place.shape.clone(), wanted: wanted.to_vec() });
        }
        Ok(place)
    }
}

impl Place {
    fn bytes(&self, offset: usize, bytes: usize) -> Result<Vec<u8>> {
        let mut data = vec![0; bytes];
        let mut file = File::open(&self.path).map_err(Error::reading(&self.path))?;
        file.seek(SeekFrom::Start(self.start + offset as u64)).map_err(Error::reading(&self.path))?;
        file.read_exact(&mut data).map_err(Error::reading(&self.path))?;
        Ok(data)
    }

    fn read(&self, name: &str, offset: usize, bytes: usize) -> Result<Vec<f32>> {
        let data = self.bytes(offset, bytes)?;
        let halves = || data.as_chunks::<2>().0.iter().map(|b| u16::from_le_bytes(*b));
        match self.dtype {
            Dtype::BF16 => Ok(halves().map(|h| f32::from_bits(u32::from(h) << 16)).collect()),
            Dtype::F16 => Ok(halves().map(|h| half::f16::from_bits(h).to_f32()).collect()),
            Dtype::F32 => Ok(data.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()),
            other => Err(Error::Dtype { name: name.into(), found: format!("{other:?}"), wanted: "bf16, f16 or f32" }),
        }
    }
}

pub fn sha256(bytes: &[u8]) -> String {
    hexadecimal(&Sha256::digest(bytes))
}

/// Read in pieces, so that a shard need not fit into memory.
fn sha256_of_file(path: &Path) -> Result<String> {
    let mut file = File::open(path).map_err(Error::reading(path))?;
    let (mut hash, mut piece) = (Sha256::new(), vec![0; 1 << 20]);
    loop {
        match file.read(&mut piece).map_err(Error::reading(path))? {
            0 => return Ok(hexadecimal(&hash.finalize())),
            n => hash.update(&piece[..n]),
        }
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
