//! The weights of one decoder layer, and what they do to the rows of a passage.

use candle_core::{D, Device, Tensor};
use rayon::prelude::*;

use super::rope::Rope;
use super::{Attention, Config, Rows, Weights};
use crate::error::Result;

/// Rows that a product is filled up to. Fewer rows would take another path through the matrix product, with another
/// order of sums; filled up, a token's result does not depend on how many came with it.
const LEAST_ROWS: usize = 16;

pub struct Layer {
    attention_norm: Vec<f32>,
    mlp_norm: Vec<f32>,
    /// of q and of k, where the model has them
    head_norms: Option<[Vec<f32>; 2]>,
    q: Linear,
    k: Linear,
    v: Linear,
    o: Linear,
    gate: Linear,
    up: Linear,
    down: Linear,
}

impl Layer {
    pub fn read(weights: &Weights, config: &Config, index: usize) -> Result<Layer> {
        let (hidden, inner, d) = (config.hidden_size, config.intermediate_size, config.head_dim());
        let (q_width, kv_width) = (config.num_attention_heads * d, config.num_key_value_heads * d);
        let at = |name: &str| format!("model.layers.{index}.{name}");
        let norm = |name: &str, width| weights.tensor(&at(&format!("{name}.weight")), &[width]);
        let linear = |name: &str, out, input, bias| Linear::read(weights, &at(name), out, input, bias);
        let (qkv_bias, out_bias) = (config.qkv_bias(), config.out_bias());
        Ok(Layer {
            attention_norm: norm("input_layernorm", hidden)?,
            mlp_norm: norm("post_attention_layernorm", hidden)?,
            head_norms: match config.qk_norm() {
                true => Some([norm("self_attn.q_norm", d)?, norm("self_attn.k_norm", d)?]),
                false => None,
            },
            q: linear("self_attn.q_proj", q_width, hidden, qkv_bias)?,
            k: linear("self_attn.k_proj", kv_width, hidden, qkv_bias)?,
            v: linear("self_attn.v_proj", kv_width, hidden, qkv_bias)?,
            o: linear("self_attn.o_proj", hidden, q_width, out_bias)?,
            gate: linear("mlp.gate_proj", inner, hidden, false)?,
            up: linear("mlp.up_proj", inner, hidden, false)?,
            down: linear("mlp.down_proj", hidden, inner, false)?,
        })
    }

    /// `x` [token, hidden] of the tokens at positions `start`.. through the layer.
    pub fn forward(&self, config: &Config, rope: &Rope, (index, start): (usize, usize), x: &Tensor, attention: &mut dyn Attention) -> Result<Tensor> {
        let (tokens, d, eps) = (x.dim(0)?, config.head_dim(), config.rms_norm_eps);
        let h = normed(x, &self.attention_norm, eps)?;
        let project = |linear: &Linear| -> Result<Vec<f32>> { Ok(linear.of(&h)?.flatten_all()?.to_vec1()?) };
        let (mut q, mut k, v) = (project(&self.q)?, project(&self.k)?, project(&self.v)?);
        let turned = [(&mut q, config.num_attention_heads, 0), (&mut k, config.num_key_value_heads, 1)];
        for (rows, heads, which) in turned {
            rows.par_chunks_mut(d).enumerate().for_each(|(at, row)| {
                if let Some(norms) = &self.head_norms {
                    rms_norm(row, &norms[which], eps);
                }
                rope.turn(row, start + at / heads);
            });
        }
        let mixed = attention.attend(&Rows { layer: index, start, tokens, q: &q, k: &k, v: &v })?;
        let mixed = Tensor::from_vec(mixed, (tokens, config.num_attention_heads * d), &Device::Cpu)?;
        let x = (x + self.o.of(&mixed)?)?;
        let h = normed(&x, &self.mlp_norm, eps)?;
        let gated = (self.gate.of(&h)?.silu()? * self.up.of(&h)?)?;
        Ok((&x + self.down.of(&gated)?)?)
    }
}

struct Linear {
    /// [out, in]
    weight: Tensor,
    bias: Option<Tensor>,
}

impl Linear {
    fn read(weights: &Weights, name: &str, out: usize, input: usize, bias: bool) -> Result<Linear> {
        let weight = weights.tensor(&format!("{name}.weight"), &[out, input])?;
        let bias = match bias {
            true => Some(Tensor::from_vec(weights.tensor(&format!("{name}.bias"), &[out])?, out, &Device::Cpu)?),
            false => None,
        };
        Ok(Linear { weight: Tensor::from_vec(weight, (out, input), &Device::Cpu)?, bias })
    }

    fn of(&self, x: &Tensor) -> Result<Tensor> {
        let y = product(x, &self.weight)?;
        Ok(match &self.bias {
            Some(bias) => y.broadcast_add(bias)?,
            None => y,
        })
    }
}

/// x [token, in] by the transpose of w [out, in].
pub fn product(x: &Tensor, w: &Tensor) -> Result<Tensor> {
    let tokens = x.dim(0)?;
    if tokens >= LEAST_ROWS {
        return Ok(x.matmul(&w.t()?)?);
    }
    let filled = x.pad_with_zeros(0, 0, LEAST_ROWS - tokens)?;
    Ok(filled.matmul(&w.t()?)?.narrow(0, 0, tokens)?.contiguous()?)
}

pub fn normed(x: &Tensor, weight: &[f32], eps: f32) -> Result<Tensor> {
    let width = x.dim(D::Minus1)?;
    let mut rows: Vec<f32> = x.flatten_all()?.to_vec1()?;
    rows.par_chunks_mut(width).for_each(|row| rms_norm(row, weight, eps));
    Ok(Tensor::from_vec(rows, x.shape(), &Device::Cpu)?)
}

pub fn rms_norm(row: &mut [f32], weight: &[f32], eps: f32) {
    let mean_square = row.iter().map(|v| v * v).sum::<f32>() / row.len() as f32;
    let inverse = 1.0 / (mean_square + eps).sqrt();
    for (value, w) in row.iter_mut().zip(weight) {
        *value *= inverse * w;
    }
}
