//! The forward pass against tensors of transformers 5.17 in f32 (tests/golden): logits, losses, and the rows of
//! some layers, so that a mistake shows where it begins.

use std::path::{Path, PathBuf};

use harness::assets;
use harness::attention::{Dense, Geometry};
use harness::corpus::Corpus;
use harness::error::Result;
use harness::model::{Attention, Model, Rows};
use harness::npy::Array;
use harness::ppl::LogProbs;
use safetensors::SafeTensors;

/// Largest difference allowed, relative to the largest golden value. Two f32 implementations differ by 2e-6.
const TOLERANCE: f32 = 1e-4;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

fn f32s(tensors: &SafeTensors, name: &str) -> Vec<f32> {
    tensors.tensor(name).unwrap().data().as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
}

fn i32s(tensors: &SafeTensors, name: &str) -> Vec<usize> {
    tensors.tensor(name).unwrap().data().as_chunks::<4>().0.iter().map(|b| i32::from_le_bytes(*b) as usize).collect()
}

fn assert_close(what: &str, ours: &[f32], golden: &[f32]) {
    assert_eq!(ours.len(), golden.len(), "{what}: lengths differ");
    let largest = golden.iter().fold(0.0_f32, |a, b| a.max(b.abs()));
    let (at, worst) = ours.iter().zip(golden).map(|(a, b)| (a - b).abs()).enumerate().max_by(|a, b| a.1.total_cmp(&b.1)).unwrap();
    let (a, b) = (ours[at], golden[at]);
    assert!(worst <= TOLERANCE * largest, "{what}: element {at} is {a} against {b}, off by {:.1e} of the largest value", worst / largest);
    println!("{what}: {:.1e} of the largest value", worst / largest);
}

fn load() -> (Model, Corpus, Geometry) {
    let model = Model::load(&assets::model(assets::BUNDLED_MODEL).unwrap()).unwrap();
    let corpus = Corpus::read(&assets::passages().unwrap()).unwrap();
    let geometry = Geometry::of(&model.config);
    (model, corpus, geometry)
}

#[test]
fn logits_match_the_golden_ones() {
    let (model, corpus, geometry) = load();
    let file = std::fs::read(golden("logits.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&file).unwrap();
    let (wanted, ids, positions) = (f32s(&tensors, "logits"), i32s(&tensors, "ids"), i32s(&tensors, "positions"));
    let vocab = model.config.vocab_size;
    for (passage, wanted) in wanted.chunks(positions.len() * vocab).enumerate() {
        let tokens = &corpus.passage(passage)[..512];
        assert!(tokens.iter().zip(&ids[passage * 512..]).all(|(a, b)| *a as usize == *b), "passage {passage} is another text");
        let logits = model.logits(tokens, positions[0], 512, &mut Dense::new(geometry)).unwrap();
        for (position, wanted) in positions.iter().zip(wanted.chunks(vocab)) {
            let ours = &logits.values[(position - positions[0]) * vocab..][..vocab];
            assert_close(&format!("logits of passage {passage}, position {position}"), ours, wanted);
        }
    }
}

#[test]
fn losses_match_the_golden_ones() {
    let (model, corpus, geometry) = load();
    let wanted = Array::read(&golden("nll.npy")).unwrap();
    let (width, wanted) = (wanted.shape[1], wanted.to_f32().unwrap());
    for passage in [0, 15] {
        let ids = corpus.passage(passage);
        let logits = model.logits(&ids[..700], 0, 700, &mut Dense::new(geometry)).unwrap();
        let scores = LogProbs::of(&logits).compare(&logits, &ids[1..701]);
        let ours: Vec<f32> = scores.iter().map(|s| s.base_nll as f32).collect();
        assert_close(&format!("losses of passage {passage}"), &ours, &wanted[passage * width..][..700]);
    }
}

/// Keeps what the layers hand to the attention, and what it hands back.
struct Watch {
    dense: Dense,
    seen: Vec<[Vec<f32>; 4]>,
}

impl Attention for Watch {
    fn attend(&mut self, rows: &Rows) -> Result<Vec<f32>> {
        let out = self.dense.attend(rows)?;
        self.seen.push([rows.q.to_vec(), rows.k.to_vec(), rows.v.to_vec(), out.clone()]);
        Ok(out)
    }
}

#[test]
fn rows_of_the_layers_match_the_golden_ones() {
    let (model, corpus, geometry) = load();
    let file = std::fs::read(golden("layers.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&file).unwrap();
    let mut watch = Watch { dense: Dense::new(geometry), seen: Vec::new() };
    model.logits(&corpus.passage(0)[..64], 0, 1, &mut watch).unwrap();
    for layer in [0, 3, 5] {
        for (index, name) in ["q_post_rope", "k_post_rope", "v", "attn_ctx_pre_o_proj"].into_iter().enumerate() {
            let name = format!("l{layer}.{name}");
            let ours = &watch.seen[layer][index];
            let width = ours.len() / 64;
            let picked: Vec<f32> = i32s(&tensors, "positions").iter().flat_map(|p| &ours[p * width..][..width]).copied().collect();
            assert_close(&name, &picked, &f32s(&tensors, &name));
        }
    }
}

/// Small random models of every family, with what transformers computes from them (tests/fixtures/make.py).
#[test]
fn every_family_matches_transformers() {
    for name in ["qwen2", "qwen2-yarn-sharded", "qwen3-linear", "qwen3-bias", "llama3"] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name);
        let file = std::fs::read(folder.join("golden.safetensors")).unwrap();
        let tensors = SafeTensors::deserialize(&file).unwrap();
        let ids: Vec<u32> = i32s(&tensors, "ids").into_iter().map(|id| id as u32).collect();
        for model in [Model::load(&folder).unwrap(), Model::stream(&folder).unwrap()] {
            let mut dense = Dense::new(Geometry::of(&model.config));
            let logits = model.logits(&ids, 0, ids.len(), &mut dense).unwrap();
            assert_close(name, &logits.values, &f32s(&tensors, "logits"));
        }
    }
}
