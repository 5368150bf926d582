//! Which tuning plans read: the one loaded by a call, else the file that `KVF_TUNING` names (`off`: none), else the one
//! shipped for the device.

use std::ffi::OsString;
use std::path::Path;
use std::sync::{PoisonError, RwLock};

use super::{Choice, Point, Tuning};
use crate::argument::Misuse;
use crate::error::Result;

/// Measured files that come with the library.
const SHIPPED: [&str; 1] = [include_str!("../../tuned/h200.tuning")];

static LOADED: RwLock<Option<Tuning>> = RwLock::new(None);

/// What a plan learns: choices for its kernel, and in words where they come from or why there are none.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Found {
    pub choices: Vec<(Point, Choice)>,
    pub note: String,
}

/// Reads a file; plans prepared from now on, in the whole process, go by it.
pub fn load(path: &Path) -> Result<()> {
    let tuning = read(path).map_err(Misuse::Other)?;
    *LOADED.write().unwrap_or_else(PoisonError::into_inner) = Some(tuning);
    Ok(())
}

/// Undoes [`load`].
pub fn forget() {
    *LOADED.write().unwrap_or_else(PoisonError::into_inner) = None;
}

fn read(path: &Path) -> std::result::Result<Tuning, String> {
    let text = std::fs::read_to_string(path).map_err(|e| format!("the tuning {}: {e}", path.display()))?;
    Tuning::parse(&text).map_err(|why| format!("the tuning {}: {why}", path.display()))
}

/// The choices for a kernel on a device.
pub(crate) fn find(device: &str, kernel: &str, hash: &str) -> Found {
    if let Some(tuning) = LOADED.read().unwrap_or_else(PoisonError::into_inner).as_ref() {
        return choose(tuning, device, kernel, hash, "the loaded tuning");
    }
    found(&|name| std::env::var_os(name), device, kernel, hash)
}

fn found(env: &dyn Fn(&str) -> Option<OsString>, device: &str, kernel: &str, hash: &str) -> Found {
    let none = |note: String| Found { note, ..Found::default() };
    match env("KVF_TUNING").filter(|v| !v.is_empty()) {
        Some(off) if off == "off" => none("own rules: KVF_TUNING is off".into()),
        Some(path) => match read(Path::new(&path)) {
            Ok(tuning) => choose(&tuning, device, kernel, hash, &format!("the tuning {}", path.to_string_lossy())),
            Err(why) => none(format!("own rules: {why}")),
        },
        None => match SHIPPED.iter().filter_map(|text| Tuning::parse(text).ok()).find(|t| t.device == device) {
            Some(tuning) => choose(&tuning, device, kernel, hash, "the shipped tuning"),
            None => none(format!("own rules: none is shipped for {device}; `harness tune` measures")),
        },
    }
}

fn choose(tuning: &Tuning, device: &str, kernel: &str, hash: &str, whose: &str) -> Found {
    let none = |note: String| Found { note, ..Found::default() };
    if tuning.device != device {
        return none(format!("own rules: {whose} is for {}, this is {device}", tuning.device));
    }
    let of_kernel: Vec<_> = tuning.entries.iter().filter(|e| e.kernel == kernel).collect();
    let choices: Vec<_> = of_kernel.iter().filter(|e| e.hash == hash).map(|e| (e.at, e.choice)).collect();
    match (of_kernel.len(), choices.len()) {
        (0, _) => none(format!("own rules: {whose} does not have {kernel}")),
        (_, 0) => none(format!("own rules: {kernel} has changed since {whose} was made; tune again")),
        (_, n) => Found { note: format!("sizes tuned: {n}, from {whose}"), choices },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tuning::Entry;

    fn tuning() -> Tuning {
        let choice = Choice { warps: 8, stages: 2, min_blocks: 2, tokens: 0 };
        let entry = Entry { kernel: "decode int4".into(), hash: "aa".into(), at: Point { rows: 1, tokens: 32 }, choice, us: 1.0, own_us: 2.0 };
        Tuning { device: "GPU".into(), entries: vec![entry] }
    }

    /// A file that a kernel's change has made useless is said by its plans; one that cannot be read would not be.
    #[test]
    fn what_is_shipped_is_read_and_serves_its_device() {
        for text in SHIPPED {
            let t = Tuning::parse(text).unwrap();
            assert!(t.entries.iter().all(|e| e.us < e.own_us), "{}", t.device);
            // It may hold no choice: then the rules won.
            let (kernel, hash) = t.entries.first().map_or(("decode int4", "aa"), |e| (&e.kernel, &e.hash));
            let note = found(&|_| None, &t.device, kernel, hash).note;
            assert!(note.contains("the shipped tuning") && note.starts_with("own rules") == t.entries.is_empty(), "{note}");
        }
    }

    #[test]
    fn a_tuning_serves_its_device_and_its_kernel_only() {
        let note = |device: &str, kernel: &str, hash: &str| choose(&tuning(), device, kernel, hash, "the tuning").note;
        assert_eq!(choose(&tuning(), "GPU", "decode int4", "aa", "the tuning").choices.len(), 1);
        assert_eq!(note("other", "decode int4", "aa"), "own rules: the tuning is for GPU, this is other");
        assert_eq!(note("GPU", "decode e8w4", "aa"), "own rules: the tuning does not have decode e8w4");
        assert_eq!(note("GPU", "decode int4", "bb"), "own rules: decode int4 has changed since the tuning was made; tune again");
    }

    #[test]
    fn the_environment_names_a_file() {
        let path = std::env::temp_dir().join(format!("kvf-tuning-{}", std::process::id()));
        let env = |name: &str| (name == "KVF_TUNING").then(|| path.clone().into_os_string());
        let ask = || found(&env, "GPU", "decode int4", "aa");
        assert!(ask().note.starts_with("own rules: the tuning ") && ask().choices.is_empty());
        std::fs::write(&path, tuning().to_string()).unwrap();
        assert_eq!(ask().choices, [(Point { rows: 1, tokens: 32 }, tuning().entries[0].choice)]);
        std::fs::write(&path, "kvfuse tuning 9\n").unwrap();
        assert!(ask().note.contains("tune again"), "{}", ask().note);
        assert!(load(&path).unwrap_err().to_string().contains("tune again"));
        std::fs::remove_file(&path).unwrap();
        let off = |_: &str| Some(OsString::from("off"));
        assert_eq!(found(&off, "GPU", "decode int4", "aa").note, "own rules: KVF_TUNING is off");
        assert!(found(&|_| None, "GPU", "decode int4", "aa").note.contains("none is shipped for GPU"));
    }
}
