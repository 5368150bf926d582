//! The C library from Python: the example runs as it stands. Skipped where python3 is absent.

use std::path::Path;
use std::process::Command;

#[test]
fn the_python_example_decodes() {
    if Command::new("python3").arg("--version").output().is_err() {
        eprintln!("SKIPPED: no python3 on the path");
        return;
    }
    // The cdylib that cargo built beside this test.
    let library = std::env::current_exe().unwrap().with_file_name("libruntime.so");
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/python/paged_decode.py");
    let ran = Command::new("python3").arg("-B").arg(example).env("KVFUSE_LIB", &library).env("KVF_CACHE_DIR", "off").output().unwrap();
    let text = String::from_utf8_lossy(&ran.stdout).into_owned() + &String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success() && text.lines().filter(|l| l.contains("apart by")).count() == 4, "{text}");
    eprintln!("{text}");
}
