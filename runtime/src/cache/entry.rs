//! An entry's bytes: a header that proves the rest, then the cubin and its log.
//!
//! `magic 8 | format u32 | zero u32 | key 32 | cubin length u64 | log length u64 | sha256 of both 32 | cubin | log`,
//! integers little endian. The file ends exactly where the lengths say.

use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::key::Key;

const MAGIC: &[u8; 8] = b"KVFCUBIN";

/// Raised when the layout or the meaning of an entry changes; part of every key.
pub(super) const FORMAT: u32 = 1;

const HEADER: usize = 8 + 4 + 4 + 32 + 8 + 8 + 32;

/// A cubin and the log of its compilation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The machine code.
    pub cubin: Arc<[u8]>,
    /// What NVRTC and ptxas said.
    pub log: String,
}

impl Entry {
    /// The file's bytes.
    pub fn to_bytes(&self, key: &Key) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER + self.cubin.len() + self.log.len());
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&FORMAT.to_le_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(key.bytes());
        bytes.extend_from_slice(&(self.cubin.len() as u64).to_le_bytes());
        bytes.extend_from_slice(&(self.log.len() as u64).to_le_bytes());
        bytes.extend_from_slice(&checksum(&self.cubin, self.log.as_bytes()));
        bytes.extend_from_slice(&self.cubin);
        bytes.extend_from_slice(self.log.as_bytes());
        bytes
    }

    /// The entry in `bytes`, if they are whole and `key`'s.
    pub fn from_bytes(bytes: &[u8], key: &Key) -> Option<Self> {
        let mut rest = bytes;
        let head = [take(&mut rest, 8)?, take(&mut rest, 4)?, take(&mut rest, 4)?, take(&mut rest, 32)?];
        let known: [&[u8]; 4] = [MAGIC, &FORMAT.to_le_bytes(), &[0; 4], key.bytes()];
        if head != known {
            return None;
        }
        let cubin_length = length(&mut rest)?;
        let log_length = length(&mut rest)?;
        let sum = take(&mut rest, 32)?;
        let cubin = take(&mut rest, cubin_length)?;
        let log = take(&mut rest, log_length)?;
        if !rest.is_empty() || cubin.is_empty() || sum != checksum(cubin, log) {
            return None;
        }
        Some(Entry { cubin: cubin.into(), log: String::from_utf8(log.to_vec()).ok()? })
    }
}

fn checksum(cubin: &[u8], log: &[u8]) -> [u8; 32] {
    Sha256::new().chain_update((cubin.len() as u64).to_le_bytes()).chain_update(cubin).chain_update(log).finalize().into()
}

fn take<'a>(rest: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (head, tail) = rest.split_at_checked(count)?;
    *rest = tail;
    Some(head)
}

fn length(rest: &mut &[u8]) -> Option<usize> {
    let bytes: [u8; 8] = take(rest, 8)?.try_into().ok()?;
    usize::try_from(u64::from_le_bytes(bytes)).ok()
}
