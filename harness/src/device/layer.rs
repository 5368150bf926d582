//! One decoder layer on a device: its weights, and what they do to the rows of a passage.

use std::rc::Rc;

use kernels_gen::kernels::forward::heads::HeadsMeta;
use runtime::{Memory, Span};

use super::{Attend, DeviceRows, Machine};
use crate::error::Result;
use crate::model::{Config, Weights};

pub struct DeviceLayer {
    attention_norm: Memory,
    mlp_norm: Memory,
    /// of q and of k, [2, d]
    head_norms: Memory,
    /// [heads + 2 kv heads, d, hidden]
    qkv: Memory,
    qkv_bias: Memory,
    /// [hidden, heads, d]
    o: Memory,
    o_bias: Option<Memory>,
    /// [2, inner, hidden]
    gate_up: Memory,
    down: Memory,
}

/// What all layers of a lane share: the keys and values of one layer, and the table of turns.
pub struct Passage {
    pub k: Memory,
    pub v: Memory,
    pub positions: Memory,
    pub turns: Rc<Memory>,
}

impl DeviceLayer {
    pub fn read(machine: &Machine, weights: &Weights, config: &Config, index: usize) -> Result<DeviceLayer> {
        let (hidden, inner, d) = (config.hidden_size, config.intermediate_size, config.head_dim());
        let (q_width, kv_width) = (config.num_attention_heads * d, config.num_key_value_heads * d);
        let at = |name: &str| format!("model.layers.{index}.{name}");
        let stacked = |names: &[(&str, Vec<usize>)]| -> Result<Memory> {
            let mut all = Vec::new();
            for (name, shape) in names {
                all.extend(weights.tensor(&at(name), shape)?);
            }
            machine.floats(&all)
        };
        let none = || machine.floats(&[0.0]);
        let qkv = [("q", q_width), ("k", kv_width), ("v", kv_width)];
        let named = |what: &str, columns: Option<usize>| -> Result<Memory> {
            let names = qkv.map(|(part, width)| (format!("self_attn.{part}_proj.{what}"), width));
            let shape = |width| std::iter::once(width).chain(columns).collect::<Vec<usize>>();
            stacked(&names.each_ref().map(|(name, width)| (name.as_str(), shape(*width))))
        };
        Ok(DeviceLayer {
            attention_norm: stacked(&[("input_layernorm.weight", vec![hidden])])?,
            mlp_norm: stacked(&[("post_attention_layernorm.weight", vec![hidden])])?,
            head_norms: match config.qk_norm() {
                true => stacked(&[("self_attn.q_norm.weight", vec![d]), ("self_attn.k_norm.weight", vec![d])])?,
                false => none()?,
            },
            qkv: named("weight", Some(hidden))?,
            qkv_bias: if config.qkv_bias() { named("bias", None)? } else { none()? },
            o: stacked(&[("self_attn.o_proj.weight", vec![hidden, q_width])])?,
            o_bias: match config.out_bias() {
                true => Some(stacked(&[("self_attn.o_proj.bias", vec![hidden])])?),
                false => None,
            },
            gate_up: stacked(&[("mlp.gate_proj.weight", vec![inner, hidden]), ("mlp.up_proj.weight", vec![inner, hidden])])?,
            down: stacked(&[("mlp.down_proj.weight", vec![hidden, inner])])?,
        })
    }

    /// `x` [token, hidden] of the tokens at positions `start`.. goes through layer `index`, in place.
    pub fn forward(&self, machine: &Machine, config: &Config, passage: &Passage, (index, start, tokens): (usize, usize, usize), x: Span, attention: &mut dyn Attend) -> Result<()> {
        let (hidden, inner, d) = (config.hidden_size, config.intermediate_size, config.head_dim());
        let (heads, kv_heads, epsilon) = (config.num_attention_heads, config.num_key_value_heads, config.rms_norm_eps);
        let (q_width, all) = (heads * d, (heads + 2 * kv_heads) * d);
        let space = |what, width: usize| machine.scratch(what, 4 * tokens * width);
        let (h, qkv, q, mixed) = (space("normed", hidden)?, space("qkv", all)?, space("q", q_width)?, space("mixed", q_width)?);
        machine.norm([x, self.attention_norm.span(), h.span()], tokens, hidden, epsilon)?;
        machine.product([h.span(), self.qkv.span(), qkv.span()], [tokens, all, hidden], false)?;
        let meta = HeadsMeta { half: d / 2, heads, kv_heads, norm: config.qk_norm(), bias: config.qkv_bias() };
        let (k, v) = (&passage.k, &passage.v);
        let spans = [&qkv, &self.qkv_bias, &self.head_norms, &passage.turns, &q, k, v].map(|m: &Memory| m.span());
        machine.heads(&meta, spans, tokens, start, epsilon)?;
        let positions = &passage.positions;
        attention.attend(&DeviceRows { layer: index, start, tokens, q: q.span(), k, v, positions }, mixed.span())?;
        machine.product([mixed.span(), self.o.span(), x], [tokens, hidden, q_width], true)?;
        if let Some(bias) = &self.o_bias {
            machine.shift([x, bias.span()], tokens, hidden)?;
        }
        let (wide, gated) = (space("gate and up", 2 * inner)?, space("gated", inner)?);
        machine.norm([x, self.mlp_norm.span(), h.span()], tokens, hidden, epsilon)?;
        machine.product([h.span(), self.gate_up.span(), wide.span()], [tokens, 2 * inner, hidden], false)?;
        machine.gate([wide.span(), gated.span()], tokens, inner)?;
        machine.product([gated.span(), self.down.span(), x], [tokens, hidden, inner], true)
    }
}
