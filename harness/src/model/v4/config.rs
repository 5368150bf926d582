//! config.json of a DeepSeek-V4 checkpoint, as the official files and as transformers write it. They say the same in
//! other words: which layers compress, which route by token, how RoPE turns.

use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use super::RowKind;
use crate::error::Result;
use crate::model::config::read_config;
use crate::model::rope::Scaling;

/// The ratio whose groups overlap and have an indexer.
const SPARSE_RATIO: usize = 4;

#[derive(Clone, Debug, Deserialize)]
pub struct Config {
    pub hidden_size: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    pub head_dim: usize,
    #[serde(default = "rope_dim")]
    pub qk_rope_head_dim: usize,
    pub q_lora_rank: usize,
    pub o_groups: usize,
    pub o_lora_rank: usize,
    pub index_n_heads: usize,
    pub index_head_dim: usize,
    pub index_topk: usize,
    pub sliding_window: usize,
    pub n_routed_experts: usize,
    #[serde(default = "one")]
    pub n_shared_experts: usize,
    pub num_experts_per_tok: usize,
    pub moe_intermediate_size: usize,
    pub routed_scaling_factor: f32,
    pub swiglu_limit: f32,
    pub hc_mult: usize,
    pub hc_sinkhorn_iters: usize,
    pub hc_eps: f32,
    pub rms_norm_eps: f32,
    pub vocab_size: usize,
    pub max_position_embeddings: usize,
    #[serde(default)]
    pub tie_word_embeddings: bool,
    #[serde(default = "scoring")]
    scoring_func: String,
    #[serde(default = "silu")]
    hidden_act: String,
    #[serde(default)]
    attention_bias: bool,
    #[serde(default = "one")]
    num_key_value_heads: usize,
    // official: one number a layer, those of the blocks that predict further ahead behind them
    compress_ratios: Option<Vec<usize>>,
    num_hash_layers: Option<usize>,
    // transformers
    layer_types: Option<Vec<String>>,
    compress_rates: Option<Value>,
    mlp_layer_types: Option<Vec<String>>,
    #[serde(default = "plain_theta")]
    rope_theta: f32,
    #[serde(default = "compress_theta")]
    compress_rope_theta: f32,
    rope_scaling: Option<Value>,
    rope_parameters: Option<Value>,
}

fn rope_dim() -> usize {
    64
}

fn one() -> usize {
    1
}

fn scoring() -> String {
    "sqrtsoftplus".into()
}

fn silu() -> String {
    "silu".into()
}

fn plain_theta() -> f32 {
    10_000.0
}

fn compress_theta() -> f32 {
    160_000.0
}

/// What a layer keeps beside its window.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Compressed {
    pub kind: RowKind,
    /// tokens of a group
    pub ratio: usize,
}

impl Config {
    pub fn read(path: &Path) -> Result<Config> {
        read_config(path, Config::obstacle)
    }

    /// None for a layer with a window alone.
    pub fn compressed(&self, layer: usize) -> Option<Compressed> {
        self.schedule().ok()?.get(layer).copied().flatten()
    }

    /// Experts come from a table of tokens.
    pub fn hashed(&self, layer: usize) -> bool {
        match (&self.mlp_layer_types, self.num_hash_layers) {
            (_, Some(layers)) => layer < layers,
            (Some(kinds), None) => kinds.get(layer).is_some_and(|kind| kind == "hash_moe"),
            (None, None) => false,
        }
    }

    /// Base and scaling of a layer's turns: layers that compress have their own, for their windows too.
    pub fn turns(&self, compresses: bool) -> std::result::Result<(f32, Scaling), String> {
        let named = self.rope_parameters.as_ref().map(|all| &all[if compresses { "compress" } else { "main" }]);
        let named = named.filter(|own| own.is_object());
        let theta = if compresses { self.compress_rope_theta } else { self.rope_theta };
        let theta = named.and_then(|own| own["rope_theta"].as_f64()).map_or(theta, |theta| theta as f32);
        let scaling = match (named, &self.rope_scaling) {
            (Some(own), _) => Scaling::parse(own, self.max_position_embeddings)?,
            (None, Some(own)) if compresses && own.is_object() => Scaling::parse(own, self.max_position_embeddings)?,
            _ => Scaling::None,
        };
        Ok((theta, scaling))
    }

    pub fn layers_of(&self, kind: RowKind) -> usize {
        let has = |layer: &usize| kind == RowKind::Window || self.compressed(*layer).is_some_and(|c| c.kind == kind);
        (0..self.num_hidden_layers).filter(has).count()
    }

    fn schedule(&self) -> std::result::Result<Vec<Option<Compressed>>, String> {
        let layers = self.num_hidden_layers;
        let of_ratio = |ratio: &usize| match *ratio {
            0 => None,
            SPARSE_RATIO => Some(Compressed { kind: RowKind::Csa, ratio: SPARSE_RATIO }),
            ratio => Some(Compressed { kind: RowKind::Hca, ratio }),
        };
        if let Some(ratios) = self.compress_ratios.as_ref().filter(|ratios| ratios.len() >= layers) {
            return Ok(ratios[..layers].iter().map(of_ratio).collect());
        }
        let Some(kinds) = self.layer_types.as_ref().filter(|kinds| kinds.len() == layers) else {
            return Err(format!("neither compress_ratios nor layer_types has an entry for each of {layers} layers"));
        };
        let rate = |name: &str, usual| {
            let said = self.compress_rates.as_ref().and_then(|rates| rates[name].as_u64());
            said.map_or(usual, |rate| rate as usize)
        };
        let of_kind = |kind: &String| match kind.as_str() {
            "sliding_attention" => Ok(None),
            "compressed_sparse_attention" => Ok(of_ratio(&rate(kind, SPARSE_RATIO))),
            "heavily_compressed_attention" => Ok(of_ratio(&rate(kind, 128))),
            other => Err(format!("layer_types holds {other:?}")),
        };
        kinds.iter().map(of_kind).collect()
    }

    fn obstacle(&self) -> Option<String> {
        let sizes = [
            self.hidden_size,
            self.num_hidden_layers,
            self.num_attention_heads,
            self.head_dim,
            self.q_lora_rank,
            self.o_groups,
            self.o_lora_rank,
            self.index_n_heads,
            self.index_topk,
            self.sliding_window,
            self.n_routed_experts,
            self.num_experts_per_tok,
            self.moe_intermediate_size,
            self.hc_mult,
            self.hc_sinkhorn_iters,
            self.vocab_size,
        ];
        let rope = self.qk_rope_head_dim;
        let turned = |d: usize| rope > 0 && rope.is_multiple_of(2) && rope <= d;
        if sizes.contains(&0) {
            return Some("a size in config.json is zero; restore the original file".into());
        }
        if self.num_key_value_heads != 1 {
            return Some(format!("{} kv heads; a row of this architecture serves all heads", self.num_key_value_heads));
        }
        if !self.num_attention_heads.is_multiple_of(self.o_groups) {
            return Some(format!("{} heads do not divide into {} groups", self.num_attention_heads, self.o_groups));
        }
        if !turned(self.head_dim) || !turned(self.index_head_dim) {
            return Some(format!("{rope} dims with RoPE do not fit into heads of {} and {}", self.head_dim, self.index_head_dim));
        }
        if self.num_experts_per_tok > self.n_routed_experts {
            return Some(format!("{} of {} experts a token", self.num_experts_per_tok, self.n_routed_experts));
        }
        if self.scoring_func != "sqrtsoftplus" || self.hidden_act != "silu" {
            return Some(format!("scoring_func {:?} with {:?}; only sqrtsoftplus with silu runs", self.scoring_func, self.hidden_act));
        }
        if self.n_shared_experts != 1 || self.attention_bias {
            return Some("other than one shared expert, or biases in attention, are not implemented".into());
        }
        self.schedule().err().or_else(|| [false, true].into_iter().find_map(|compresses| self.turns(compresses).err()))
    }
}
