//! What identifies a cubin: everything that could change its bytes, and nothing that could not.

use std::fmt;

use sha2::{Digest, Sha256};

use super::entry::FORMAT;

/// A hash of text, options, NVRTC's version and the entry format.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key([u8; 32]);

impl Key {
    /// The key of `cuda` compiled with `options` (the target among them) by NVRTC `version`.
    pub fn new(cuda: &str, options: &[String], version: (i32, i32)) -> Self {
        let mut hash = Sha256::new();
        hash.update(FORMAT.to_le_bytes());
        hash.update(version.0.to_le_bytes());
        hash.update(version.1.to_le_bytes());
        for option in options {
            part(&mut hash, option);
        }
        hash.update(u64::MAX.to_le_bytes());
        // #line names the files of a checkout; moving it must not empty the cache.
        for line in cuda.lines().filter(|l| !l.trim_start().starts_with("#line")) {
            part(&mut hash, line);
        }
        Key(hash.finalize().into())
    }

    pub(super) fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// With its length before it, so that no two lists of parts hash alike.
fn part(hash: &mut Sha256, text: &str) {
    hash.update((text.len() as u64).to_le_bytes());
    hash.update(text.as_bytes());
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_matters_changes_it() {
        let options = |arch: &str| vec!["--fmad=false".to_string(), arch.to_string()];
        let base = Key::new("#line 3 \"/a/x.rs\"\nint a;\n", &options("sm_90a"), (13, 0));
        assert_eq!(base, Key::new("int a;\n  #line 9 \"/b/x.rs\"\n", &options("sm_90a"), (13, 0)));
        let others = [
            Key::new("int b;\n", &options("sm_90a"), (13, 0)),
            Key::new("int a;\n", &options("sm_80"), (13, 0)),
            Key::new("int a;\n", &options("sm_90a"), (13, 1)),
            Key::new("int a;\n", &options("sm_90a"), (12, 0)),
            Key::new("int\na;\n", &options("sm_90a"), (13, 0)),
            Key::new("int a;\n", &["--fmad=falsesm_90a".to_string()], (13, 0)),
            Key::new("sm_90a\nint a;\n", &["--fmad=false".to_string()], (13, 0)),
        ];
        assert!(others.iter().all(|o| *o != base));
        assert_eq!(base.to_string().len(), 64);
    }
}
