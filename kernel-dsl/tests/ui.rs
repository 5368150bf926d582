//! Every rejection of the macros, with the words and the place that rustc shows.
//!
//! The texts around ours are rustc's, so they are exact for one version; another skips the test and says
//! so. After a change: `TRYBUILD=overwrite cargo test -p kernel-dsl --test ui`, then read each difference.

use std::process::Command;

const RUSTC: &str = "rustc 1.95.";

#[test]
fn rejections() {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let version = Command::new(rustc).arg("--version").output().map(|o| String::from_utf8_lossy(&o.stdout).into_owned());
    match version {
        Ok(v) if v.starts_with(RUSTC) => trybuild::TestCases::new().compile_fail("tests/ui/*.rs"),
        other => println!("SKIPPED rejections: the expected texts are those of {RUSTC}x, here is {other:?}"),
    }
}
