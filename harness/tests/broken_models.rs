//! Model folders that are wrong in one way each: the message names the culprit, and nothing panics.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use harness::error::Error;
use harness::model::Model;
use safetensors::tensor::{Dtype, TensorView, serialize};

const CONFIG: &str = r#"{"model_type": "qwen3", "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1,
    "num_key_value_heads": 1, "head_dim": 64, "vocab_size": 4, "rms_norm_eps": 1e-6, "max_position_embeddings": 64,
    "tie_word_embeddings": true, "rope_theta": 1e4}"#;

fn shapes() -> BTreeMap<String, Vec<usize>> {
    let mut shapes = BTreeMap::new();
    let mut add = |name: &str, shape: &[usize]| shapes.insert(name.to_string(), shape.to_vec());
    add("model.embed_tokens.weight", &[4, 8]);
    add("model.norm.weight", &[8]);
    for name in ["input_layernorm", "post_attention_layernorm"] {
        add(&format!("model.layers.0.{name}.weight"), &[8]);
    }
    for (name, shape) in [("q_norm", vec![64]), ("k_norm", vec![64]), ("q_proj", vec![64, 8]), ("k_proj", vec![64, 8]), ("v_proj", vec![64, 8]), ("o_proj", vec![8, 64])] {
        add(&format!("model.layers.0.self_attn.{name}.weight"), &shape);
    }
    for name in ["gate_proj", "up_proj", "down_proj"] {
        add(&format!("model.layers.0.mlp.{name}.weight"), &[8, 8]);
    }
    shapes
}

/// A folder with this config and these tensors; `dtype` applies to model.norm.weight.
fn folder(name: &str, config: &str, shapes: &BTreeMap<String, Vec<usize>>, dtype: Dtype) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("kvfuse-model-{}-{name}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("config.json"), config).unwrap();
    let zeros = vec![0_u8; 8 * 64 * 8];
    let views = shapes.iter().map(|(name, shape)| {
        let dtype = if name == "model.norm.weight" { dtype } else { Dtype::BF16 };
        let bytes = shape.iter().product::<usize>() * dtype.bitsize() / 8;
        (name.clone(), TensorView::new(dtype, shape.clone(), &zeros[..bytes]).unwrap())
    });
    std::fs::write(folder.join("model.safetensors"), serialize(views, None).unwrap()).unwrap();
    folder
}

fn failure(folder: &Path) -> Error {
    let error = Model::load(folder).err().expect("a broken model was loaded");
    std::fs::remove_dir_all(folder).unwrap();
    assert!(matches!(error.exit_code(), 4), "{error}");
    error
}

#[test]
fn the_whole_model_loads() {
    let folder = folder("whole", CONFIG, &shapes(), Dtype::F32);
    assert!(Model::load(&folder).is_ok());
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn a_missing_tensor_is_named() {
    let mut shapes = shapes();
    shapes.remove("model.layers.0.self_attn.k_norm.weight");
    let text = failure(&folder("missing", CONFIG, &shapes, Dtype::BF16)).to_string();
    assert!(text.contains("model.layers.0.self_attn.k_norm.weight is missing"), "{text}");
}

#[test]
fn a_wrong_shape_shows_both() {
    let mut shapes = shapes();
    shapes.insert("model.layers.0.mlp.up_proj.weight".into(), vec![4, 8]);
    let text = failure(&folder("shape", CONFIG, &shapes, Dtype::BF16)).to_string();
    assert!(text.contains("up_proj") && text.contains("[4, 8]") && text.contains("[8, 8]"), "{text}");
}

#[test]
fn a_wrong_dtype_is_named() {
    let text = failure(&folder("dtype", CONFIG, &shapes(), Dtype::I32)).to_string();
    assert!(text.contains("model.norm.weight has dtype I32"), "{text}");
}

#[test]
fn broken_files_are_named() {
    let cut = folder("cut", CONFIG, &shapes(), Dtype::BF16);
    let file = cut.join("model.safetensors");
    let bytes = std::fs::read(&file).unwrap();
    std::fs::write(&file, &bytes[..bytes.len() / 2]).unwrap();
    assert!(failure(&cut).to_string().contains("model.safetensors is malformed"));
    let gone = folder("gone", CONFIG, &shapes(), Dtype::BF16);
    std::fs::remove_file(gone.join("model.safetensors")).unwrap();
    assert!(failure(&gone).to_string().contains("cannot read"));
    let index = folder("index", CONFIG, &shapes(), Dtype::BF16);
    std::fs::write(index.join("model.safetensors.index.json"), "{").unwrap();
    assert!(failure(&index).to_string().contains("index.json is malformed"));
}

#[test]
fn configs_that_cannot_run_are_refused() {
    let why = |name: &str, from: &str, to: &str| failure(&folder(name, &CONFIG.replace(from, to), &shapes(), Dtype::BF16)).to_string();
    assert!(why("json", "{", "").contains("config.json is malformed"));
    assert!(why("type", "\"qwen3\"", "\"gpt2\"").contains("gpt2"));
    assert!(why("zero", "\"num_key_value_heads\": 1", "\"num_key_value_heads\": 0").contains("zero"));
    assert!(why("dim", "\"head_dim\": 64", "\"head_dim\": 80").contains("80"));
    assert!(why("lacks", "\"vocab_size\": 4, ", "").contains("vocab_size"));
    assert!(why("rope", "\"rope_theta\": 1e4", "\"rope_theta\": 1e4, \"rope_scaling\": {\"type\": \"yarn\"}").contains("needs a positive \"factor\""));
}
