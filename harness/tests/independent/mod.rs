//! The table of an independent implementation in PyTorch (`golden/oracle.json`: f32, rows coded and decoded, exact
//! attention over them, no packed bytes), and which of our codecs are the same.
#![allow(dead_code)] // each test binary uses its part

use harness::assets;
use harness::backend::Choice;
use harness::ppl::{self, Ask, Options, ReadPath, Text};
use harness::report::Report;
use harness::run::Output;
use serde::Deserialize;

/// Our name and theirs. `intB` has 2^B levels half a step off zero where theirs has 2^B - 1 around it, and `e8qQ` looks for
/// the nearest point within the box where theirs clamps the nearest one of all: with few levels that is another codec,
/// and theirs has a name of its own.
pub const SAME: [(&str, &str); 23] = [
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
    ("scaled_e4m3_64", "fp8_e4m3_64"),
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
pub struct Table {
    pub ppl_base: Base,
    rows: Vec<Theirs>,
}

#[derive(Deserialize)]
pub struct Base {
    pub all: f64,
    pub snapshot: f64,
}

#[derive(Deserialize)]
pub struct Theirs {
    pub codec: String,
    streams: String,
    read_path: String,
    pub bits: f64,
    pub ppl_ratio: f64,
    pub kl_mean: f64,
    pub rel_mse_k: Option<f64>,
    pub dlnppl: Vec<f64>,
    pub kl: Vec<f64>,
}

impl Table {
    pub fn read() -> Table {
        let path = assets::folder().unwrap().join("../harness/tests/golden/oracle.json");
        serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
    }

    /// The row of one of our codecs, `NAME`, `NAME:k`, `NAME:v` or `NAME:sim`.
    pub fn of(&self, name: &str, path: ReadPath) -> &Theirs {
        let (plain, way) = name.split_once(':').unwrap_or((name, "kv"));
        let theirs = SAME.iter().find(|(ours, _)| *ours == plain).unwrap().1;
        let streams = if way == "sim" { "kv" } else { way };
        let same = |row: &&Theirs| row.codec == theirs && row.streams == streams && row.read_path == path.name();
        self.rows.iter().find(same).unwrap_or_else(|| panic!("no row {theirs} {streams} {}", path.name()))
    }
}

pub fn run(codecs: &str, read_path: ReadPath, passages: usize, backend: Choice) -> Report {
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

pub fn codec_rows(report: &Report) -> impl Iterator<Item = &ppl::Row> {
    let aside = |name: &str| ["identity", "self"].contains(&name) || name.starts_with("CONTROL_");
    report.rows.iter().filter(move |row| !aside(&row.codec))
}
