//! A checkpoint under either naming, asked by the official names.

use candle_core::{Device, Tensor};

use super::names::Naming;
use crate::error::Result;
use crate::model::Weights;
use crate::model::layer::product;

pub struct Checkpoint {
    pub weights: Weights,
    naming: Naming,
}

impl Checkpoint {
    pub fn new(weights: Weights) -> Checkpoint {
        let other = weights.has(&Naming::Transformers.of_model("embed.weight"));
        Checkpoint { weights, naming: if other { Naming::Transformers } else { Naming::Official } }
    }

    pub fn has(&self, name: &str) -> bool {
        self.weights.has(&self.naming.of_model(name))
    }

    /// Of no layer.
    pub fn tensor(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        self.weights.tensor(&self.naming.of_model(name), shape)
    }

    pub fn rows(&self, name: &str, shape: &[usize; 2], rows: &[u32]) -> Result<Vec<f32>> {
        self.weights.rows(&self.naming.of_model(name), shape, rows)
    }

    pub fn layer(&self, layer: usize) -> LayerCheckpoint<'_> {
        LayerCheckpoint { all: self, layer }
    }
}

/// The tensors of one layer.
pub struct LayerCheckpoint<'a> {
    all: &'a Checkpoint,
    layer: usize,
}

impl LayerCheckpoint<'_> {
    fn name(&self, official: &str) -> String {
        self.all.naming.of_layer(self.layer, official)
    }

    pub fn tensor(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        self.all.weights.tensor(&self.name(name), shape)
    }

    pub fn integers(&self, name: &str, shape: &[usize]) -> Result<Vec<u32>> {
        self.all.weights.integers(&self.name(name), shape)
    }

    /// `name` without `.weight`, [out, in].
    pub fn matrix(&self, name: &str, shape: [usize; 2]) -> Result<Matrix> {
        let (weight, scale) = (self.name(&format!("{name}.weight")), self.name(&format!("{name}.scale")));
        Matrix::new(self.all.weights.matrix(&weight, &scale, shape)?, shape)
    }

    /// A matrix for each group, [out, in], that lie one behind the other.
    pub fn block_diagonal(&self, name: &str, groups: usize, [out, input]: [usize; 2]) -> Result<Vec<Matrix>> {
        let (weight, scale) = (self.name(&format!("{name}.weight")), self.name(&format!("{name}.scale")));
        let all = self.all.weights.matrix(&weight, &scale, [groups * out, input])?;
        all.chunks(out * input).map(|own| Matrix::new(own.to_vec(), [out, input])).collect()
    }

    /// Gate, down and up of an expert, [inner, hidden], [hidden, inner] and [inner, hidden]. transformers keeps all
    /// experts in two tensors, gate and up one behind the other.
    pub fn expert(&self, expert: usize, [experts, hidden, inner]: [usize; 3]) -> Result<[Matrix; 3]> {
        if self.all.naming == Naming::Official {
            let own = |w: &str, shape| self.matrix(&format!("ffn.experts.{expert}.{w}"), shape);
            return Ok([own("w1", [inner, hidden])?, own("w2", [hidden, inner])?, own("w3", [inner, hidden])?]);
        }
        let slab = |name: &str, shape: [usize; 3]| self.all.weights.slab(&self.name(name), &shape, expert);
        let mut gate = slab("mlp.experts.gate_up_proj", [experts, 2 * inner, hidden])?;
        let up = gate.split_off(inner * hidden);
        let down = slab("mlp.experts.down_proj", [experts, hidden, inner])?;
        Ok([Matrix::new(gate, [inner, hidden])?, Matrix::new(down, [hidden, inner])?, Matrix::new(up, [inner, hidden])?])
    }
}

/// [out, in]
pub struct Matrix {
    weight: Tensor,
    input: usize,
}

impl Matrix {
    pub fn new(weight: Vec<f32>, [out, input]: [usize; 2]) -> Result<Matrix> {
        Ok(Matrix { weight: Tensor::from_vec(weight, (out, input), &Device::Cpu)?, input })
    }

    pub fn input(&self) -> usize {
        self.input
    }

    /// x [token, in] to [token, out].
    pub fn of(&self, x: &[f32]) -> Result<Vec<f32>> {
        let x = Tensor::from_slice(x, (x.len() / self.input, self.input), &Device::Cpu)?;
        Ok(product(&x, &self.weight)?.flatten_all()?.to_vec1()?)
    }
}
