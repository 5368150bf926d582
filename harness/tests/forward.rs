//! The forward pass on a GPU against golden tensors and against the one on the CPU. Without a GPU, or without
//! cuBLASLt, each test prints SKIPPED and why; KVF_REQUIRE_GPU=1 makes that a failure.

mod independent;

use std::path::PathBuf;
use std::rc::Rc;

use harness::attention::{Dense, Geometry};
use harness::backend::{self, Choice};
use harness::corpus::Corpus;
use harness::device::{Exact, Forward, Lane, Machine};
use harness::model::{Logits, Model};
use harness::ppl::{self, Ask, LogProbs, Options, ReadPath, Text};
use harness::run::Output;
use harness::{assets, report::Report};
use independent::{SAME, Table, codec_rows};
use safetensors::SafeTensors;

/// Largest difference allowed, relative to the largest wanted value: what another order of f32 sums explains.
const TOLERANCE: f32 = 1e-4;

/// The model's forward pass here, or None after the reason is printed.
fn forward(model: &Model) -> Option<Forward> {
    let machine = backend::open(Choice::Gpu).and_then(|gpu| Machine::open(gpu.device().expect("a GPU is a device")));
    match machine {
        Ok(machine) => Some(Forward::new(Rc::new(machine), model).unwrap()),
        Err(why) => {
            assert!(std::env::var_os("KVF_REQUIRE_GPU").is_none(), "a GPU is required here: {why}");
            println!("SKIPPED: {why}");
            None
        }
    }
}

fn logits(forward: &Forward, model: &Model, ids: &[u32], from: usize) -> Logits {
    let mut exact = Exact::new(forward.machine.clone(), Geometry::of(&model.config));
    let mut lanes = [Lane { chunks: std::iter::once(0..ids.len()).collect(), attention: &mut exact, seconds: 0.0 }];
    let rows = forward.hidden(model, ids, from..ids.len(), &mut lanes, |_| ()).unwrap();
    let logits = forward.logits(&model.config, "logits", &rows[0], 0, ids.len() - from).unwrap();
    forward.fetch_logits(&logits).unwrap()
}

fn assert_close(what: &str, ours: &[f32], wanted: &[f32]) {
    assert_eq!(ours.len(), wanted.len(), "{what}: lengths differ");
    let largest = wanted.iter().fold(0.0_f32, |a, b| a.max(b.abs()));
    let worst = ours.iter().zip(wanted).map(|(a, b)| (a - b).abs()).fold(0.0_f32, f32::max);
    println!("{what}: off by {:.1e} of the largest value", worst / largest);
    assert!(worst <= TOLERANCE * largest, "{what}: off by {:.1e} of the largest value", worst / largest);
}

/// Beside the assets, in the repository as in a bundle of it.
fn fixtures() -> PathBuf {
    assets::folder().unwrap().join("../harness/tests")
}

fn f32s(tensors: &SafeTensors, name: &str) -> Vec<f32> {
    tensors.tensor(name).unwrap().data().as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
}

fn i32s(tensors: &SafeTensors, name: &str) -> Vec<u32> {
    tensors.tensor(name).unwrap().data().as_chunks::<4>().0.iter().map(|b| u32::from_le_bytes(*b)).collect()
}

#[test]
fn logits_match_the_golden_ones() {
    let model = Model::load(&assets::model(assets::BUNDLED_MODEL).unwrap()).unwrap();
    let Some(forward) = forward(&model) else { return };
    let corpus = Corpus::read(&assets::passages().unwrap()).unwrap();
    let file = std::fs::read(fixtures().join("golden/logits.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&file).unwrap();
    let (wanted, positions, vocab) = (f32s(&tensors, "logits"), i32s(&tensors, "positions"), model.config.vocab_size);
    for (passage, wanted) in wanted.chunks(positions.len() * vocab).enumerate() {
        let first = positions[0] as usize;
        let found = logits(&forward, &model, &corpus.passage(passage)[..512], first);
        let picked: Vec<f32> = positions.iter().flat_map(|p| &found.values[(*p as usize - first) * vocab..][..vocab]).copied().collect();
        assert_close(&format!("logits of passage {passage}"), &picked, wanted);
    }
}

#[test]
fn every_family_matches_transformers() {
    for name in ["qwen2", "qwen2-yarn-sharded", "qwen3-linear", "qwen3-bias", "llama3"] {
        let folder = fixtures().join("fixtures").join(name);
        let file = std::fs::read(folder.join("golden.safetensors")).unwrap();
        let tensors = SafeTensors::deserialize(&file).unwrap();
        for model in [Model::load(&folder).unwrap(), Model::stream(&folder).unwrap()] {
            let Some(forward) = forward(&model) else { return };
            let found = logits(&forward, &model, &i32s(&tensors, "ids"), 0);
            assert_close(name, &found.values, &f32s(&tensors, "logits"));
        }
    }
}

/// The kernel's numbers in f32 against those of the CPU in f64, of the same logits.
#[test]
fn scores_agree_with_the_host() {
    let model = Model::load(&assets::model(assets::BUNDLED_MODEL).unwrap()).unwrap();
    let Some(forward) = forward(&model) else { return };
    let corpus = Corpus::read(&assets::passages().unwrap()).unwrap();
    let (ids, geometry) = (&corpus.passage(3)[..97], Geometry::of(&model.config));
    let gold = &corpus.passage(3)[1..98];
    let mut exact = [Exact::new(forward.machine.clone(), geometry), Exact::reordered(forward.machine.clone(), geometry)];
    let [one, other] = &mut exact;
    let lane = |attention| Lane { chunks: vec![0..40, 40..97], attention, seconds: 0.0 };
    let rows = forward.hidden(&model, ids, 0..97, &mut [lane(one), lane(other)], |_| ()).unwrap();
    let base = forward.logits(&model.config, "one", &rows[0], 0, 97).unwrap();
    let coded = forward.logits(&model.config, "other", &rows[1], 0, 97).unwrap();
    let host = model.logits(ids, 0, 97, &mut Dense::new(geometry)).unwrap();
    let (on_host, on_device) = (forward.fetch_logits(&base).unwrap(), forward.fetch_logits(&coded).unwrap());
    assert_close("base", &on_host.values, &host.values);
    let wanted = LogProbs::of(&on_host).compare(&on_device, gold);
    let found = forward.compare(&base, &coded, gold).unwrap();
    for (wanted, found) in wanted.iter().zip(found) {
        let found = found.unwrap();
        assert!((found.base_nll - wanted.base_nll).abs() < 5e-6 && (found.gap - wanted.gap).abs() < 5e-6);
        assert!((found.kl - wanted.kl).abs() < 1e-11 && found.kl >= 0.0, "{found:?} {wanted:?}");
        assert_eq!((found.same_top, found.confident), (wanted.same_top, wanted.confident));
    }
    assert!(forward.compare(&base, &base, gold).unwrap().iter().all(|s| s.unwrap().kl == 0.0));
}

fn run(backend: Choice, read_path: ReadPath, codecs: &str) -> Report {
    let options = Options {
        text: Text { model: assets::BUNDLED_MODEL.into(), corpus: None, passages: 2, ctx: 320, stream: false },
        codec: codecs.into(),
        streams: vec![Ask::Both],
        skip_layers: "0".into(),
        layers: Vec::new(),
        read_path,
        chunk: 100,
        score: Some("250..320".into()),
        calibration: None,
        fit_text: None,
        backend,
        output: Output::default(),
    };
    ppl::run(&options).unwrap()
}

/// Rows of a codec differ from those of the CPU by what the forward's rounding tips, runs not at all.
#[test]
fn tables_agree_with_the_cpu_and_repeat() {
    let model = Model::load(&assets::model(assets::BUNDLED_MODEL).unwrap()).unwrap();
    if forward(&model).is_none() {
        return;
    }
    for path in [ReadPath::All, ReadPath::Decode, ReadPath::Snapshot, ReadPath::Serving, ReadPath::InForward] {
        // token by token a calibrated codec takes the CPU minutes
        let codecs = match path {
            ReadPath::All => "int4,e8w4,fp8,int4:k,kvfuse-4:v,e8q38,kvfuse-4,kivi_k2v2",
            ReadPath::Decode => "int4,e8w4,fp8,int4:k",
            _ => "int4,e8w4,fp8,int4:k,turboquant_4bit_nc:v,kvfuse-4",
        };
        let run = |backend| run(backend, path, codecs);
        let (cpu, gpu, again) = (run(Choice::Cpu), run(Choice::Gpu), run(Choice::Gpu));
        assert!(gpu.backend.contains("forward on the gpu"), "{}", gpu.backend);
        assert!(gpu.valid, "{path:?}: {:?}", gpu.invalid);
        for ((c, g), a) in cpu.rows.iter().zip(&gpu.rows).zip(&again.rows) {
            println!("{path:?} {}: KL {:.4e} and {:.4e}, ratio {:.6} and {:.6}", c.codec, c.kl_mean, g.kl_mean, c.ppl_ratio, g.ppl_ratio);
            assert_eq!((g.kl_mean, g.ppl_ratio, g.rel_mse_k), (a.kl_mean, a.ppl_ratio, a.rel_mse_k), "{} twice", c.codec);
            // a last bit tips a code, and a few positions carry much of the loss: 140 of them say little more
            assert!((g.kl_mean - c.kl_mean).abs() <= 1e-7 + 0.4 * c.kl_mean, "{path:?} {}: KL", c.codec);
            assert!((g.rel_mse_k - c.rel_mse_k).abs() <= 1e-9 + 0.01 * c.rel_mse_k, "{path:?} {}: rows", c.codec);
            // the host counts for the scalar reference, the kernels for themselves
            let moved = |row: &ppl::Row| row.proof.map(|p| ppl::Proof { counted_by_kernels: None, ..p });
            assert_eq!(moved(c), moved(g), "{path:?} {}", c.codec);
            let seen = g.proof.and_then(|p| p.counted_by_kernels);
            assert_eq!(seen.is_some(), g.proof.is_some() && g.codec != "identity", "{path:?} {}", g.codec);
            assert!(seen.is_none_or(|s| s.outputs_apart == 0), "{path:?} {}: {seen:?}", g.codec);
        }
    }
}

/// Every kernel of the forward pass gives a token the bits that it has alone, so that codes do not tip.
#[test]
fn token_by_token_gives_the_same_bits_as_all_at_once() {
    let model = Model::load(&assets::model(assets::BUNDLED_MODEL).unwrap()).unwrap();
    if forward(&model).is_none() {
        return;
    }
    let report = run(Choice::Gpu, ReadPath::Decode, "bf16,int4,e8w4,e8q38,turboquant_k8v4,kvfuse-3,kvfuse-4,kivi_k4v4_r32");
    report.check().unwrap();
    let packed: Vec<_> = report.rows.iter().filter_map(|row| Some((&row.codec, row.decode_agreement?))).collect();
    assert_eq!(packed.len(), 9, "eight codecs and the control");
    for (codec, agreement) in packed {
        println!("{codec}: {agreement:?}");
        assert!(agreement.exact, "{codec}: {agreement:?}");
    }
}

/// The bar: ratios within 2e-3, KL within 5 % or 1e-5. Rows that are decoded and attended to exactly, as theirs are, meet it.
/// Attention over codes rounds queries and weights besides, and what it tips has a sign in every passage: its ratio may
/// be off by two standard errors of that difference more.
#[test]
fn every_row_reproduces_the_independent_table() {
    let model = Model::load(&assets::model(assets::BUNDLED_MODEL).unwrap()).unwrap();
    if forward(&model).is_none() {
        return;
    }
    let table = Table::read();
    let mut wrong = Vec::new();
    for path in [ReadPath::All, ReadPath::Snapshot] {
        let ours = SAME.iter().map(|(ours, _)| (*ours).to_string());
        // what kernels read, decoded and attended to exactly besides
        let packed = |name: &str| !["kakeya", "symmetric", "scaled"].iter().any(|word| name.starts_with(word));
        let plain = SAME.iter().filter(|(ours, _)| path == ReadPath::All && packed(ours)).map(|(ours, _)| format!("{ours}:sim"));
        let report = independent::run(&ours.chain(plain).collect::<Vec<_>>().join(","), path, 8, Choice::Gpu);
        let base = if path == ReadPath::All { table.ppl_base.all } else { table.ppl_base.snapshot };
        assert!((report.ppl_base / base - 1.0).abs() < 1e-4, "base perplexity {} against {base}", report.ppl_base);
        println!("{}: ratio here, there, difference; KL here, there, in percent", path.name());
        for row in codec_rows(&report) {
            let theirs = table.of(&row.codec, path);
            let (off, share) = (row.ppl_ratio - theirs.ppl_ratio, row.kl_mean / theirs.kl_mean - 1.0);
            println!("{:24} {:.5} {:.5} {off:+.5}   {:.3e} {:.3e} {:+.1}", row.codec, row.ppl_ratio, theirs.ppl_ratio, row.kl_mean, theirs.kl_mean, 100.0 * share);
            let apart: Vec<f64> = row.dlnppl.iter().zip(&theirs.dlnppl).map(|(a, b)| a - b).collect();
            let over_codes = path == ReadPath::All && packed(&row.codec) && !row.codec.ends_with(":sim");
            let noise = if over_codes { 2.0 * harness::stats::standard_error(&apart) } else { 0.0 };
            let sizes = row.stored_bits_per_element == theirs.bits;
            // where nothing is predicted any more, last bits decide by how much
            let off = if theirs.ppl_ratio > 2.0 { 0.0 } else { off };
            if off.abs() > 2e-3 + noise || share.abs() > 0.05 && (row.kl_mean - theirs.kl_mean).abs() > 1e-5 || !sizes {
                wrong.push(format!("{} {}: ratio off by {off:.5}, KL by {:.1} %, {} bits", path.name(), row.codec, 100.0 * share, row.stored_bits_per_element));
            }
            record(path, row, theirs);
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A line for the results, where somebody collects them.
fn record(path: ReadPath, row: &ppl::Row, theirs: &independent::Theirs) {
    use std::io::Write;
    let Some(file) = std::env::var_os("KVF_RESULTS") else { return };
    let mut file = std::fs::File::options().create(true).append(true).open(file).unwrap();
    let line = serde_json::json!({
        "read_path": path.name(), "codec": row.codec, "theirs": theirs.codec, "bits": row.stored_bits_per_element,
        "ppl_ratio": [row.ppl_ratio, theirs.ppl_ratio], "kl_mean": [row.kl_mean, theirs.kl_mean],
    });
    writeln!(file, "{line}").unwrap();
}

/// DeepSeek-V4's rows: kernels store them and attend to them, with the reference's bits, and the table is the host's.
#[test]
fn rows_of_one_head_go_through_kernels() {
    if let Err(why) = backend::open(Choice::Gpu) {
        assert!(std::env::var_os("KVF_REQUIRE_GPU").is_none(), "a GPU is required here: {why}");
        return println!("SKIPPED: {why}");
    }
    let corpus = std::env::temp_dir().join(format!("kvfuse-v4-{}-kernels.npy", std::process::id()));
    let header = "{'descr': '<u2', 'fortran_order': False, 'shape': (2, 96), }";
    let mut file = b"\x93NUMPY\x01\x00".to_vec();
    let padded = format!("{header:<117}\n");
    file.extend((padded.len() as u16).to_le_bytes());
    file.extend(padded.as_bytes());
    file.extend((0..2 * 96_u32).flat_map(|i| (((i * i * 7 + i / 96 * 13 + 3) % 31) as u16).to_le_bytes()));
    std::fs::write(&corpus, file).unwrap();
    let run = |backend, read_path| {
        let model = fixtures().join("fixtures/v4").display().to_string();
        let text = Text { model, corpus: Some(corpus.clone()), passages: 2, ctx: 72, stream: false };
        let codec = "v4_e8w4_int8,v4_int8_int8,v4_fp8".into();
        let options = Options { text, codec, streams: vec![Ask::Both], skip_layers: "0".into(), layers: Vec::new(), read_path, chunk: 32, score: None, calibration: None, fit_text: None, backend, output: Output::default() };
        ppl::run(&options).unwrap()
    };
    for path in [ReadPath::All, ReadPath::Decode] {
        let (cpu, gpu) = (run(Choice::Cpu, path), run(Choice::Gpu, path));
        gpu.check().unwrap();
        for (c, g) in cpu.rows.iter().zip(&gpu.rows) {
            let through = g.latent.as_ref().map_or(0, |latent| latent.by_kernels);
            println!("{path:?} {}: KL {:.4e} and {:.4e}, {through} outputs by kernels", c.codec, c.kl_mean, g.kl_mean);
            assert_eq!(through > 0, g.codec.ends_with("_int8"), "{}", g.codec);
            // Queries and outputs are bf16 there.
            assert!((g.kl_mean - c.kl_mean).abs() <= 1e-4 + 0.3 * c.kl_mean, "{path:?} {}", c.codec);
        }
    }
    std::fs::remove_file(corpus).unwrap();
}
