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
        ("ppl --codec e8w9 --backend cpu", 2, "nearest first: e8wW"),
        ("ppl --score 3 --backend cpu", 2, "score range"),
        ("ppl --read-path sideways", 2, "in-forward"),
        ("ppl --skip-layers 3 --backend cpu", 2, "leave none to code"),
        ("ppl --skip-layers a --backend cpu", 2, "not a number"),
        ("ppl --chunk 0 --backend cpu", 2, "at least one token"),
        ("ppl --read-path snapshot --score 0..9 --backend cpu", 2, "prefix"),
        ("ppl --resume --backend cpu", 2, "--out"),
        ("sweep --codec e8w9", 2, "nearest first: e8wW"),
        ("sweep --codec ,", 2, "empty"),
        ("sweep --baseline fp9", 2, "fp9"),
        ("audit --rows 3", 2, "at least 16"),
        ("audit --passages 99", 2, "ask for 1 to 16"),
        ("compare /nowhere /nowhere", 4, "/nowhere"),
        ("report", 2, "Usage"),
        ("report /nowhere", 4, "/nowhere"),
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
    let output = harness(&format!("ppl --passages 1 --ctx 64 --score 40..64 --codec int4 --backend cpu --out {}", out.display()));
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(["identity", "self", "int4", "CONTROL_int4_misread"].iter().all(|name| table.contains(&format!("| {name} "))), "{table}");
    assert!(out.join("report.json").exists() && out.join("report.md").exists());
    std::fs::remove_dir_all(out).unwrap();
}

/// What a run found, with one count changed: the control fails, and the run with it.
#[test]
fn a_run_whose_bytes_do_not_add_up_is_invalid() {
    let out = temporary("bytes");
    let run = format!("ppl --passages 1 --ctx 64 --score 40..64 --codec int4 --backend cpu --out {} --resume", out.display());
    assert_eq!(harness(&run).status.code(), Some(0));
    let progress = out.join("progress.jsonl");
    let sound = std::fs::read_to_string(&progress).unwrap();
    let tally = serde_json::from_str::<serde_json::Value>(sound.lines().find(|line| line.contains("int4 passage 0")).unwrap()).unwrap()["found"]["tally"].clone();
    let written = tally["bytes_written"].as_u64().unwrap();
    let seen = |alike: u64, apart: u64| serde_json::json!({ "stored_alike": alike, "outputs_apart": apart });
    for (what, is, part) in [
        ("bytes_read", (tally["bytes_read"].as_u64().unwrap() - 32).into(), "int4 read"),
        ("bytes_written", (written + 1).into(), "int4 wrote"),
        ("seen", seen(written - 1, 0), "the kernel that counts stored"),
        ("seen", seen(written, 4), "4 bytes of outputs"),
    ] {
        let lines: Vec<String> = sound
            .lines()
            .map(|line| {
                let mut line: serde_json::Value = serde_json::from_str(line).unwrap();
                if line["piece"] == "int4 passage 0" {
                    line["found"]["tally"][what] = serde_json::Value::clone(&is);
                }
                line.to_string()
            })
            .collect();
        std::fs::write(&progress, lines.join("\n") + "\n").unwrap();
        let output = harness(&run);
        let told = String::from_utf8(output.stderr).unwrap();
        let report: serde_json::Value = serde_json::from_slice(&std::fs::read(out.join("report.json")).unwrap()).unwrap();
        assert_eq!(output.status.code(), Some(1), "{what}: {told}");
        assert!(told.contains(part) && report["valid"] == false, "{what}: {told}");
    }
    std::fs::remove_dir_all(out).unwrap();
}

#[test]
fn roundtrip_writes_rows_and_codes() {
    let [input, output, codes] = ["in.npy", "out.npy", "codes.npy"].map(temporary);
    let rows: Vec<f32> = (0..3 * 128).map(|i| ((i * 37 % 101) as f32 - 50.0) / 17.0).collect();
    npy::write_f32(&input, &[3, 128], &rows).unwrap();
    let shown = |path: &Path| path.display().to_string();
    let call = format!("roundtrip --codec e8w4 --in {} --out {} --codes {}", shown(&input), shown(&output), shown(&codes));
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

fn json(arguments: &str) -> serde_json::Value {
    let output = harness(arguments);
    assert_eq!(output.status.code(), Some(0), "{arguments}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn dry_runs_say_what_would_be_done() {
    let plan = json("ppl --dry-run --codec int4 --streams both,k --skip-layers 0,1 --passages 2 --ctx 64");
    assert_eq!(plan["rows"].as_array().unwrap().len(), 7);
    assert_eq!(plan["forward_passes"], 16);
    assert_eq!(json("sweep --dry-run --codec int4,e8w4")["baseline"], "fp8_e4m3_64");
    assert_eq!(json("audit --dry-run --passages 3")["forward_passes"], 3);
    assert_eq!(json("validate --dry-run --codec int4")["codecs"][0], "int4");
}

#[test]
fn a_run_whose_control_passes_is_invalid() {
    // one chunk for everything, raw: the codes are never read, and the broken codec looks perfect
    let blind = "ppl --read-path serving --chunk 64 --ctx 64 --passages 1 --codec int4 --backend cpu";
    let (code, text) = failure(blind);
    assert_eq!(code, 1);
    assert!(text.contains("invalid") && text.contains("CONTROL_int4_misread looks good"), "{text}");
}

#[test]
fn sweeps_and_audits_answer_and_repeat() {
    let [sweep, audit] = ["sweep", "audit"].map(temporary);
    let call = format!("sweep --passages 2 --ctx 64 --codec int4,e8q38 --json --out {}", sweep.display());
    let found = json(&call);
    let answers = found["answers"].as_array().unwrap();
    assert_eq!(answers.len(), 6);
    for answer in answers {
        assert_eq!((&answer["point"]["codec"], &answer["paired"]["codec"]), (&"e8q38".into(), &"e8q38".into()));
    }
    assert_eq!(json(&(call + " --resume"))["points"], found["points"]);
    let call = format!("audit --passages 1 --ctx 64 --rows 64 --null-draws 4 --shuffles 2 --json --out {}", audit.display());
    let found = json(&call);
    assert_eq!(found["findings"].as_array().unwrap().len(), 12);
    assert!(found["gaussian"][3]["mean"].as_f64().unwrap() > 0.09, "perfect Gaussian rows fire the published gate");
    assert_eq!(json(&(call + " --resume"))["findings"], found["findings"]);
    for folder in [sweep, audit] {
        let name = if folder.join("sweep.json").exists() { "sweep" } else { "audit" };
        assert!(folder.join(format!("{name}.html")).exists() && folder.join(format!("{name}.md")).exists());
        std::fs::remove_dir_all(folder).unwrap();
    }
}

#[test]
fn runs_are_compared_and_joined() {
    let [one, two, joined] = ["one", "two", "joined"].map(temporary);
    let run = |codec: &str, ctx: usize, out: &Path| {
        let call = format!("ppl --passages 3 --ctx {ctx} --codec {codec} --backend cpu --out {}", out.display());
        assert_eq!(harness(&call).status.code(), Some(0), "{call}");
    };
    run("int4,int4:k", 64, &one);
    run("e8q38", 64, &two);
    let (a, b) = (one.display(), two.display());
    let pairs = json(&format!("compare {a}:int4 {b}/report.json:e8q38 --json"));
    assert_eq!(pairs["pairs"][0]["verdict"], "B diverges less");
    assert_eq!(pairs["pairs"][0]["passages_better"], 0);
    assert_eq!(json(&format!("compare {a}:int4:k {a}:int4:k --json"))["pairs"][0]["verdict"], "the same");
    assert_eq!(json(&format!("compare {a} {b} --json"))["pairs"].as_array().unwrap().len(), 2);
    assert!(matches!(failure(&format!("compare {a}:e8q38 {b}:e8q38")), (2, text) if text.contains("it has identity")));
    assert_eq!(harness(&format!("report {a} {b} --out {}", joined.display())).status.code(), Some(0));
    let html = std::fs::read_to_string(joined.join("report.html")).unwrap();
    assert!(html.contains("Run 2") && html.contains("e8q38"));
    run("e8q38", 80, &two);
    assert!(matches!(failure(&format!("compare {a} {b}")), (2, text) if text.contains("different scored positions")));
    let output = harness(&format!("report {a} {b}"));
    assert!(String::from_utf8(output.stdout).unwrap().contains("do not compare their rows"));
    for folder in [one, two, joined] {
        std::fs::remove_dir_all(folder).unwrap();
    }
}
