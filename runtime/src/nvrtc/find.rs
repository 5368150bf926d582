//! Where a library of CUDA's may lie: what the user names first, then the loader's path, then the usual places.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// A file to try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// A path, or a bare name for the loader to search.
    pub file: PathBuf,
    /// The user named exactly this file, so a failure to load it is an error.
    pub named: bool,
}

/// A library by its names, and the variables that say where it is.
pub(crate) struct Wanted {
    /// Variable of an exact file.
    file: &'static str,
    /// Variables of folders.
    folders: &'static [&'static str],
    /// Newest first.
    names: [&'static str; 3],
    /// Below a folder the user names, or, from the fourth on, below site-packages: the toolkit's and the wheels' places.
    inside: [&'static str; 5],
}

/// An older NVRTC compiles our kernels too, for an older driver.
pub(crate) const NVRTC: Wanted = Wanted { file: "KVF_NVRTC", folders: &["KVF_NVRTC_DIR"], names: ["libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so"], inside: ["", "lib", "lib64", "nvidia/cu13/lib", "nvidia/cuda_nvrtc/lib"] };

/// It often lies beside NVRTC.
pub(crate) const CUBLASLT: Wanted =
    Wanted { file: "KVF_CUBLASLT", folders: &["KVF_CUBLASLT_DIR", "KVF_NVRTC_DIR"], names: ["libcublasLt.so.13", "libcublasLt.so.12", "libcublasLt.so"], inside: ["", "lib", "lib64", "nvidia/cu13/lib", "nvidia/cublas/lib"] };

/// Every file to try for NVRTC, in order. `env` is the environment, so that tests can bring their own.
///
/// `KVF_NVRTC` (an exact file) alone if set; else `KVF_NVRTC_DIR`, the loader's path, `CUDA_HOME`,
/// `CUDA_PATH`, /usr/local/cuda, `VIRTUAL_ENV`, and the python3 on `PATH`.
pub fn candidates(env: &dyn Fn(&str) -> Option<OsString>) -> Vec<Candidate> {
    candidates_of(&NVRTC, env)
}

/// The same for any library.
pub(crate) fn candidates_of(wanted: &Wanted, env: &dyn Fn(&str) -> Option<OsString>) -> Vec<Candidate> {
    let set = |name: &str| env(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    if let Some(file) = set(wanted.file) {
        return vec![Candidate { file, named: true }];
    }
    let named = wanted.folders.iter().filter_map(|folder| set(folder));
    let mut files: Vec<PathBuf> = named.flat_map(|dir| in_folders(wanted, &dir, &wanted.inside)).collect();
    files.extend(wanted.names.map(PathBuf::from));
    let toolkits = [set("CUDA_HOME"), set("CUDA_PATH"), Some("/usr/local/cuda".into())];
    for toolkit in toolkits.into_iter().flatten() {
        let places = ["lib64", "lib", "targets/x86_64-linux/lib", "targets/sbsa-linux/lib"];
        files.extend(in_folders(wanted, &toolkit, &places));
    }
    for root in python_roots(set("VIRTUAL_ENV"), env("PATH")) {
        files.extend(in_wheels(wanted, &root));
    }
    let mut seen = std::collections::HashSet::new();
    files.retain(|f| seen.insert(f.clone()));
    files.into_iter().map(|file| Candidate { file, named: false }).collect()
}

fn in_folders(wanted: &Wanted, root: &Path, folders: &[&str]) -> Vec<PathBuf> {
    let files = folders.iter().flat_map(|f| wanted.names.map(|n| root.join(f).join(n)));
    files.filter(|p| p.is_file()).collect()
}

/// The prefixes of the virtual environment and of every python3 on the path, links resolved too.
fn python_roots(venv: Option<PathBuf>, path: Option<OsString>) -> Vec<PathBuf> {
    let mut roots: Vec<PathBuf> = venv.into_iter().collect();
    for bin in path.iter().flat_map(std::env::split_paths) {
        let python = bin.join("python3");
        if python.is_file() {
            roots.extend(bin.parent().map(Path::to_path_buf));
            roots.extend(python.canonicalize().ok().and_then(|p| p.ancestors().nth(2).map(Path::to_path_buf)));
        }
    }
    roots
}

/// `<root>/lib/python3.X/site-packages/nvidia/...`, newest Python first.
fn in_wheels(wanted: &Wanted, root: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(root.join("lib")).into_iter().flatten().flatten();
    let mut pythons: Vec<PathBuf> = entries.map(|e| e.path()).filter(|p| is_python(p)).collect();
    pythons.sort();
    let packages = |python: &PathBuf| ["site-packages", "dist-packages"].map(|p| python.join(p));
    pythons.iter().rev().flat_map(packages).flat_map(|p| in_folders(wanted, &p, &wanted.inside[3..])).collect()
}

fn is_python(path: &Path) -> bool {
    path.file_name().is_some_and(|n| n.to_string_lossy().starts_with("python3"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn touch(path: &Path) {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, b"").unwrap();
    }

    fn look(vars: &[(&str, &Path)]) -> Vec<Candidate> {
        let vars: Vec<(String, OsString)> = vars.iter().map(|(k, v)| (k.to_string(), v.as_os_str().into())).collect();
        candidates(&move |name| vars.iter().find(|(k, _)| k == name).map(|(_, v)| v.clone()))
    }

    #[test]
    fn an_exact_file_silences_every_other_place() {
        let found = look(&[("KVF_NVRTC", Path::new("/x/libnvrtc.so")), ("CUDA_HOME", Path::new("/cuda"))]);
        assert_eq!(found, [Candidate { file: "/x/libnvrtc.so".into(), named: true }]);
    }

    #[test]
    fn wheels_and_toolkits_are_found_in_order() {
        let root = std::env::temp_dir().join(format!("kvf-find-{}", std::process::id()));
        let own = root.join("own/nvidia/cu13/lib/libnvrtc.so.13");
        let toolkit = root.join("cuda/lib64/libnvrtc.so.12");
        let venv = root.join("venv/lib/python3.11/site-packages/nvidia/cu13/lib/libnvrtc.so.13");
        let system = root.join("usr/lib/python3.12/dist-packages/nvidia/cuda_nvrtc/lib/libnvrtc.so");
        for file in [&own, &toolkit, &venv, &system, &root.join("usr/bin/python3")] {
            touch(file);
        }
        let found = look(&[("KVF_NVRTC_DIR", &root.join("own")), ("CUDA_HOME", &root.join("cuda")), ("VIRTUAL_ENV", &root.join("venv")), ("PATH", &root.join("usr/bin"))]);
        let at = |p: &Path| found.iter().position(|c| c.file == p).unwrap_or_else(|| panic!("{p:?} in {found:?}"));
        let order = [at(&own), at(Path::new("libnvrtc.so.13")), at(&toolkit), at(&venv), at(&system)];
        assert!(order.is_sorted(), "{order:?}");
        assert!(found.iter().all(|c| !c.named));
        std::fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn cublaslt_lies_beside_nvrtc() {
        let root = std::env::temp_dir().join(format!("kvf-find-blas-{}", std::process::id()));
        touch(&root.join("libcublasLt.so.13"));
        let found = candidates_of(&CUBLASLT, &|name| (name == "KVF_NVRTC_DIR").then(|| root.clone().into()));
        assert_eq!(found[0].file, root.join("libcublasLt.so.13"));
        assert_eq!(found[1].file, Path::new("libcublasLt.so.13"));
        std::fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn an_empty_environment_still_asks_the_loader() {
        assert_eq!(look(&[("KVF_NVRTC", Path::new(""))])[0].file, Path::new("libnvrtc.so.13"));
    }
}
