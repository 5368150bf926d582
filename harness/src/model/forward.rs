//! The forward pass over one passage: every position at once, logits only where they are scored.
//! With all keys and values read through the cache, one pass gives what token-by-token decoding gives.

use std::path::Path;

use candle_core::{D, Device, Tensor};
use rayon::prelude::*;

use super::rope::Rope;
use super::{Attention, Config, FileDigest, Rows, Weights};
use crate::error::{Error, Result};

pub struct Model {
    pub config: Config,
    pub digests: Vec<FileDigest>,
    /// [vocab, hidden]
    embedding: Tensor,
    head: Tensor,
    norm: Vec<f32>,
    layers: Vec<Layer>,
}

struct Layer {
    attention_norm: Vec<f32>,
    mlp_norm: Vec<f32>,
    q_norm: Vec<f32>,
    k_norm: Vec<f32>,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    o: Tensor,
    gate: Tensor,
    up: Tensor,
    down: Tensor,
}

/// [position, vocab]
pub struct Logits {
    pub vocab: usize,
    pub values: Vec<f32>,
}

impl Model {
    pub fn load(folder: &Path) -> Result<Model> {
        let config_path = folder.join("config.json");
        let config = Config::read(&config_path)?;
        let weights = Weights::read(folder)?;
        let matrix = |name: &str, rows: usize, columns: usize| -> Result<Tensor> {
            let values = weights.tensor(name, &[rows, columns])?;
            Ok(Tensor::from_vec(values, (rows, columns), &Device::Cpu)?)
        };
        let (hidden, inner, d) = (config.hidden_size, config.intermediate_size, config.head_dim());
        let (q_width, kv_width) = (config.num_attention_heads * d, config.num_key_value_heads * d);
        let layer = |index: usize| -> Result<Layer> {
            let at = |name: &str| format!("model.layers.{index}.{name}.weight");
            Ok(Layer {
                attention_norm: weights.tensor(&at("input_layernorm"), &[hidden])?,
                mlp_norm: weights.tensor(&at("post_attention_layernorm"), &[hidden])?,
                q_norm: weights.tensor(&at("self_attn.q_norm"), &[d])?,
                k_norm: weights.tensor(&at("self_attn.k_norm"), &[d])?,
                q: matrix(&at("self_attn.q_proj"), q_width, hidden)?,
                k: matrix(&at("self_attn.k_proj"), kv_width, hidden)?,
                v: matrix(&at("self_attn.v_proj"), kv_width, hidden)?,
                o: matrix(&at("self_attn.o_proj"), hidden, q_width)?,
                gate: matrix(&at("mlp.gate_proj"), inner, hidden)?,
                up: matrix(&at("mlp.up_proj"), inner, hidden)?,
                down: matrix(&at("mlp.down_proj"), hidden, inner)?,
            })
        };
        let embedding = matrix("model.embed_tokens.weight", config.vocab_size, hidden)?;
        let head = if config.tie_word_embeddings {
            embedding.clone()
        } else {
            matrix("lm_head.weight", config.vocab_size, hidden)?
        };
        let layers = (0..config.num_hidden_layers).map(layer).collect::<Result<Vec<_>>>()?;
        let norm = weights.tensor("model.norm.weight", &[hidden])?;
        let config_bytes = std::fs::read(&config_path).map_err(Error::reading(&config_path))?;
        let mut digests = vec![FileDigest { file: "config.json".into(), sha256: super::sha256(&config_bytes) }];
        digests.extend(weights.digests);
        Ok(Model { config, digests, embedding, head, norm, layers })
    }

    /// Logits of positions `from..to`; ids must be inside the vocabulary.
    pub fn logits(&self, ids: &[u32], from: usize, to: usize, attention: &mut dyn Attention) -> Result<Logits> {
        let rope = Rope::new(self.config.rope_theta(), self.config.head_dim(), ids.len());
        let mut x = self.embedding.index_select(&Tensor::new(ids, &Device::Cpu)?, 0)?;
        for (index, layer) in self.layers.iter().enumerate() {
            let mixed = self.mix(index, layer, &x, &rope, attention)?;
            x = (x + mixed.matmul(&layer.o.t()?)?)?;
            let h = self.normed(&x, &layer.mlp_norm)?;
            let gated = (h.matmul(&layer.gate.t()?)?.silu()? * h.matmul(&layer.up.t()?)?)?;
            x = (x + gated.matmul(&layer.down.t()?)?)?;
        }
        let scored = self.normed(&x.narrow(0, from, to - from)?.contiguous()?, &self.norm)?;
        let values = scored.matmul(&self.head.t()?)?.flatten_all()?.to_vec1()?;
        Ok(Logits { vocab: self.config.vocab_size, values })
    }

    /// Attention of one layer, before the output projection: [token, heads * d].
    fn mix(
        &self,
        index: usize,
        layer: &Layer,
        x: &Tensor,
        rope: &Rope,
        attention: &mut dyn Attention,
    ) -> Result<Tensor> {
        let tokens = x.dim(0)?;
        let h = self.normed(x, &layer.attention_norm)?;
        let project = |w: &Tensor| -> Result<Vec<f32>> { Ok(h.matmul(&w.t()?)?.flatten_all()?.to_vec1()?) };
        let (mut q, mut k, v) = (project(&layer.q)?, project(&layer.k)?, project(&layer.v)?);
        self.norm_and_turn(&mut q, self.config.num_attention_heads, &layer.q_norm, rope);
        self.norm_and_turn(&mut k, self.config.num_key_value_heads, &layer.k_norm, rope);
        let mixed = attention.attend(&Rows { layer: index, tokens, q: &q, k: &k, v: &v })?;
        let width = self.config.num_attention_heads * self.config.head_dim();
        Ok(Tensor::from_vec(mixed, (tokens, width), &Device::Cpu)?)
    }

    fn norm_and_turn(&self, rows: &mut [f32], heads: usize, weight: &[f32], rope: &Rope) {
        let d = self.config.head_dim();
        rows.par_chunks_mut(d).enumerate().for_each(|(index, row)| {
            rms_norm(row, weight, self.config.rms_norm_eps);
            rope.turn(row, index / heads);
        });
    }

    fn normed(&self, x: &Tensor, weight: &[f32]) -> Result<Tensor> {
        let width = x.dim(D::Minus1)?;
        let mut rows: Vec<f32> = x.flatten_all()?.to_vec1()?;
        rows.par_chunks_mut(width).for_each(|row| rms_norm(row, weight, self.config.rms_norm_eps));
        Ok(Tensor::from_vec(rows, x.shape(), &Device::Cpu)?)
    }
}

fn rms_norm(row: &mut [f32], weight: &[f32], eps: f32) {
    let mean_square = row.iter().map(|v| v * v).sum::<f32>() / row.len() as f32;
    let inverse = 1.0 / (mean_square + eps).sqrt();
    for (value, w) in row.iter_mut().zip(weight) {
        *value *= inverse * w;
    }
}
