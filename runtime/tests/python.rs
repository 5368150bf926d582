//! The C library from Python: the examples run as they stand. Skipped where python3 is absent.

use std::path::Path;
use std::process::Command;

/// What an example prints; `None`, said aloud, without python3.
fn run(example: &str) -> Option<String> {
    if Command::new("python3").arg("--version").output().is_err() {
        eprintln!("SKIPPED: no python3 on the path");
        return None;
    }
    // The cdylib that cargo built beside this test.
    let library = std::env::current_exe().unwrap().with_file_name("libruntime.so");
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/python").join(example);
    let ran = Command::new("python3").arg("-B").arg(example).env("KVFUSE_LIB", &library).env("KVF_CACHE_DIR", "off").output().unwrap();
    let text = String::from_utf8_lossy(&ran.stdout).into_owned() + &String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{text}");
    eprintln!("{text}");
    Some(text)
}

#[test]
fn the_python_example_decodes() {
    let Some(text) = run("paged_decode.py") else { return };
    assert_eq!(text.lines().filter(|l| l.contains("apart by")).count(), 4, "{text}");
}

#[test]
fn rows_of_one_head_decode_from_python() {
    let Some(text) = run("latent_rows.py") else { return };
    assert_eq!(text.lines().filter(|l| l.contains("every bit equal")).count(), 2, "{text}");
}
