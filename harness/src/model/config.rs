//! config.json of a dense decoder: Qwen2, Qwen2.5, Qwen3 and Llama. They differ in three switches, which are read
//! here; what the forward pass does not implement is refused, not ignored.

use std::path::Path;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::rope::Scaling;
use crate::error::{Error, Result};

const FAMILIES: &str = "qwen2 (and 2.5), qwen3 and llama run";

#[derive(Clone, Debug, Deserialize)]
pub struct Config {
    pub model_type: String,
    pub hidden_size: usize,
    pub intermediate_size: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    pub num_key_value_heads: usize,
    head_dim: Option<usize>,
    pub vocab_size: usize,
    pub rms_norm_eps: f32,
    max_position_embeddings: usize,
    #[serde(default)]
    pub tie_word_embeddings: bool,
    #[serde(default)]
    attention_bias: bool,
    #[serde(default)]
    mlp_bias: bool,
    #[serde(default)]
    use_sliding_window: bool,
    layer_types: Option<Vec<String>>,
    #[serde(default = "silu")]
    hidden_act: String,
    rope_theta: Option<f32>,
    rope_parameters: Option<Value>,
    rope_scaling: Option<Value>,
}

fn silu() -> String {
    "silu".into()
}

/// A model's config; one whose `obstacle` says why it cannot run is refused with that.
pub(super) fn read_config<C: DeserializeOwned>(path: &Path, obstacle: fn(&C) -> Option<String>) -> Result<C> {
    let text = std::fs::read_to_string(path).map_err(Error::reading(path))?;
    let config: C = serde_json::from_str(&text).map_err(|e| Error::malformed(path, e.to_string()))?;
    match obstacle(&config) {
        Some(why) => Err(Error::Unsupported { path: path.to_path_buf(), why }),
        None => Ok(config),
    }
}

impl Config {
    pub fn read(path: &Path) -> Result<Config> {
        read_config(path, Config::obstacle)
    }

    pub fn head_dim(&self) -> usize {
        self.head_dim.unwrap_or(self.hidden_size / self.num_attention_heads.max(1))
    }

    /// Query heads that share one kv head.
    pub fn group(&self) -> usize {
        self.num_attention_heads / self.num_key_value_heads
    }

    /// Each head of q and k is normalised before RoPE.
    pub fn qk_norm(&self) -> bool {
        self.model_type == "qwen3"
    }

    pub fn qkv_bias(&self) -> bool {
        self.model_type == "qwen2" || self.attention_bias
    }

    pub fn out_bias(&self) -> bool {
        self.model_type != "qwen2" && self.attention_bias
    }

    /// The tensor of the output embedding.
    pub fn head_name(&self) -> &'static str {
        if self.tie_word_embeddings { "model.embed_tokens.weight" } else { "lm_head.weight" }
    }

    pub fn rope_theta(&self) -> f32 {
        let inside = self.rope_parameters.as_ref().and_then(|r| r["rope_theta"].as_f64()).map(|theta| theta as f32);
        inside.or(self.rope_theta).unwrap_or(10_000.0)
    }

    /// Newer files keep everything in rope_parameters, older ones have rope_scaling.
    pub fn rope_scaling(&self) -> std::result::Result<Scaling, String> {
        let present = |value: &&Value| !value.is_null();
        let older = self.rope_scaling.as_ref().filter(present);
        match older.or(self.rope_parameters.as_ref().filter(present)) {
            Some(value) => Scaling::parse(value, self.max_position_embeddings),
            None => Ok(Scaling::None),
        }
    }

    /// The longest context: what the file says, or what its RoPE was stretched to.
    pub fn positions(&self) -> usize {
        let stretched = self.rope_scaling().ok().and_then(|scaling| scaling.reach()).unwrap_or(0);
        self.max_position_embeddings.max(stretched)
    }

    fn obstacle(&self) -> Option<String> {
        let sizes = [self.hidden_size, self.intermediate_size, self.num_hidden_layers, self.vocab_size, self.num_attention_heads, self.num_key_value_heads];
        if !["qwen2", "qwen3", "llama"].contains(&self.model_type.as_str()) {
            return Some(format!("model_type is {:?}; {FAMILIES}", self.model_type));
        }
        if sizes.contains(&0) {
            return Some("a size in config.json is zero; restore the original file".into());
        }
        if !self.num_attention_heads.is_multiple_of(self.num_key_value_heads) {
            return Some(format!("{} attention heads do not divide into {} kv heads", self.num_attention_heads, self.num_key_value_heads));
        }
        if ![64, 128, 256].contains(&self.head_dim()) {
            return Some(format!("head_dim is {}; the decode kernels take 64, 128 or 256", self.head_dim()));
        }
        if self.hidden_act != "silu" {
            return Some(format!("hidden_act is {:?}; only silu runs", self.hidden_act));
        }
        if self.mlp_bias {
            return Some("mlp_bias is not implemented; use a model without it".into());
        }
        let sliding = |kinds: &Vec<String>| kinds.iter().any(|kind| kind != "full_attention");
        if self.use_sliding_window || self.layer_types.as_ref().is_some_and(sliding) {
            return Some("sliding windows are not implemented; use a model whose layers all attend fully".into());
        }
        self.rope_scaling().err()
    }
}
