//! The libcuda of our own (tests/c/fake_cuda.c): building it, and running a program on it.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Builds it into a folder of its own; `None`, said aloud, where that or NVRTC is not to be had.
pub fn build() -> Option<PathBuf> {
    if Command::new("gcc").arg("--version").output().is_err() || runtime::nvrtc::version().is_err() {
        eprintln!("SKIPPED: the fake driver needs gcc and libnvrtc");
        return None;
    }
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("fake-cuda-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/c/fake_cuda.c");
    let flags = ["-std=gnu11", "-Wall", "-Wextra", "-Werror", "-O1", "-fPIC", "-shared", "-o"];
    // Not libcuda.so.1: NVRTC opens that by itself, and calls what the fake does not have.
    let built = Command::new("gcc").args(flags).arg(folder.join("libcuda.so")).arg(&source).arg("-lpthread").output().unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    Some(folder)
}

/// Runs a program on it; what it prints.
pub fn run(folder: &Path, program: &Path, args: &[&str], vars: &[(&str, String)]) -> String {
    let mut run = Command::new(program);
    run.args(args).env("LD_LIBRARY_PATH", folder).env("KVF_TEST_FAKE", "1").current_dir(folder);
    let ran = run.envs(vars.iter().map(|(k, v)| (k, v))).output().unwrap();
    let text = String::from_utf8_lossy(&ran.stdout).into_owned() + &String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{program:?} {args:?} {vars:?}: {:?}\n{text}", ran.status);
    text
}
