//! Passages of token ids, each scored on its own; the hash names the data that two reports must share to be compared.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::npy::Array;

pub struct Corpus {
    pub path: PathBuf,
    /// of the ids as they lie in the array
    pub sha256: String,
    /// tokens of every passage
    pub length: usize,
    ids: Vec<u32>,
}

impl Corpus {
    /// An integer array [passage, token].
    pub fn read(path: &Path) -> Result<Corpus> {
        let array = Array::read(path)?;
        let [_, length] = array.shape[..] else {
            return Err(Error::malformed(path, format!("its shape is {:?}; passages are [passage, token]", array.shape)));
        };
        let Some(ids) = array.to_ids() else {
            return Err(Error::malformed(path, format!("its elements are {:?}; token ids are uint16 or int32", array.kind)));
        };
        Ok(Corpus { path: path.to_path_buf(), sha256: crate::model::sha256(&array.bytes), length, ids })
    }

    pub fn passages(&self) -> usize {
        self.ids.len().checked_div(self.length).unwrap_or(0)
    }

    pub fn passage(&self, index: usize) -> &[u32] {
        &self.ids[index * self.length..][..self.length]
    }

    pub fn check(&self, passages: usize, tokens: usize, vocab: usize) -> Result<()> {
        for passage in 0..passages {
            for (position, &id) in self.passage(passage)[..tokens].iter().enumerate() {
                if id as usize >= vocab {
                    return Err(Error::Token { passage, position, id, vocab });
                }
            }
        }
        Ok(())
    }
}
