//! Which folder, and whether it may be trusted.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Entries of another layout live beside ours, so an older program keeps its own.
const VERSION: &str = "v1";

/// The folder that the environment names, or why there is none.
pub(super) fn folder(env: &dyn Fn(&str) -> Option<OsString>) -> Result<PathBuf, String> {
    let set = |name: &str| env(name).filter(|v| !v.is_empty());
    if let Some(own) = set("KVF_CACHE_DIR") {
        return if own == "off" { Err("off: KVF_CACHE_DIR says so".into()) } else { Ok(own.into()) };
    }
    // The XDG rule: a relative path is to be ignored.
    let base = set("XDG_CACHE_HOME").map(PathBuf::from).filter(|p| p.is_absolute());
    let home = || set("HOME").map(|h| PathBuf::from(h).join(".cache"));
    match base.or_else(home) {
        Some(base) => Ok(base.join("kvfuse")),
        None => Err("off: neither KVF_CACHE_DIR, XDG_CACHE_HOME nor HOME is set".into()),
    }
}

/// Makes the versioned folder below `folder` and checks that it is ours alone to write.
pub(super) fn open(folder: &Path) -> Result<PathBuf, String> {
    let off = |why: String| format!("off: {}: {why}", folder.display());
    let place = folder.join(VERSION);
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&place).map_err(|e| off(e.to_string()))?;
    for dir in [folder, &place] {
        // The link itself, not what it points to, must not be someone else's.
        let real = fs::canonicalize(dir).map_err(|e| off(e.to_string()))?;
        let data = fs::symlink_metadata(&real).map_err(|e| off(e.to_string()))?;
        if Some(data.uid()) != own_uid() {
            return Err(off("another user owns it".into()));
        }
        if data.mode() & 0o022 != 0 {
            return Err(off("others may write it; chmod go-w it, or set KVF_CACHE_DIR".into()));
        }
    }
    if fs::symlink_metadata(&place).is_ok_and(|m| m.is_symlink()) {
        return Err(off(format!("{VERSION} is a link")));
    }
    Ok(place)
}

/// The user that this process's files belong to.
fn own_uid() -> Option<u32> {
    fs::metadata("/proc/self").ok().map(|m| m.uid())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(vars: &[(&str, &str)]) -> Result<PathBuf, String> {
        folder(&|name| vars.iter().find(|(k, _)| *k == name).map(|(_, v)| v.into()))
    }

    #[test]
    fn the_environment_names_the_folder() {
        let all = [("KVF_CACHE_DIR", "/k"), ("XDG_CACHE_HOME", "/x"), ("HOME", "/h")];
        assert_eq!(look(&all), Ok("/k".into()));
        assert_eq!(look(&all[1..]), Ok("/x/kvfuse".into()));
        assert_eq!(look(&all[2..]), Ok("/h/.cache/kvfuse".into()));
        assert_eq!(look(&[("XDG_CACHE_HOME", "relative"), ("HOME", "/h")]), Ok("/h/.cache/kvfuse".into()));
        assert!(look(&[]).is_err_and(|why| why.contains("HOME")));
        assert!(look(&[("KVF_CACHE_DIR", "off"), ("HOME", "/h")]).is_err());
    }
}
