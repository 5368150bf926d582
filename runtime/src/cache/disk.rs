//! One file an entry, whole or absent: written beside its place, synced, then renamed into it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::entry::Entry;
use super::key::Key;

/// Larger than any cubin of ours; a longer file is not read.
const MAX_BYTES: u64 = 256 << 20;

/// `<folder>/ab/<key>.cubin`.
fn file(folder: &Path, key: &Key) -> PathBuf {
    let name = key.to_string();
    folder.join(&name[..2]).join(format!("{name}.cubin"))
}

/// The entry, or `None` for whatever reason.
pub(super) fn read(folder: &Path, key: &Key) -> Option<Entry> {
    let path = file(folder, key);
    if !fs::symlink_metadata(&path).ok()?.is_file() {
        return None;
    }
    let mut bytes = Vec::new();
    File::open(&path).ok()?.take(MAX_BYTES).read_to_end(&mut bytes).ok()?;
    Entry::from_bytes(&bytes, key)
}

/// Puts the entry in place; of several writers the last one's (equal) bytes stay.
pub(super) fn write(folder: &Path, key: &Key, entry: &Entry) -> io::Result<()> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let path = file(folder, key);
    let parent = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(parent)?;
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    // Unique in this process by the count, among processes by the id, among machines by the time.
    let time = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_nanos());
    let temporary = parent.join(format!(".{}-{time}-{count}", std::process::id()));
    let written = fill(&temporary, &entry.to_bytes(key)).and_then(|()| fs::rename(&temporary, &path));
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written
}

fn fill(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Number and bytes of the entries.
pub(super) fn usage(folder: &Path) -> (usize, u64) {
    let inside = |dir: &Path| fs::read_dir(dir).into_iter().flatten().flatten().collect::<Vec<_>>();
    let files = inside(folder).into_iter().flat_map(|d| inside(&d.path()));
    let cubins = files.filter(|f| f.path().extension().is_some_and(|e| e == "cubin"));
    cubins.fold((0, 0), |(n, bytes), f| (n + 1, bytes + f.metadata().map_or(0, |m| m.len())))
}
