//! `ppl` on a model that caches rows: exact rows change nothing, a broken reader shows, bytes add up; and what is refused.

mod v4_fixture;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use harness::backend::Choice;
use harness::error::Error;
use harness::model::v4::Model;
use harness::ppl::{self, Ask, Options, ReadPath, Row, Text};
use harness::report::Report;
use harness::run::Output;
use safetensors::tensor::Dtype;
use serde::Deserialize;
use serde_json::Value;
use v4_fixture::{Parts, changed, fixture};

/// 4 passages of 96 tokens below 32, as uint16.
fn corpus(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("kvfuse-v4-{}-{name}.npy", std::process::id()));
    let header = "{'descr': '<u2', 'fortran_order': False, 'shape': (4, 96), }";
    let mut file = b"\x93NUMPY\x01\x00".to_vec();
    let padded = format!("{header:<117}\n");
    file.extend((padded.len() as u16).to_le_bytes());
    file.extend(padded.as_bytes());
    file.extend((0..4 * 96_u32).flat_map(|i| (((i * i * 7 + i / 96 * 13 + 3) % 31) as u16).to_le_bytes()));
    std::fs::write(&path, file).unwrap();
    path
}

fn options(name: &str) -> Options {
    Options {
        text: Text { model: fixture().display().to_string(), corpus: Some(corpus(name)), passages: 4, ctx: 72, stream: false },
        codec: "v4_fp8,v4_mxfp4".into(),
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

fn row<'a>(report: &'a Report, name: &str) -> &'a Row {
    report.rows.iter().find(|r| r.codec == name).unwrap_or_else(|| panic!("no row {name}"))
}

#[test]
fn formats_of_rows_are_measured() {
    let out = std::env::temp_dir().join(format!("kvfuse-v4-{}-report", std::process::id()));
    let output = Output { out: Some(out.clone()), ..options("all").output };
    let streams = vec![Ask::Both, Ask::Window, Ask::Csa, Ask::Hca];
    let report = ppl::run(&Options { streams, output, ..options("all") }).unwrap();
    report.check().unwrap();
    let kl = |name: &str| row(&report, name).kl_mean;
    assert_eq!(row(&report, "identity").kl_max, 0.0);
    assert!(kl("v4_fp8") > 0.0 && kl("v4_fp8") < kl("v4_mxfp4") && kl("CONTROL_v4_fp8_misread") > 0.1);
    let fp8 = row(&report, "v4_fp8");
    let latent = fp8.latent.as_ref().unwrap();
    assert_eq!((latent.row_bytes, fp8.stored_bits_per_element), (Some(584.0), 9.125));
    assert!(latent.rel_mse_nope > 1e-5 && latent.rel_mse_rope < 1e-5, "{latent:?}");
    // 3 layers keep a window of 8, one 18 groups of 4, one 9 groups of 8, in 4 passages
    assert_eq!(latent.kinds.iter().map(|k| k.kept).collect::<Vec<u64>>(), [4 * 3 * 8, 4 * 18, 4 * 9]);
    assert_eq!(latent.kinds.iter().map(|k| k.written).collect::<Vec<u64>>(), [4 * 3 * 72, 4 * 18, 4 * 9]);
    let proof = fp8.proof.unwrap();
    assert_eq!(proof.bytes_written, 584 * 4 * (3 * 72 + 18 + 9));
    assert_eq!(proof.bytes_read, proof.bytes_read_expected);
    let csa = row(&report, "v4_fp8:csa");
    let kinds = &csa.latent.as_ref().unwrap().kinds;
    assert_eq!(kinds.iter().map(|k| k.coded).collect::<Vec<bool>>(), [false, true, false]);
    let wanted = (584.0 * 18.0 + 1024.0 * (24.0 + 9.0)) / 51.0 / 64.0;
    assert!((csa.stored_bits_per_element - wanted).abs() < 1e-9, "{}", csa.stored_bits_per_element);
    assert_eq!(csa.latent.as_ref().unwrap().index_queries, 4 * (72 - 19));
    report.write(&out).unwrap();
    let markdown = std::fs::read_to_string(out.join("report.md")).unwrap();
    assert!(markdown.contains("## Rows of the cache") && markdown.contains("rel-MSE rope"));
    assert!(std::fs::read_to_string(out.join("report.html")).unwrap().contains("Rows of the cache"));
    assert_eq!(Report::read(&out).unwrap().rows.len(), report.rows.len());
    std::fs::remove_dir_all(out).unwrap();
}

#[test]
fn chunks_change_nothing() {
    let report = ppl::run(&Options { read_path: ReadPath::Decode, ..options("decode") }).unwrap();
    report.check().unwrap();
    let whole = ppl::run(&options("whole")).unwrap();
    for name in ["v4_fp8", "v4_mxfp4"] {
        let (one, other) = (row(&report, name), row(&whole, name));
        assert!(one.decode_agreement.unwrap().kl_mean < 1e-7, "{:?}", one.decode_agreement);
        assert!((one.kl_mean - other.kl_mean).abs() <= 0.02 * other.kl_mean, "{} {}", one.kl_mean, other.kl_mean);
    }
    let raw = ppl::run(&Options { read_path: ReadPath::Snapshot, score: Some("64..72".into()), ..options("snapshot") }).unwrap();
    raw.check().unwrap();
    assert_eq!(row(&raw, "v4_fp8").gate.pass, None);
    assert!(row(&raw, "v4_fp8").kl_mean > 0.0);
}

#[test]
fn streamed_weights_give_the_same_numbers() {
    let text = Text { stream: true, ..options("streamed").text };
    let (streamed, resident) = (ppl::run(&Options { text, ..options("streamed") }).unwrap(), ppl::run(&options("resident")).unwrap());
    assert_eq!(row(&streamed, "v4_mxfp4").kl, row(&resident, "v4_mxfp4").kl);
}

#[test]
fn wishes_that_do_not_fit_are_refused() {
    let why = |options: Options| {
        let error = ppl::run(&options).err().expect("a wish that does not fit was granted");
        assert_eq!(error.exit_code(), 2, "{error}");
        error.to_string()
    };
    assert!(why(Options { streams: vec![Ask::K], ..options("k") }).contains("key and value at once"));
    assert!(why(Options { layers: vec!["0=raw".into()], ..options("layers") }).contains("--layers"));
    assert!(why(Options { codec: "kvfuse-4".into(), ..options("preset") }).contains("kvfuse-4"));
    let bundled = Text { model: harness::assets::BUNDLED_MODEL.into(), corpus: None, passages: 1, ctx: 64, stream: false };
    assert!(why(Options { text: bundled.clone(), ..options("dense") }).contains("this model has none"));
    assert!(why(Options { text: bundled, codec: "int4".into(), streams: vec![Ask::Csa], ..options("csa") }).contains("both, k or v"));
}

fn failure(folder: &Path) -> String {
    let error = Model::load(folder).err().expect("a broken model was loaded");
    std::fs::remove_dir_all(folder).unwrap();
    assert_eq!(error.exit_code(), 4, "{error}");
    error.to_string()
}

#[test]
fn broken_checkpoints_are_named() {
    let tensors = |name: &str, change: &dyn Fn(&mut Parts)| failure(&changed(name, |_| (), change));
    let gone = |tensor: &'static str| move |parts: &mut Parts| drop(parts.remove(tensor));
    for tensor in ["layers.1.attn.indexer.compressor.ape", "layers.2.attn.wkv.scale", "hc_head_fn", "layers.0.ffn.experts.2.w2.weight"] {
        assert!(tensors("gone", &gone(tensor)).contains(&format!("tensor {tensor} is missing")));
    }
    let short = tensors("short", &|parts| {
        let part = parts.get_mut("layers.2.attn.compressor.ape").unwrap();
        (part.1, part.2) = (vec![4, 512], vec![0; 4 * 512 * 4]);
    });
    assert!(short.contains("layers.2.attn.compressor.ape has shape [4, 512]; config.json asks for [8, 512]"), "{short}");
    let dtype = tensors("dtype", &|parts| {
        let part = parts.get_mut("layers.1.attn.wkv.scale").unwrap();
        (part.0, part.2) = (Dtype::F32, vec![0; 4 * part.2.len()]);
    });
    assert!(dtype.contains("layers.1.attn.wkv.scale has dtype F32"), "{dtype}");
    let expert = tensors("expert", &|parts| parts.get_mut("layers.0.ffn.gate.tid2eid").unwrap().2[0] = 9);
    assert!(expert.contains("expert 9 of 3"), "{expert}");
}

#[test]
fn configs_that_cannot_run_are_refused() {
    let why = |name: &str, key: &'static str, value: Value| failure(&changed(name, move |config| config[key] = value.clone(), |_| ()));
    assert!(why("zero", "o_groups", 0.into()).contains("zero"));
    assert!(why("scores", "scoring_func", "softmax".into()).contains("softmax"));
    assert!(why("few", "compress_ratios", vec![0, 4].into()).contains("compress_ratios"));
    assert!(why("heads", "num_key_value_heads", 2.into()).contains("2 kv heads"));
    assert!(why("rope", "rope_scaling", serde_json::json!({"type": "yarn"})).contains("needs a positive \"factor\""));
    assert!(matches!(ppl::open_text(&options("audit").text), Err(Error::Unsupported { .. })));
}

#[derive(Deserialize)]
struct Table {
    rows: Vec<Theirs>,
}

/// A row of an independent implementation's table.
#[derive(Deserialize)]
struct Theirs {
    codec: String,
    kinds: Vec<String>,
    read_path: String,
    rel_mse: HashMap<String, f64>,
    dlnppl: Vec<f64>,
    kl: Vec<f64>,
}

/// The first passage's snapshot of the trained model. `kakeya_` formats are the very ones; ours round the numbers without a
/// position to bf16 before they code them, as engines do, and 64 positions are few.
#[test]
fn a_snapshot_reproduces_the_independent_numbers() {
    let Some(folder) = std::env::var_os("KVF_V4_MODEL") else {
        println!("SKIPPED: KVF_V4_MODEL names no model; the table is of a trained one that is not in the repository");
        return;
    };
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v4/oracle.json");
    let table: Table = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let model = folder.into_string().unwrap();
    let same = [("v4_bf16", "bf16"), ("v4_fp8", "fp8_584"), ("v4_mxfp4", "mxfp4_368"), ("kakeya_e8q10", "e8_q10_all")];
    let report = ppl::run(&Options {
        text: Text { model, corpus: None, passages: 1, ctx: 2112, stream: false },
        codec: "v4_bf16,v4_fp8,v4_mxfp4,kakeya_e8q10,kakeya_e8q10:window,kakeya_e8q10:csa,kakeya_e8q10:hca".into(),
        read_path: ReadPath::Snapshot,
        ..options("oracle")
    })
    .unwrap();
    for row in report.rows.iter().filter(|row| !["identity", "self"].contains(&&*row.codec) && !row.codec.starts_with("CONTROL")) {
        let (plain, kind) = row.codec.split_once(':').map_or((&*row.codec, None), |(plain, kind)| (plain, Some(kind)));
        let theirs = same.iter().find(|(ours, _)| *ours == plain).unwrap().1;
        let is = |t: &&Theirs| t.codec == theirs && t.read_path == "snapshot" && kind.map_or(t.kinds.len() == 3, |kind| t.kinds == [kind]);
        let wanted = table.rows.iter().find(is).unwrap();
        let (gap, share) = (row.dlnppl[0] - wanted.dlnppl[0], row.kl[0] / wanted.kl[0]);
        println!("{}: gap {gap:.1e}, KL {:.4e} against {:.4e}", row.codec, row.kl[0], wanted.kl[0]);
        let (most, factor) = if plain.starts_with("kakeya_") || plain == "v4_bf16" { (1e-4, 1.03) } else { (1e-3, 1.6) };
        assert!(gap.abs() < most && share < factor && share > 1.0 / factor, "{}", row.codec);
        for kind in row.latent.iter().flat_map(|latent| &latent.kinds).filter(|kind| kind.coded) {
            let wanted = wanted.rel_mse[&kind.kind];
            // theirs is of 8 passages; a passage has 16 rows a layer of this kind
            let share = if kind.kind == "hca" { 0.15 } else { 0.05 };
            let off = kind.rel_mse / wanted - 1.0;
            assert!(off.abs() < share, "{} {}: {} against {wanted}", row.codec, kind.kind, kind.rel_mse);
        }
    }
}
