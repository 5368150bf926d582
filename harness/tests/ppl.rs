//! A small run from end to end: exact rows change nothing, a broken codec shows, and finer codecs lose less.

use harness::attention::{Coded, Coder, Dense, Geometry, Own, Simulated};
use harness::backend::{self, Choice};
use harness::corpus::Corpus;
use harness::model::Model;
use harness::ppl::{self, Ask, LogProbs, Options, ReadPath, Text};
use harness::report::Report;
use harness::run::Output;
use harness::{assets, error};
use kernels_gen::registry::codec;

fn options() -> Options {
    Options {
        text: Text { model: assets::BUNDLED_MODEL.into(), corpus: None, passages: 2, ctx: 128, stream: false },
        codec: "bf16,int4,e8w4,e8q38".into(),
        streams: vec![Ask::Both],
        skip_layers: "0".into(),
        layers: Vec::new(),
        read_path: ReadPath::All,
        chunk: 32,
        score: None,
        calibration: None,
        fit_text: None,
        backend: Choice::Cpu,
        output: Output { seed: 1, ..Output::default() },
    }
}

fn text(passages: usize, ctx: usize) -> Text {
    Text { passages, ctx, ..options().text }
}

fn kl(report: &Report, name: &str) -> f64 {
    report.rows.iter().find(|r| r.codec == name).unwrap_or_else(|| panic!("no row {name}")).kl_mean
}

#[test]
fn a_small_run_orders_the_codecs() {
    let out = std::env::temp_dir().join(format!("kvfuse-ppl-{}", std::process::id()));
    let output = Output { out: Some(out.clone()), ..options().output };
    let report = ppl::run(&Options { output, ..options() }).unwrap();
    report.check().unwrap();
    let kl = |name: &str| kl(&report, name);
    assert_eq!(kl("identity"), 0.0);
    assert!(kl("self") < 1e-9, "{}", kl("self"));
    assert!(kl("bf16") < kl("e8q38") / 5.0 && kl("e8q38") < kl("e8w4") / 5.0 && kl("e8q38") < kl("int4") / 5.0);
    assert!(kl("int4") < 0.1 && kl("CONTROL_int4_misread") > 1.0);
    report.write(&out).unwrap();
    check_files(&out, &report);
    std::fs::remove_dir_all(&out).unwrap();
}

fn check_files(folder: &std::path::Path, report: &Report) {
    let json: serde_json::Value = serde_json::from_slice(&std::fs::read(folder.join("report.json")).unwrap()).unwrap();
    for key in ["rows", "read_path", "backend", "date", "seconds", "command", "environment", "model", "corpus", "valid"] {
        assert!(!json[key].is_null(), "report.json lacks {key}");
    }
    assert_eq!((json["read_path"].as_str(), json["corpus"]["score"][0].as_u64()), (Some("all"), Some(64)));
    assert_eq!(json["model"]["sha256"].as_str().unwrap().len(), 64);
    let rows = json["rows"].as_array().unwrap();
    assert_eq!(rows.len(), report.rows.len());
    for row in rows {
        for key in ["stored_bits_per_element", "ppl_ratio", "kl_mean", "kl_p999", "top1", "rel_mse_k", "rel_mse_v"] {
            assert!(row[key].is_number(), "{} lacks {key}", row["codec"]);
        }
        assert!(row["ppl_ratio_ci95"][0].as_f64() <= row["ppl_ratio"].as_f64() && row["ppl_ratio"].as_f64() <= row["ppl_ratio_ci95"][1].as_f64());
    }
    let markdown = std::fs::read_to_string(folder.join("report.md")).unwrap();
    assert!(markdown.contains("| int4 ") && !markdown.contains("INVALID"));
}

#[test]
fn one_passage_has_no_interval() {
    let report = ppl::run(&Options { text: text(1, 128), codec: "int4:k,int4:v".into(), ..options() }).unwrap();
    report.check().unwrap();
    assert!(report.rows.iter().all(|r| r.ppl_ratio_ci95[0].is_nan()));
    let [k, v] = ["int4:k", "int4:v"].map(|name| report.rows.iter().find(|r| r.codec == name).unwrap());
    assert!(k.rel_mse_v == 0.0 && v.rel_mse_k == 0.0 && k.rel_mse_k > 1e-3 && k.kl_mean != v.kl_mean);
}

#[test]
fn mistakes_are_found_before_the_model_runs() {
    let failure = |options: Options| {
        let error = ppl::run(&options).err().unwrap();
        (error.exit_code(), error.to_string())
    };
    assert!(matches!(failure(Options { codec: "e8w9".into(), ..options() }), (2, t) if t.contains("e8wW")));
    assert!(matches!(failure(Options { score: Some("9..4".into()), ..options() }), (2, t) if t.contains("no position")));
    assert!(matches!(failure(Options { text: text(17, 128), ..options() }), (2, t) if t.contains("16")));
    assert!(matches!(failure(Options { text: text(2, 9999), ..options() }), (2, t) if t.contains("2560")));
    assert!(matches!(failure(Options { text: Text { model: "nothing-here".into(), ..options().text }, ..options() }), (4, t) if t.contains("nothing-here")));
    assert!(matches!(failure(Options { text: Text { corpus: Some("/nowhere.npy".into()), ..options().text }, ..options() }), (4, t) if t.contains("/nowhere.npy")));
}

/// The packed cache and its decode path lose what the codec's own round trip loses. The two runs round their queries
/// differently, so later layers see other codes: they are alike in size, not equal.
#[test]
fn the_coded_cache_agrees_with_its_simulation() -> error::Result<()> {
    let model = Model::load(&assets::model(assets::BUNDLED_MODEL)?)?;
    let corpus = Corpus::read(&assets::passages()?)?;
    let (geometry, ids) = (Geometry::of(&model.config), &corpus.passage(0)[..128]);
    let e8 = codec("e8q38").map_err(error::Error::from)?;
    let base = LogProbs::of(&model.logits(ids, 64, 128, &mut Dense::new(geometry))?);
    let simulated = model.logits(ids, 64, 128, &mut Simulated::new(geometry, Some(Coder::Codec(e8)), Some(Coder::Codec(e8)), Own::Coded))?;
    let mut coded = Coded::new(backend::open(Choice::Cpu)?.as_ref(), e8, geometry, (0..geometry.layers).collect(), 128)?;
    let coded = model.logits(ids, 64, 128, &mut coded)?;
    let mean = |logits| base.compare(logits, &corpus.passage(0)[65..129]).iter().map(|s| s.kl).sum::<f64>() / 64.0;
    let between = LogProbs::of(&simulated).compare(&coded, &corpus.passage(0)[65..129]).iter().map(|s| s.kl).sum::<f64>() / 64.0;
    assert!(between < mean(&simulated) && mean(&coded) < 2.0 * mean(&simulated) && mean(&simulated) < 2.0 * mean(&coded), "{between:e} {:e} {:e}", mean(&coded), mean(&simulated));
    Ok(())
}

/// Everything but times, which no two runs share.
fn without_times(report: &Report) -> serde_json::Value {
    fn strip(value: &mut serde_json::Value) {
        if let Some(object) = value.as_object_mut() {
            ["seconds", "date", "command"].iter().for_each(|key| drop(object.remove(*key)));
            object.values_mut().for_each(strip);
        } else if let Some(list) = value.as_array_mut() {
            list.iter_mut().for_each(strip);
        }
    }
    let mut value = serde_json::to_value(report).unwrap();
    strip(&mut value);
    value
}

#[test]
fn two_runs_with_the_same_seed_write_the_same_json() {
    let options = Options { text: text(2, 576), codec: "int4,kvfuse-4:k,pca_b3".into(), ..options() };
    let run = || without_times(&serde_json::from_str(&ppl::run(&options).unwrap().json().unwrap()).unwrap());
    assert_eq!(run().to_string(), run().to_string());
}

/// Of the bootstrap alone: other draws give other intervals, and change nothing else.
#[test]
fn the_seed_is_in_use() {
    let run = |seed| {
        let output = Output { seed, ..options().output };
        ppl::run(&Options { text: text(8, 64), codec: "int4".into(), output, ..options() }).unwrap()
    };
    let (one, other) = (run(1), run(2));
    let differing = |f: fn(&ppl::Row) -> f64| one.rows.iter().zip(&other.rows).any(|(a, b)| f(a) != f(b));
    assert!(differing(|row| row.kl_mean_boot95[0]) && !differing(|row| row.kl_mean) && !differing(|row| row.ppl_ratio));
}

#[test]
fn streaming_and_resuming_change_no_number() {
    let out = std::env::temp_dir().join(format!("kvfuse-resume-{}", std::process::id()));
    let small = Options { text: text(2, 64), codec: "int4,fp8".into(), ..options() };
    let whole = ppl::run(&small).unwrap();
    let streamed = Options { text: Text { stream: true, ..text(2, 64) }, ..small.clone() };
    assert_eq!(without_times(&ppl::run(&streamed).unwrap()), without_times(&whole));
    let output = Output { out: Some(out.clone()), ..small.output.clone() };
    ppl::run(&Options { text: text(1, 64), output: output.clone(), ..small.clone() }).unwrap();
    let again = Options { output: Output { resume: true, ..output.clone() }, ..small.clone() };
    assert_eq!(without_times(&ppl::run(&again).unwrap()), without_times(&whole));
    let other = Options { text: text(2, 65), ..again };
    assert!(ppl::run(&other).err().unwrap().to_string().contains("another ctx"));
    std::fs::remove_dir_all(out).unwrap();
}

#[test]
fn token_by_token_gives_the_same_bits_as_all_at_once() {
    let decode = Options { read_path: ReadPath::Decode, text: text(1, 80), score: Some("64..80".into()), ..options() };
    let report = ppl::run(&decode).unwrap();
    report.check().unwrap();
    for name in ["bf16", "int4", "e8w4", "e8q38"] {
        let row = report.rows.iter().find(|r| r.codec == name).unwrap();
        assert!(row.decode_agreement.unwrap().exact, "{name}: {:?}", row.decode_agreement);
    }
    let all = ppl::run(&Options { read_path: ReadPath::All, ..decode }).unwrap();
    // the base takes other chunks, so its own last bits differ
    assert!((kl(&report, "int4") / kl(&all, "int4") - 1.0).abs() < 1e-3);
}

#[test]
fn read_paths_differ_where_they_should() {
    let run = |read_path, score: &str, codec: &str| {
        let report = ppl::run(&Options { read_path, score: Some(score.into()), codec: codec.into(), ..options() }).unwrap();
        report.check().unwrap();
        assert_eq!(report.read_path, read_path.name());
        report
    };
    let all = run(ReadPath::All, "96..128", "int4");
    let inside = run(ReadPath::InForward, "96..128", "int4");
    let snapshot = run(ReadPath::Snapshot, "96..128", "int4");
    let serving = run(ReadPath::Serving, "96..128", "int4");
    assert!(kl(&snapshot, "int4") < kl(&all, "int4") && kl(&serving, "int4") < kl(&all, "int4"));
    assert!((kl(&inside, "int4") / kl(&all, "int4") - 1.0).abs() < 0.5);
    let decided = |report: &Report| report.rows.iter().find(|r| r.codec == "int4").unwrap().gate.pass;
    assert!(decided(&all).is_some() && decided(&serving).is_none() && decided(&snapshot).is_none());
    // one chunk for everything: a serving path never reads its codes, which is why it does not gate
    let blind = Options { read_path: ReadPath::Serving, chunk: 128, codec: "int4".into(), ..options() };
    let blind = ppl::run(&blind).unwrap();
    assert_eq!(kl(&blind, "int4"), 0.0);
    assert!(!blind.valid && blind.invalid[0].contains("looks good"), "{:?}", blind.invalid);
}

#[test]
fn raw_boundary_layers_lose_less() {
    let report = ppl::run(&Options { codec: "int4".into(), skip_layers: "0,1,2".into(), ..options() }).unwrap();
    report.check().unwrap();
    let rows = ["int4", "int4+skip1", "int4+skip2"];
    let [none, one, two] = rows.map(|name| kl(&report, name));
    assert!(two < one && one < none, "{none} {one} {two}");
    let skipped = report.rows.iter().find(|r| r.codec == "int4+skip2").unwrap();
    assert_eq!(skipped.layers.iter().filter(|l| l.rel_mse_k > 0.0).count(), 2);
    assert_eq!(skipped.stored_bits_per_element, (4.125 * 2.0 + 16.0 * 4.0) / 6.0);
}
