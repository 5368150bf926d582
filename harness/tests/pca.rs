//! The PCA codec in a small run: sizes come from the rows, raw ones count as bf16, and every switch changes what it should.

use harness::backend::Choice;
use harness::ppl::{self, Ask, Options, ReadPath, Row, Text};
use harness::report::Report;
use harness::run::Output;
use harness::{assets, seeds};

fn options(codec: &str, read_path: ReadPath) -> Options {
    Options {
        text: Text { model: assets::BUNDLED_MODEL.into(), corpus: None, passages: 1, ctx: 160, stream: false },
        codec: codec.into(),
        streams: vec![Ask::Both],
        skip_layers: "0".into(),
        layers: Vec::new(),
        read_path,
        chunk: 32,
        score: Some("128..160".into()),
        calibration: None,
        fit_text: None,
        backend: Choice::Cpu,
        output: Output { seed: 1, ..Output::default() },
    }
}

fn run(codec: &str, read_path: ReadPath) -> Report {
    let report = ppl::run(&options(codec, read_path)).unwrap();
    report.check().unwrap();
    report
}

fn row<'a>(report: &'a Report, name: &str) -> &'a Row {
    report.rows.iter().find(|row| row.codec == name).unwrap_or_else(|| panic!("no row {name}"))
}

#[test]
fn bits_are_those_of_the_blocks_and_of_what_stays_raw() {
    let names = "pca_b4_n64_k8_r32_vr100,pca_b4_n64_k8_r32_vr100:k,pca_b4_n64_k8_r32_vr100_raw0.5,pca_b2_n64_k8_r32_vr100";
    let snapshot = run(names, ReadPath::Snapshot);
    let whole = row(&snapshot, "pca_b4_n64_k8_r32_vr100:sim");
    // a block of 64 rows of 128 coordinates: scale, rank, mean, 32 components; 8 centres; segments, t, norm, 4 bits each
    let block = 4 + 2 + 256 + 32 * 256 + 2 + 8 * 64 + 64 * 3 / 8 + 64 * 4 + 64 * 16;
    let bits = 8.0 * f64::from(block) / (64.0 * 128.0);
    assert_eq!((whole.stored_bits_per_element, whole.sizes.raw), (bits, 0));
    assert_eq!(row(&snapshot, "pca_b4_n64_k8_r32_vr100:k").stored_bits_per_element, 0.5 * (bits + 16.0));
    let inner = row(&snapshot, "pca_b4_n64_k8_r32_vr100_raw0.5:sim");
    assert!((inner.stored_bits_per_element - (4.0 * bits + 2.0 * 16.0) / 6.0).abs() < 1e-12);
    assert!(inner.kl_mean < whole.kl_mean && whole.kl_mean < row(&snapshot, "pca_b2_n64_k8_r32_vr100:sim").kl_mean);
    // in the forward pass the last 32 of 160 tokens fill no block and stay raw
    let forward = run("pca_b4_n64_k8_r32_vr100", ReadPath::InForward);
    let own = row(&forward, "pca_b4_n64_k8_r32_vr100:sim");
    assert!((own.stored_bits_per_element - (0.8 * bits + 0.2 * 16.0)).abs() < 1e-12);
    assert_eq!(own.sizes.coded_bits(), Some(bits));
    let all = run("pca_b4_n64_k8_r32_vr100", ReadPath::All);
    assert_eq!(row(&all, "pca_b4_n64_k8_r32_vr100:sim").dlnppl, own.dlnppl);
}

#[test]
fn what_is_fitted_to_the_model_is_in_use() {
    let names = "pca_v13_n64_r32,pca_v13_n64_r32_noqp,pca_v13_n64_r32_fitted,pca_v13_n64_r32_noqp_ip_compat/pca_v13_n64_r32";
    let report = run(names, ReadPath::Snapshot);
    let rows: Vec<&Row> = report.rows.iter().filter(|row| row.codec.starts_with("pca_")).collect();
    assert_eq!(rows.len(), 4);
    for (at, one) in rows.iter().enumerate() {
        assert!(rows.iter().skip(at + 1).all(|other| other.dlnppl != one.dlnppl), "{}", one.codec);
    }
    // keys without preconditioning have less plain error, and those without norms much more
    assert!(rows[1].rel_mse_k < rows[0].rel_mse_k && rows[3].rel_mse_k > 2.0 * rows[1].rel_mse_k);
    let fitted = report.fitted.unwrap();
    assert_eq!((fitted.tokens, fitted.text_sha256.map(|sha256| sha256.len())), (4096, Some(64)));
    // 6 layers of 2 heads, both triangles of 128; 8 levels for keys, 4 for values
    assert_eq!(fitted.static_bytes[0].1, 6 * 2 * 2 * 4 * 128 * 129 / 2 + 4 * 12);
    assert_eq!(fitted.static_bytes[1].1, 4 * 12);
}

#[test]
fn what_it_cannot_do_is_said_before_the_run() {
    let why = |codec: &str, path| ppl::Plan::of(&options(codec, path)).err().unwrap();
    for path in [ReadPath::Decode, ReadPath::Serving] {
        let error = why("pca_v13", path);
        assert!(error.to_string().contains("once they are full") && error.exit_code() == 2, "{error}");
    }
    assert!(why("pca_b3_raw6", ReadPath::All).to_string().contains("raw layer 6 of 6"));
    assert!(why("pca_b3_post_qp", ReadPath::All).to_string().contains("exclude each other"));
    assert!(why("pca_b3_r129", ReadPath::All).to_string().contains("1 to 128"));
}

#[test]
fn one_basis_fitted_ahead_goes_through_the_packed_cache() {
    let report = run("pca_static_4,kvfuse-4,kvfuse-4:no-metric", ReadPath::All);
    let [fixed, ours, same] = ["pca_static_4", "kvfuse-4", "kvfuse-4:no-metric"].map(|name| row(&report, name));
    assert_eq!(fixed.stored_bits_per_element, ours.stored_bits_per_element);
    assert_eq!(fixed.dlnppl, same.dlnppl);
    assert!(fixed.dlnppl != ours.dlnppl && fixed.proof.is_some());
    // plain components lose less of the rows and more of what the model reads of them
    assert!(fixed.rel_mse_k < ours.rel_mse_k);
}

#[test]
fn a_small_experiment() {
    let names = ["pca_v13_raw0.5", "e8w4", "fp8"];
    let options =
        seeds::Options { model: assets::BUNDLED_MODEL.into(), corpus: None, fit_text: None, passages: 2, prefix: 512, scored: 32, only: Some(names.join(",")), backend: Choice::Cpu, output: Output { seed: 1, ..Output::default() } };
    let found = seeds::run(&options).unwrap();
    found.check().unwrap();
    assert_eq!(found.cells.iter().map(|cell| cell.codec.as_str()).collect::<Vec<_>>(), names);
    let (recipe, e8) = (&found.cells[0], &found.cells[1]);
    // raw layers count: two of six
    let alone = recipe.bits_of_coded.unwrap();
    assert!((recipe.bits - (4.0 * alone + 2.0 * 16.0) / 6.0).abs() < 1e-12);
    assert!(recipe.bits > e8.bits && recipe.in_forward.kl > e8.in_forward.kl);
    // the kernel's arithmetic costs little beside the codec
    let seeds::Parts::Apart(apart) = &e8.parts else { panic!("{:?}", e8.parts) };
    assert!(apart.attention_kl.abs() < 0.2 * apart.codec_kl && apart.kernel.is_none());
    assert!((apart.codec_kl + apart.attention_kl - e8.in_forward.kl).abs() < 1e-12);
    assert!(matches!(recipe.parts, seeds::Parts::CodecAlone) && matches!(found.cells[2].parts, seeds::Parts::Together));
    assert!(found.table().contains("| `e8w4` |"), "{}", found.table());
    let unknown = seeds::Options { only: Some("e8w5".into()), ..options.clone() };
    assert!(seeds::run(&unknown).unwrap_err().to_string().contains("no cell"));
    assert!(seeds::run(&seeds::Options { prefix: 500, ..options }).unwrap_err().to_string().contains("multiple of 512"));
}
