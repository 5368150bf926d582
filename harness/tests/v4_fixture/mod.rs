//! The small random model of fixtures/v4: as it is, changed in one place, or under other names.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use harness::model::Weights;
use harness::model::v4::{Config, Lane, Model, RowCache};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView, serialize};
use serde_json::{Value, json};

/// Largest difference allowed, relative to the largest wanted value.
const TOLERANCE: f32 = 2e-5;

pub fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/v4")
}

/// A safetensors file.
pub struct Tensors(Vec<u8>);

/// (dtype, shape, bytes) by name
pub type Parts = BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>;

impl Tensors {
    pub fn read(path: &Path) -> Tensors {
        Tensors(std::fs::read(path).unwrap())
    }

    pub fn f32s(&self, name: &str) -> Vec<f32> {
        self.bytes(name).as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
    }

    pub fn u32s(&self, name: &str) -> Vec<u32> {
        self.bytes(name).as_chunks::<4>().0.iter().map(|b| u32::from_le_bytes(*b)).collect()
    }

    fn bytes(&self, name: &str) -> Vec<u8> {
        SafeTensors::deserialize(&self.0).unwrap().tensor(name).unwrap().data().to_vec()
    }

    pub fn parts(&self) -> Parts {
        let tensors = SafeTensors::deserialize(&self.0).unwrap();
        tensors.tensors().into_iter().map(|(name, t)| (name, (t.dtype(), t.shape().to_vec(), t.data().to_vec()))).collect()
    }
}

pub fn assert_close(what: &str, ours: &[f32], wanted: &[f32]) {
    assert_eq!(ours.len(), wanted.len(), "{what}: lengths differ");
    let largest = wanted.iter().fold(0.0_f32, |a, b| a.max(b.abs()));
    let apart = ours.iter().zip(wanted).map(|(a, b)| (a - b).abs()).enumerate();
    let (at, worst) = apart.max_by(|a, b| a.1.total_cmp(&b.1)).unwrap();
    let off = format!("{what}: element {at} is {} against {}, off by {:.1e} of the largest", ours[at], wanted[at], worst / largest);
    println!("{off}");
    assert!(worst <= TOLERANCE * largest, "{off}");
}

fn json_of(folder: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(folder.join("config.json")).unwrap()).unwrap()
}

/// The fixture's config with something changed.
pub fn config(change: impl Fn(&mut Value)) -> Config {
    let mut config = json_of(&fixture());
    change(&mut config);
    serde_json::from_value(config).unwrap()
}

/// A folder with the fixture, changed; the name tells tests apart.
pub fn changed(name: &str, config: impl Fn(&mut Value), tensors: impl Fn(&mut Parts)) -> PathBuf {
    let mut parts = Tensors::read(&fixture().join("model.safetensors")).parts();
    tensors(&mut parts);
    let mut text = json_of(&fixture());
    config(&mut text);
    folder(name, &text, &parts)
}

fn folder(name: &str, config: &Value, parts: &Parts) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("kvfuse-v4-{}-{name}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("config.json"), config.to_string()).unwrap();
    let views = parts.iter().map(|(name, (dtype, shape, data))| (name, TensorView::new(*dtype, shape.clone(), data).unwrap()));
    std::fs::write(folder.join("model.safetensors"), serialize(views, None).unwrap()).unwrap();
    folder
}

pub fn hidden(model: &Model, ids: &[u32], score: Range<usize>, chunks: Vec<Range<usize>>, cache: &mut dyn RowCache) -> candle_core::Tensor {
    model.hidden(ids, score, &mut [Lane::new(chunks, cache)], |_| ()).unwrap().remove(0)
}

/// Of all positions.
pub fn logits(model: &Model, ids: &[u32], chunks: Vec<Range<usize>>, cache: &mut dyn RowCache) -> Vec<f32> {
    let rows = hidden(model, ids, 0..ids.len(), chunks, cache);
    model.predict(&model.head().unwrap(), &rows).unwrap().values
}

/// The fixture as transformers would write it: other names, all in f32, experts in one tensor.
pub fn renamed() -> PathBuf {
    let weights = Weights::read(&fixture()).unwrap();
    let mut parts = Parts::new();
    let mut experts: BTreeMap<(String, usize), Vec<f32>> = BTreeMap::new();
    let f32s = |values: &[f32]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
    for (name, (dtype, shape, data)) in Tensors::read(&fixture().join("model.safetensors")).parts() {
        if name.ends_with(".scale") {
            continue;
        }
        let columns = shape.last().copied().unwrap() * if dtype == Dtype::I8 { 2 } else { 1 };
        let values = match shape[..] {
            _ if dtype == Dtype::I64 => Vec::new(),
            [rows, _] => weights.matrix(&name, &name.replace(".weight", ".scale"), [rows, columns]).unwrap(),
            _ => weights.tensor(&name, &shape).unwrap(),
        };
        if let Some((layer, rest)) = name.split_once(".ffn.experts.") {
            let (expert, w) = rest.split_once('.').unwrap();
            let expert: usize = expert.parse().unwrap();
            // w1 sorts before w3, so gates come before ups
            let kind = if w.starts_with("w2") { "down_proj" } else { "gate_up_proj" };
            experts.entry((format!("model.{layer}.mlp.experts.{kind}"), expert)).or_default().extend(values);
            continue;
        }
        let part = if dtype == Dtype::I64 { (dtype, shape, data) } else { (Dtype::F32, shape, f32s(&values)) };
        parts.insert(transformers(&name), part);
    }
    for ((name, _), values) in experts {
        let shape = if name.ends_with("down_proj") { vec![0, 16, 40] } else { vec![0, 80, 16] };
        let (_, shape, data) = parts.entry(name).or_insert((Dtype::F32, shape, Vec::new()));
        shape[0] += 1;
        data.extend(f32s(&values));
    }
    let mut config = json_of(&fixture());
    let scaling = config["rope_scaling"].take();
    let map = config.as_object_mut().unwrap();
    for gone in ["compress_ratios", "num_hash_layers", "rope_theta", "compress_rope_theta", "rope_scaling"] {
        map.remove(gone);
    }
    let mut compress = scaling;
    compress["rope_theta"] = 160000.0.into();
    config["rope_parameters"] = json!({"main": {"rope_type": "default", "rope_theta": 10000.0}, "compress": compress});
    config["layer_types"] = json!(["sliding_attention", "compressed_sparse_attention", "heavily_compressed_attention"]);
    config["compress_rates"] = json!({"compressed_sparse_attention": 4, "heavily_compressed_attention": 8});
    config["mlp_layer_types"] = json!(["hash_moe", "moe", "moe"]);
    folder("renamed", &config, &parts)
}

/// By rules, so that it does not repeat the table that it checks.
fn transformers(name: &str) -> String {
    let Some(rest) = name.strip_prefix("layers.") else {
        return match name {
            "embed.weight" => "model.embed_tokens.weight".into(),
            "head.weight" => "lm_head.weight".into(),
            _ => format!("model.{}", name.replace("hc_head_", "hc_head.hc_")),
        };
    };
    let rules = [
        ("attn.indexer.compressor.", "attn.compressor.indexer."),
        ("attn.indexer.weights_proj", "attn.compressor.indexer.scorer.weights_proj"),
        ("attn.indexer.wq_b", "attn.compressor.indexer.q_b_proj"),
        (".attn_norm", ".input_layernorm"),
        (".ffn_norm", ".post_attention_layernorm"),
        (".hc_attn_", ".attn_hc."),
        (".hc_ffn_", ".ffn_hc."),
        (".attn.attn_sink", ".attn.sinks"),
        (".attn.q_norm", ".attn.q_a_norm"),
        (".wq_a", ".q_a_proj"),
        (".wq_b", ".q_b_proj"),
        (".wo_a", ".o_a_proj"),
        (".wo_b", ".o_b_proj"),
        (".wkv", ".kv_proj"),
        (".wgate", ".gate_proj"),
        (".ape", ".position_bias"),
        ("compressor.norm", "compressor.kv_norm"),
        ("indexer.norm", "indexer.kv_norm"),
        (".gate.bias", ".gate.e_score_correction_bias"),
        (".w1.", ".gate_proj."),
        (".w2.", ".down_proj."),
        (".w3.", ".up_proj."),
        (".attn.", ".self_attn."),
        (".ffn.", ".mlp."),
    ];
    rules.iter().fold(format!("model.layers.{rest}"), |name, (from, to)| name.replace(from, to))
}
