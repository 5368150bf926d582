//! Calibration from end to end: it repeats, it fits the model it was made for and no other, and codes in its coordinates
//! lose far less than codes of the same size without them.

use std::collections::BTreeSet;
use std::path::PathBuf;

use harness::attention::Geometry;
use harness::backend::Choice;
use harness::corpus::Corpus;
use harness::model::Model;
use harness::ppl::{self, Ask, Options, ReadPath, Text};
use harness::run::Output;
use harness::{assets, calibrate};
use kernels_gen::preset::{Bands, Calibration, PRESETS};

fn options(codec: &str) -> Options {
    Options {
        text: Text { model: assets::BUNDLED_MODEL.into(), corpus: None, passages: 2, ctx: 1152, stream: false },
        codec: codec.into(),
        streams: vec![Ask::Both],
        skip_layers: "0".into(),
        layers: Vec::new(),
        read_path: ReadPath::All,
        chunk: 32,
        // across the border of two segments
        score: Some("960..1152".into()),
        calibration: None,
        fit_text: None,
        backend: Choice::Cpu,
        output: Output { seed: 1, ..Output::default() },
    }
}

fn temporary(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("kvfuse-calibrate-{}-{name}", std::process::id()))
}

#[test]
fn calibrated_coordinates_lose_far_less_at_the_same_size() {
    let report = ppl::run(&options("e8w4,e8w6,kvfuse-4,kvfuse-4:sim,kvfuse-6")).unwrap();
    report.check().unwrap();
    let row = |name: &str| report.rows.iter().find(|r| r.codec == name).unwrap();
    let kl = |name: &str| row(name).kl_mean;
    assert_eq!(row("kvfuse-4").stored_bits_per_element, row("e8w4").stored_bits_per_element);
    for (row, other) in [(row("kvfuse-4"), row("e8w4")), (row("kvfuse-6"), row("e8w6"))] {
        assert_eq!(row.stored_bits_per_element, other.stored_bits_per_element);
        let better = row.kl_mean < 0.6 * other.kl_mean && row.rel_mse_k < other.rel_mse_k && row.rel_mse_v < other.rel_mse_v;
        assert!(better, "{}: {} {} {}", row.codec, row.kl_mean, row.rel_mse_k, row.rel_mse_v);
    }
    assert!(kl("kvfuse-4") <= 0.35 * kl("e8w4"), "{} against {}", kl("kvfuse-4"), kl("e8w4"));
    assert!(kl("kvfuse-6") < 0.3 * kl("kvfuse-4"), "{} against {}", kl("kvfuse-6"), kl("kvfuse-4"));
    assert!((0.7..1.4).contains(&(kl("kvfuse-4") / kl("kvfuse-4:sim"))), "{} {}", kl("kvfuse-4"), kl("kvfuse-4:sim"));
    let facts = report.calibration.unwrap();
    assert_eq!((facts.tokens, facts.static_bytes), (16384, 6 * 2 * (8 * 128 + 24) * 128));
}

#[test]
fn the_bundled_calibration_is_what_calibrate_makes() {
    let folder = assets::model(assets::BUNDLED_MODEL).unwrap();
    let model = Model::load(&folder).unwrap();
    let text = Corpus::read(&assets::calibration_text().unwrap()).unwrap();
    let made = calibrate::fitted(&model, &folder, &text, &[0, 1, 2, 3, 4, 5, 6, 7], 2048).unwrap();
    let kept = Calibration::from_bytes(&std::fs::read(folder.join(assets::CALIBRATION)).unwrap()).unwrap();
    assert_eq!((&made.model, &made.text, made.tokens), (&kept.model, &kept.text, kept.tokens));
    assert_eq!(made.speeds, kept.speeds);
    assert_eq!(calibrate::shape(&Geometry::of(&model.config)), kept.shape);
    // each layer has bands of its own, in few schedules and all of the preset's bits but for what no schedule fills
    for preset in &PRESETS {
        let bands: Vec<Bands> = (0..kept.shape.layers).map(|layer| kept.bands(preset, layer)).collect();
        let mean = bands.iter().map(Bands::bits).sum::<f64>() / bands.len() as f64;
        assert!((0.0..0.05).contains(&(preset.uniform().bits() - mean)), "{}: {mean}", preset.name);
        for half in [|b: &Bands| b.keys.clone(), |b: &Bands| b.values.clone()] {
            let schedules = bands.iter().map(half).collect::<BTreeSet<Vec<usize>>>().len();
            // at 2 bits a coordinate no layer has any to give away
            let least = if preset.name == "kvfuse-2" { 1 } else { 2 };
            assert!((least..=4).contains(&schedules), "{}: {schedules} schedules", preset.name);
        }
    }
    // another machine may sum in another order: energies are stable, the signs of directions need not be
    for (made, kept) in [(&made.keys, &kept.keys), (&made.values, &kept.values)] {
        let close = |(a, b): (&f32, &f32)| (a - b).abs() <= 1e-3 * b.abs();
        assert!(made.energy.iter().zip(&kept.energy).all(close));
        assert!(made.mean.iter().zip(&kept.mean).all(|(a, b)| (a - b).abs() < 1e-3));
    }
}

#[test]
fn mistakes_say_what_to_run() {
    let why = |options: Options| {
        let error = ppl::run(&options).err().unwrap();
        (error.exit_code(), error.to_string())
    };
    let with = |path: &PathBuf| Options { calibration: Some(path.clone()), ..options("kvfuse-3") };
    let missing = temporary("missing");
    let (code, text) = why(with(&missing));
    assert!(code == 4 && text.contains("harness calibrate --model") && text.contains("missing"), "{text}");

    let kept = std::fs::read(assets::model(assets::BUNDLED_MODEL).unwrap().join(assets::CALIBRATION)).unwrap();
    let bad = temporary("bad");
    let mut other = Calibration::from_bytes(&kept).unwrap();
    other.model = "f".repeat(64);
    let cut = kept[..kept.len() - 100].to_vec();
    for (bytes, part) in [(cut, "malformed"), (other.to_bytes().unwrap(), "hash ffffffffffff"), (Vec::new(), "malformed")] {
        std::fs::write(&bad, bytes).unwrap();
        let (code, text) = why(with(&bad));
        assert!(code == 4 && text.contains(part) && text.contains("harness calibrate"), "{text}");
    }
    std::fs::remove_file(&bad).unwrap();

    let calibrate = |windows, ctx| {
        let (model, text, out) = (assets::BUNDLED_MODEL.to_string(), None, Some(missing.clone()));
        let options = calibrate::Options { model, text, out, windows, ctx, seed: 1, alike: true, json: false, resume: false, dry_run: false };
        calibrate::run(&options).err().unwrap().to_string()
    };
    assert!(calibrate(Some(9), 2048).contains("ask for 1 to 8"));
    assert!(calibrate(None, 4096).contains("64 to 2048"));
    assert!(harness::ppl::coder("kvfuse-4").unwrap_err().to_string().contains("only `ppl`"));
    assert!(ppl::run(&options("kvfuse-5")).unwrap_err().to_string().contains("kvfuse-W"));
}
