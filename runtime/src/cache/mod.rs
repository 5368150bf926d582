//! Cubins kept: in this process, then on the disk.
//!
//! Promise: a bad entry is a miss, and no I/O error ever reaches a caller; the worst a broken disk does
//! is another compilation. The checksum finds damage; it is no defence against someone who may write the
//! folder, so a folder that others own or may write is not used at all.

mod disk;
mod entry;
mod key;
mod place;

use std::collections::HashMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};

pub use entry::Entry;
pub use key::Key;

use crate::compile::Origin;

/// A cache of cubins. Usable from any thread; two processes may share its folder.
#[derive(Debug)]
pub struct Cache {
    folder: Result<PathBuf, String>,
    memory: Mutex<HashMap<Key, Entry>>,
}

/// The process's cache, in the folder that the environment names.
pub fn shared() -> &'static Cache {
    static SHARED: OnceLock<Cache> = OnceLock::new();
    SHARED.get_or_init(|| Cache::from_env(&|name| std::env::var_os(name)))
}

impl Cache {
    /// `KVF_CACHE_DIR` (`off`: no disk), else `$XDG_CACHE_HOME/kvfuse`, else `~/.cache/kvfuse`.
    pub fn from_env(env: &dyn Fn(&str) -> Option<OsString>) -> Self {
        match place::folder(env) {
            Ok(folder) => Cache::at(&folder),
            Err(why) => Cache { folder: Err(why), memory: Mutex::default() },
        }
    }

    /// A cache below `folder`, which is made (mode 0700) if need be.
    pub fn at(folder: &Path) -> Self {
        Cache { folder: place::open(folder), memory: Mutex::default() }
    }

    /// A cache that keeps nothing on the disk.
    pub fn in_memory() -> Self {
        Cache { folder: Err("off".into()), memory: Mutex::default() }
    }

    /// The folder in use, or why there is none.
    pub fn folder(&self) -> Result<&Path, &str> {
        self.folder.as_deref().map_err(String::as_str)
    }

    /// How many entries the disk holds, and their bytes.
    pub fn usage(&self) -> (usize, u64) {
        self.folder.as_deref().map(disk::usage).unwrap_or_default()
    }

    /// The entry of `key`, and where it was.
    pub fn get(&self, key: &Key) -> Option<(Entry, Origin)> {
        if let Some(entry) = self.lock().get(key) {
            return Some((entry.clone(), Origin::Memory));
        }
        let entry = disk::read(self.folder.as_deref().ok()?, key)?;
        self.lock().insert(*key, entry.clone());
        Some((entry, Origin::Disk))
    }

    /// Keeps `entry`. Failing to write it is no error.
    pub fn put(&self, key: &Key, entry: &Entry) {
        self.lock().insert(*key, entry.clone());
        if let Ok(folder) = &self.folder {
            let _ = disk::write(folder, key, entry);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Key, Entry>> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
