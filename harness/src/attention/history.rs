//! Keys and values of a passage as far as it has come, layer by layer.

use crate::model::Rows;

#[derive(Clone, Default)]
pub struct History {
    layers: Vec<[Vec<f32>; 2]>,
}

impl History {
    /// Appends the rows of the next tokens of a layer; returns K and V of all its tokens, [token, kv head, d].
    pub fn push(&mut self, layer: usize, k: &[f32], v: &[f32]) -> [&[f32]; 2] {
        if self.layers.len() <= layer {
            self.layers.resize_with(layer + 1, Default::default);
        }
        let [past_k, past_v] = &mut self.layers[layer];
        past_k.extend_from_slice(k);
        past_v.extend_from_slice(v);
        [past_k, past_v]
    }

    /// Puts other rows in the place of the latest ones.
    pub fn replace(&mut self, rows: &Rows, k: &[f32], v: &[f32]) {
        let [past_k, past_v] = &mut self.layers[rows.layer];
        let (keep_k, keep_v) = (past_k.len() - k.len(), past_v.len() - v.len());
        past_k[keep_k..].copy_from_slice(k);
        past_v[keep_v..].copy_from_slice(v);
    }

    /// Puts keys in the place of those from element `first` on.
    pub fn put_keys(&mut self, layer: usize, first: usize, k: &[f32]) {
        self.layers[layer][0][first..first + k.len()].copy_from_slice(k);
    }

    pub fn layer(&self, layer: usize) -> [&[f32]; 2] {
        self.layers.get(layer).map_or([&[], &[]], |[k, v]| [k, v])
    }
}
