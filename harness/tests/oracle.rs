//! The table of an independent implementation in PyTorch (`golden/oracle.json`: f32, rows coded and decoded, exact
//! attention over them, no packed bytes), row by row, for every codec that both have.
//!
//! On the CPU the first passage's snapshot; on a GPU all eight passages of both read paths.

use harness::assets;
use harness::backend::{self, Choice};
use harness::ppl::{self, Ask, Options, ReadPath, Text};
use harness::report::Report;
use harness::run::Output;
use serde::Deserialize;

/// Our name and theirs. `intB` has 2^B levels half a step off zero where theirs has 2^B - 1 around it, and `e8qQ` looks for
/// the nearest point within the box where theirs clamps the nearest one of all: with few levels that is another codec,
/// and theirs has a name of its own.
const SAME: [(&str, &str); 22] = [
    ("bf16", "bf16"),
    ("fp8_e4m3_64", "fp8_e4m3_64"),
    ("turboquant_4bit_nc", "tq_4bit_nc"),
    ("turboquant_k3v4_nc", "tq_k3v4_nc"),
    ("turboquant_3bit_nc", "tq_3bit_nc"),
    ("int8", "int8_had"),
    ("d4q10", "d4_q10"),
    ("d4q38", "d4_q38"),
    ("e8q10", "e8_q10"),
    ("e8q16", "e8_q16"),
    ("e8q38", "e8_q38"),
    ("e8q44", "e8_q44"),
    ("symmetric_int8", "int8_had"),
    ("symmetric_int6", "int6_had"),
    ("symmetric_int4", "int4_had"),
    ("symmetric_int3", "int3_had"),
    ("symmetric_int2", "int2_had"),
    ("kakeya_d4q10", "d4_q10"),
    ("kakeya_e8q4", "e8_q4"),
    ("kakeya_e8q7", "e8_q7"),
    ("kakeya_e8q10", "e8_q10"),
    ("kakeya_e8q38", "e8_q38"),
];

#[derive(Deserialize)]
struct Table {
    ppl_base: Base,
    rows: Vec<Theirs>,
}

#[derive(Deserialize)]
struct Base {
    all: f64,
    snapshot: f64,
}

#[derive(Deserialize)]
struct Theirs {
    codec: String,
    streams: String,
    read_path: String,
    bits: f64,
    ppl_ratio: f64,
    kl_mean: f64,
    rel_mse_k: Option<f64>,
    dlnppl: Vec<f64>,
    kl: Vec<f64>,
}

impl Table {
    fn read() -> Table {
        let path = assets::folder().unwrap().join("../harness/tests/golden/oracle.json");
        serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
    }

    /// The row of one of our codecs, `NAME`, `NAME:k`, `NAME:v` or `NAME:sim`.
    fn of(&self, name: &str, path: ReadPath) -> &Theirs {
        let (plain, way) = name.split_once(':').unwrap_or((name, "kv"));
        let theirs = SAME.iter().find(|(ours, _)| *ours == plain).unwrap().1;
        let streams = if way == "sim" { "kv" } else { way };
        let same = |row: &&Theirs| row.codec == theirs && row.streams == streams && row.read_path == path.name();
        self.rows.iter().find(same).unwrap_or_else(|| panic!("no row {theirs} {streams} {}", path.name()))
    }
}

fn run(codecs: &str, read_path: ReadPath, passages: usize, backend: Choice) -> Report {
    let score = if read_path == ReadPath::Snapshot { "2048..2112" } else { "1024..2112" };
    let options = Options {
        text: Text { model: assets::BUNDLED_MODEL.into(), corpus: None, passages, ctx: 2112, stream: false },
        codec: codecs.into(),
        streams: vec![Ask::Both],
        skip_layers: "0".into(),
        layers: Vec::new(),
        read_path,
        chunk: 256,
        score: Some(score.into()),
        calibration: None,
        fit_text: None,
        backend,
        output: Output::default(),
    };
    let report = ppl::run(&options).unwrap();
    report.check().unwrap();
    report
}

fn codec_rows(report: &Report) -> impl Iterator<Item = &ppl::Row> {
    let aside = |name: &str| ["identity", "self"].contains(&name) || name.starts_with("CONTROL_");
    report.rows.iter().filter(move |row| !aside(&row.codec))
}

#[test]
fn a_snapshot_reproduces_the_independent_numbers() {
    let codecs = "bf16,fp8,fp8:k,turboquant_4bit_nc,turboquant_4bit_nc:k,turboquant_4bit_nc:v,turboquant_3bit_nc,d4q10,d4q10:v,\
                  e8q38,e8q10,symmetric_int4,symmetric_int4:k,symmetric_int2,kakeya_e8q4,kakeya_e8q10,kakeya_e8q10:k,kakeya_e8q38";
    let table = Table::read();
    for row in codec_rows(&run(codecs, ReadPath::Snapshot, 1, Choice::Cpu)) {
        let theirs = table.of(&row.codec, ReadPath::Snapshot);
        let (ours, wanted) = ((row.dlnppl[0], row.kl[0]), (theirs.dlnppl[0], theirs.kl[0]));
        println!("{}: {ours:.6?} against {wanted:.6?}", row.codec);
        // a search of its own, with tables, takes another of two points that are equally near; levels as bytes are 3e-5 off
        let (gap, share) = match row.codec.split(['q', ':']).next() {
            Some("e8") => (3e-3, 0.12),
            Some("turbo") | Some("d4") => (3e-4, 0.02),
            _ => (1e-4, 0.01),
        };
        assert!((ours.0 - wanted.0).abs() < gap, "{}: {ours:?} against {wanted:?}", row.codec);
        assert!((ours.1 / wanted.1 - 1.0).abs() < share, "{}: {ours:?} against {wanted:?}", row.codec);
        let error = theirs.rel_mse_k.filter(|_| row.rel_mse_k > 0.0);
        assert!(error.is_none_or(|k| (row.rel_mse_k / k - 1.0).abs() < 0.03), "{}: {} against {error:?}", row.codec, row.rel_mse_k);
    }
}

/// The bar: ratios within 2e-3, KL within 5 % or 1e-5. Rows that are decoded and attended to exactly, as theirs are, meet it.
/// Attention over codes rounds queries and weights besides, and what it tips has a sign in every passage: its ratio may
/// be off by two standard errors of that difference more.
#[test]
fn every_row_reproduces_the_independent_table() {
    if let Err(why) = backend::open(Choice::Gpu) {
        assert!(std::env::var_os("KVF_REQUIRE_GPU").is_none(), "a GPU is required here: {why}");
        return println!("SKIPPED every_row_reproduces_the_independent_table: minutes without a GPU ({why})");
    }
    let table = Table::read();
    let mut wrong = Vec::new();
    for path in [ReadPath::All, ReadPath::Snapshot] {
        let ours = SAME.iter().map(|(ours, _)| (*ours).to_string());
        // what kernels read, decoded and attended to exactly besides
        let packed = |name: &str| !["fp8", "kakeya", "symmetric"].iter().any(|word| name.starts_with(word));
        let plain = SAME.iter().filter(|(ours, _)| path == ReadPath::All && packed(ours)).map(|(ours, _)| format!("{ours}:sim"));
        let report = run(&ours.chain(plain).collect::<Vec<_>>().join(","), path, 8, Choice::Gpu);
        let base = if path == ReadPath::All { table.ppl_base.all } else { table.ppl_base.snapshot };
        assert!((report.ppl_base / base - 1.0).abs() < 1e-4, "base perplexity {} against {base}", report.ppl_base);
        println!("{}: ratio here, there, difference; KL here, there, in percent", path.name());
        for row in codec_rows(&report) {
            let theirs = table.of(&row.codec, path);
            let (off, share) = (row.ppl_ratio - theirs.ppl_ratio, row.kl_mean / theirs.kl_mean - 1.0);
            println!(
                "{:24} {:.5} {:.5} {off:+.5}   {:.3e} {:.3e} {:+.1}",
                row.codec,
                row.ppl_ratio,
                theirs.ppl_ratio,
                row.kl_mean,
                theirs.kl_mean,
                100.0 * share
            );
            let apart: Vec<f64> = row.dlnppl.iter().zip(&theirs.dlnppl).map(|(a, b)| a - b).collect();
            let over_codes = path == ReadPath::All && packed(&row.codec) && !row.codec.ends_with(":sim");
            let noise = if over_codes { 2.0 * harness::stats::standard_error(&apart) } else { 0.0 };
            let sizes = row.stored_bits_per_element == theirs.bits;
            if off.abs() > (2e-3 + noise) * theirs.ppl_ratio || share.abs() > 0.05 && (row.kl_mean - theirs.kl_mean).abs() > 1e-5 || !sizes {
                wrong.push(format!("{} {}: ratio off by {off:.5}, KL by {:.1} %, {} bits", path.name(), row.codec, 100.0 * share, row.stored_bits_per_element));
            }
            record(path, row, theirs);
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A line for the results, where somebody collects them.
fn record(path: ReadPath, row: &ppl::Row, theirs: &Theirs) {
    use std::io::Write;
    let Some(file) = std::env::var_os("KVF_RESULTS") else { return };
    let mut file = std::fs::File::options().create(true).append(true).open(file).unwrap();
    let line = serde_json::json!({
        "read_path": path.name(), "codec": row.codec, "theirs": theirs.codec, "bits": row.stored_bits_per_element,
        "ppl_ratio": [row.ppl_ratio, theirs.ppl_ratio], "kl_mean": [row.kl_mean, theirs.kl_mean],
    });
    writeln!(file, "{line}").unwrap();
}
