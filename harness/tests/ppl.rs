//! A small run from end to end: exact rows change nothing, a broken codec shows, and finer codecs lose less.

use harness::attention::{Coded, Dense, Geometry, Pages, Simulated};
use harness::backend::{self, Choice};
use harness::corpus::Corpus;
use harness::model::Model;
use harness::ppl::{self, LogProbs, Options};
use harness::report::Report;
use harness::{assets, error};
use kernels_gen::registry::codec;

fn options() -> Options {
    Options {
        model: assets::BUNDLED_MODEL.into(),
        corpus: None,
        codec: "bf16,int4,e8w4,e8q38".into(),
        passages: 2,
        ctx: 128,
        score: None,
        backend: Choice::Cpu,
        out: None,
    }
}

#[test]
fn a_small_run_orders_the_codecs() {
    let out = std::env::temp_dir().join(format!("kvfuse-ppl-{}", std::process::id()));
    let report = ppl::run(&Options { out: Some(out.clone()), ..options() }).unwrap();
    report.check().unwrap();
    let kl = |name: &str| report.rows.iter().find(|r| r.codec == name).unwrap().kl_mean;
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
    for key in ["rows", "read_path", "backend", "date", "seconds", "command", "environment", "model", "corpus", "valid"]
    {
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
        assert!(
            row["ppl_ratio_ci95"][0].as_f64() <= row["ppl_ratio"].as_f64()
                && row["ppl_ratio"].as_f64() <= row["ppl_ratio_ci95"][1].as_f64()
        );
    }
    let markdown = std::fs::read_to_string(folder.join("report.md")).unwrap();
    assert!(markdown.contains("| int4 ") && !markdown.contains("INVALID"));
}

#[test]
fn one_passage_has_no_interval() {
    let report = ppl::run(&Options { passages: 1, codec: "int4:k,int4:v".into(), ..options() }).unwrap();
    report.check().unwrap();
    assert!(report.rows.iter().all(|r| r.ppl_ratio_ci95[0].is_nan()));
    let [k, v] = ["int4:k", "int4:v"].map(|name| report.rows.iter().find(|r| r.codec == name).unwrap());
    assert!(k.rel_mse_v == 0.0 && v.rel_mse_k == 0.0 && k.rel_mse_k > 1e-3 && k.kl_mean != v.kl_mean);
}

#[test]
fn mistakes_are_found_before_the_model_runs() {
    let text = |options: Options| {
        let error = ppl::run(&options).err().unwrap();
        (error.exit_code(), error.to_string())
    };
    assert!(matches!(text(Options { codec: "e8w5".into(), ..options() }), (2, t) if t.contains("e8w4")));
    assert!(matches!(text(Options { score: Some("9..4".into()), ..options() }), (2, t) if t.contains("no position")));
    assert!(matches!(text(Options { passages: 17, ..options() }), (2, t) if t.contains("16")));
    assert!(matches!(text(Options { ctx: 9999, ..options() }), (2, t) if t.contains("2560")));
    assert!(
        matches!(text(Options { model: "nothing-here".into(), ..options() }), (4, t) if t.contains("nothing-here"))
    );
    assert!(
        matches!(text(Options { corpus: Some("/nowhere.npy".into()), ..options() }), (4, t) if t.contains("/nowhere.npy"))
    );
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
    let simulated = model.logits(ids, 64, 128, &mut Simulated::new(geometry, Some(e8), Some(e8)))?;
    let mut coded = Coded::new(backend::open(Choice::Cpu)?.as_ref(), e8, geometry, Pages::new(128, 32))?;
    let coded = model.logits(ids, 64, 128, &mut coded)?;
    let mean = |logits| base.compare(logits, &corpus.passage(0)[65..129]).iter().map(|s| s.kl).sum::<f64>() / 64.0;
    let between =
        LogProbs::of(&simulated).compare(&coded, &corpus.passage(0)[65..129]).iter().map(|s| s.kl).sum::<f64>() / 64.0;
    assert!(
        between < mean(&simulated) && mean(&coded) < 2.0 * mean(&simulated) && mean(&simulated) < 2.0 * mean(&coded),
        "{between:e} {:e} {:e}",
        mean(&coded),
        mean(&simulated)
    );
    Ok(())
}
