//! config.json of a Qwen3 checkpoint. What the forward pass does not implement is refused here, not ignored.

use std::path::Path;

use serde::Deserialize;

use crate::error::{Error, Result};

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
    pub max_position_embeddings: usize,
    #[serde(default)]
    pub tie_word_embeddings: bool,
    #[serde(default)]
    attention_bias: bool,
    #[serde(default)]
    use_sliding_window: bool,
    #[serde(default = "silu")]
    hidden_act: String,
    rope_theta: Option<f32>,
    rope_parameters: Option<RopeParameters>,
    rope_scaling: Option<serde_json::Value>,
}

#[derive(Clone, Debug, Deserialize)]
struct RopeParameters {
    rope_theta: Option<f32>,
    rope_type: Option<String>,
}

fn silu() -> String {
    "silu".into()
}

impl Config {
    pub fn read(path: &Path) -> Result<Config> {
        let text = std::fs::read_to_string(path).map_err(Error::reading(path))?;
        let config: Config = serde_json::from_str(&text).map_err(|e| Error::malformed(path, e.to_string()))?;
        match config.obstacle() {
            Some(why) => Err(Error::Unsupported { path: path.to_path_buf(), why }),
            None => Ok(config),
        }
    }

    pub fn head_dim(&self) -> usize {
        self.head_dim.unwrap_or(self.hidden_size / self.num_attention_heads.max(1))
    }

    /// Query heads that share one kv head.
    pub fn group(&self) -> usize {
        self.num_attention_heads / self.num_key_value_heads
    }

    pub fn rope_theta(&self) -> f32 {
        self.rope_parameters.as_ref().and_then(|r| r.rope_theta).or(self.rope_theta).unwrap_or(10_000.0)
    }

    fn obstacle(&self) -> Option<String> {
        let sizes = [
            self.hidden_size,
            self.intermediate_size,
            self.num_hidden_layers,
            self.vocab_size,
            self.num_attention_heads,
            self.num_key_value_heads,
        ];
        let rope_type = self.rope_parameters.as_ref().and_then(|r| r.rope_type.as_deref()).unwrap_or("default");
        if self.model_type != "qwen3" {
            return Some(format!("model_type is {:?}; only \"qwen3\" runs", self.model_type));
        }
        if sizes.contains(&0) {
            return Some("a size in config.json is zero; restore the original file".into());
        }
        if !self.num_attention_heads.is_multiple_of(self.num_key_value_heads) {
            return Some(format!(
                "{} attention heads do not divide into {} kv heads",
                self.num_attention_heads, self.num_key_value_heads
            ));
        }
        if ![64, 128, 256].contains(&self.head_dim()) {
            return Some(format!("head_dim is {}; the decode kernels take 64, 128 or 256", self.head_dim()));
        }
        if self.hidden_act != "silu" {
            return Some(format!("hidden_act is {:?}; only silu runs", self.hidden_act));
        }
        if self.attention_bias || self.use_sliding_window {
            return Some("attention_bias and sliding windows are not implemented; use a plain qwen3 model".into());
        }
        if rope_type != "default" || self.rope_scaling.as_ref().is_some_and(|s| !s.is_null()) {
            return Some("scaled RoPE is not implemented; use a model with the default RoPE".into());
        }
        None
    }
}
