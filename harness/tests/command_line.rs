//! The binary as a user meets it: exit codes, one clear sentence on stderr, files written.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use harness::npy::{self, Array};

fn harness(arguments: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_harness")).args(arguments.split_whitespace()).output().unwrap()
}

/// Exit code and stderr of a call that must fail without a panic.
fn failure(arguments: &str) -> (i32, String) {
    let output = harness(arguments);
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(!text.contains("panicked"), "{arguments}: {text}");
    (output.status.code().unwrap(), text)
}

fn temporary(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("kvfuse-cli-{}-{name}", std::process::id()))
}

#[test]
fn exit_codes() {
    for (arguments, code, part) in [
        ("", 2, "Usage"),
        ("pplx", 2, "ppl"),
        ("ppl --passages many", 2, "--passages"),
        ("ppl --codec e8w5 --backend cpu", 2, "nearest first: e8w4"),
        ("ppl --score 3 --backend cpu", 2, "score range"),
        ("ppl --ctx 0 --backend cpu", 2, "--ctx 0"),
        ("ppl --model /nowhere --backend cpu", 4, "/nowhere"),
        ("ppl --corpus /nowhere.npy --backend cpu", 4, "/nowhere.npy"),
        ("roundtrip --codec int4 --in /nowhere.npy --out /tmp/x.npy", 4, "/nowhere.npy"),
        ("emit --kernel store --codec int4 --arch sm_90", 2, "sm_90a"),
        ("emit --kernel store --codec int4 --d 96", 2, "96"),
        ("validate --d 100 --backend cpu", 2, "100"),
    ] {
        let (found, text) = failure(arguments);
        assert_eq!(found, code, "{arguments}: {text}");
        assert!(text.contains(part), "{arguments}: {text}");
    }
}

#[test]
fn a_missing_assets_folder_is_an_environment_error() {
    let output = Command::new(env!("CARGO_BIN_EXE_harness")).arg("ppl").env("KVF_ASSETS", "/nowhere").output().unwrap();
    assert_eq!(output.status.code(), Some(3));
    assert!(String::from_utf8(output.stderr).unwrap().contains("/nowhere"));
}

#[test]
fn ppl_prints_the_table_and_writes_the_report() {
    let out = temporary("report");
    let output = harness(&format!(
        "ppl --passages 1 --ctx 64 --score 40..64 --codec int4 --backend cpu --out {}",
        out.display()
    ));
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(
        ["identity", "self", "int4", "CONTROL_int4_misread"].iter().all(|name| table.contains(&format!("| {name} "))),
        "{table}"
    );
    assert!(out.join("report.json").exists() && out.join("report.md").exists());
    std::fs::remove_dir_all(out).unwrap();
}

#[test]
fn roundtrip_writes_rows_and_codes() {
    let [input, output, codes] = ["in.npy", "out.npy", "codes.npy"].map(temporary);
    let rows: Vec<f32> = (0..3 * 128).map(|i| ((i * 37 % 101) as f32 - 50.0) / 17.0).collect();
    npy::write_f32(&input, &[3, 128], &rows).unwrap();
    let shown = |path: &Path| path.display().to_string();
    let call =
        format!("roundtrip --codec e8w4 --in {} --out {} --codes {}", shown(&input), shown(&output), shown(&codes));
    assert_eq!(harness(&call).status.code(), Some(0));
    let decoded = Array::read(&output).unwrap().to_f32().unwrap();
    let error: f32 = rows.iter().zip(&decoded).map(|(a, b)| (a - b) * (a - b)).sum();
    assert!(error > 0.0 && error < 0.02 * rows.iter().map(|v| v * v).sum::<f32>());
    // 4 bits a number and one f16 side
    assert_eq!(Array::read(&codes).unwrap().shape, [3, 66]);
    npy::write_f32(&input, &[4, 96], &rows).unwrap();
    assert_eq!(failure(&call).0, 4);
    for path in [input, output, codes] {
        std::fs::remove_file(path).unwrap();
    }
}

#[test]
fn doctor_and_validate_and_emit_answer() {
    let text = |arguments: &str| {
        let output = harness(arguments);
        assert_eq!(output.status.code(), Some(0), "{arguments}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(text("doctor").contains("verdict"));
    let json: serde_json::Value = serde_json::from_str(&text("doctor --json")).unwrap();
    assert!(json["verdict"].is_string() && json["codecs"].as_array().unwrap().len() >= 4);
    assert!(text("validate --codec int4 --backend cpu").contains("agree: ok"));
    assert!(text("emit --kernel join_splits --codec int4 --stage tile").contains("program"));
    assert!(text("emit --kernel store --codec int4").contains("__global__"));
}
