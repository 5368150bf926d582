//! Manifold-constrained hyper-connections: the residual is several streams. Each block reads a mix of them, and gives
//! to all of them while they mix among themselves by a matrix whose rows and columns sum to 1.

use rayon::prelude::*;

use super::Config;
use super::checkpoint::{Checkpoint, LayerCheckpoint, Matrix};
use crate::error::Result;

/// How the streams meet one block.
pub struct Connection {
    /// [2 mult + mult^2, mult hidden], or [mult, mult hidden] in front of the head
    mix: Matrix,
    base: Vec<f32>,
    scale: Vec<f32>,
}

/// Of one call: what the block reads, and how it gives back.
pub struct Mixed {
    /// [token, hidden]
    pub input: Vec<f32>,
    /// [token, mult]
    pub post: Vec<f32>,
    /// [token, from, to]
    pub comb: Vec<f32>,
}

impl Connection {
    /// `site` is attn or ffn.
    pub fn read(from: &LayerCheckpoint, site: &str, config: &Config) -> Result<Connection> {
        let (mult, width) = (config.hc_mult, config.hc_mult * config.hidden_size);
        let outs = (2 + mult) * mult;
        let part = |what: &str, shape: &[usize]| from.tensor(&format!("hc_{site}_{what}"), shape);
        Connection::new(part("fn", &[outs, width])?, part("base", &[outs])?, part("scale", &[3])?)
    }

    /// `mix` is [outs, mult hidden], with an out for each of `base`.
    pub fn new(mix: Vec<f32>, base: Vec<f32>, scale: Vec<f32>) -> Result<Connection> {
        let shape = [base.len(), mix.len() / base.len()];
        Ok(Connection { mix: Matrix::new(mix, shape)?, base, scale })
    }

    /// In front of the output embedding.
    pub fn of_head(from: &Checkpoint, config: &Config) -> Result<Connection> {
        let (mult, width) = (config.hc_mult, config.hc_mult * config.hidden_size);
        let part = |what: &str, shape: &[usize]| from.tensor(&format!("hc_head_{what}"), shape);
        Connection::new(part("fn", &[mult, width])?, part("base", &[mult])?, part("scale", &[1])?)
    }

    /// Weights [token, outs] before any squashing, of streams [token, mult, hidden].
    fn weights(&self, config: &Config, streams: &[f32]) -> Result<Vec<f32>> {
        let width = config.hc_mult * config.hidden_size;
        let mut flat = streams.to_vec();
        flat.par_chunks_mut(width).for_each(|row| unit(row, config.rms_norm_eps));
        self.mix.of(&flat)
    }

    pub fn open(&self, config: &Config, streams: &[f32]) -> Result<Mixed> {
        let (mult, hidden) = (config.hc_mult, config.hidden_size);
        let (tokens, outs) = (streams.len() / (mult * hidden), self.base.len());
        let weights = self.weights(config, streams)?;
        let mut mixed = Mixed { input: vec![0.0; tokens * hidden], post: vec![0.0; tokens * mult], comb: vec![0.0; tokens * mult * mult] };
        let places = mixed.input.par_chunks_mut(hidden).zip(mixed.post.par_chunks_mut(mult)).zip(mixed.comb.par_chunks_mut(mult * mult));
        places.zip(weights.par_chunks(outs)).zip(streams.par_chunks(mult * hidden)).for_each(|((((input, post), comb), weights), streams)| {
            let squashed = |i: usize, scale: usize| sigmoid(weights[i] * self.scale[scale] + self.base[i]);
            let pre: Vec<f32> = (0..mult).map(|i| squashed(i, 0) + config.hc_eps).collect();
            post.iter_mut().enumerate().for_each(|(i, post)| *post = 2.0 * squashed(mult + i, 1));
            let raw = comb.iter_mut().enumerate();
            raw.for_each(|(i, comb)| *comb = weights[2 * mult + i] * self.scale[2] + self.base[2 * mult + i]);
            doubly_stochastic(comb, mult, config.hc_sinkhorn_iters, config.hc_eps);
            collapse(input, &pre, streams);
        });
        Ok(mixed)
    }

    /// The streams [token, mult, hidden] as one, [token, hidden].
    pub fn close(&self, config: &Config, streams: &[f32]) -> Result<Vec<f32>> {
        let (mult, hidden) = (config.hc_mult, config.hidden_size);
        let weights = self.weights(config, streams)?;
        let mut out = vec![0.0; streams.len() / mult];
        let rows = out.par_chunks_mut(hidden).zip(weights.par_chunks(mult)).zip(streams.par_chunks(mult * hidden));
        rows.for_each(|((out, weights), streams)| {
            let weight = |(w, base): (&f32, &f32)| sigmoid(w * self.scale[0] + base) + config.hc_eps;
            let pre: Vec<f32> = weights.iter().zip(&self.base).map(weight).collect();
            collapse(out, &pre, streams);
        });
        Ok(out)
    }
}

impl Mixed {
    /// The streams [token, mult, hidden] after a block whose output is [token, hidden].
    pub fn give(&self, mult: usize, output: &[f32], streams: &[f32]) -> Vec<f32> {
        let hidden = output.len() * mult / self.post.len();
        let mut next = vec![0.0; streams.len()];
        let tokens = next.par_chunks_mut(mult * hidden).zip(streams.par_chunks(mult * hidden)).enumerate();
        tokens.for_each(|(token, (next, streams))| {
            let output = &output[token * hidden..][..hidden];
            for (to, next) in next.chunks_mut(hidden).enumerate() {
                let post = self.post[token * mult + to];
                next.iter_mut().zip(output).for_each(|(next, y)| *next = post * y);
                for (from, stream) in streams.chunks(hidden).enumerate() {
                    let share = self.comb[(token * mult + from) * mult + to];
                    next.iter_mut().zip(stream).for_each(|(next, x)| *next += share * x);
                }
            }
        });
        next
    }
}

fn collapse(out: &mut [f32], pre: &[f32], streams: &[f32]) {
    for (stream, pre) in streams.chunks(out.len()).zip(pre) {
        out.iter_mut().zip(stream).for_each(|(out, x)| *out += pre * x);
    }
}

/// A row's root mean square becomes 1.
pub fn unit(row: &mut [f32], eps: f32) {
    let mean_square = row.iter().map(|v| v * v).sum::<f32>() / row.len() as f32;
    let inverse = 1.0 / (mean_square + eps).sqrt();
    row.iter_mut().for_each(|v| *v *= inverse);
}

fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

/// Softmax over each row, then columns and rows in turn divided by their sums (Sinkhorn and Knopp); columns come last.
fn doubly_stochastic(matrix: &mut [f32], n: usize, turns: usize, eps: f32) {
    for row in matrix.chunks_mut(n) {
        let top = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        row.iter_mut().for_each(|v| *v = (*v - top).exp());
        let sum: f32 = row.iter().sum();
        row.iter_mut().for_each(|v| *v = *v / sum + eps);
    }
    for turn in 0..turns {
        if turn > 0 {
            for row in matrix.chunks_mut(n) {
                let sum = row.iter().sum::<f32>() + eps;
                row.iter_mut().for_each(|v| *v /= sum);
            }
        }
        for column in 0..n {
            let sum = (0..n).map(|row| matrix[row * n + column]).sum::<f32>() + eps;
            (0..n).for_each(|row| matrix[row * n + column] /= sum);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_and_columns_come_to_one() {
        let mut matrix: Vec<f32> = (0..16).map(|i| ((i * 7) % 5) as f32 - 2.0).collect();
        doubly_stochastic(&mut matrix, 4, 20, 1e-6);
        for i in 0..4 {
            let row: f32 = matrix[4 * i..][..4].iter().sum();
            let column: f32 = (0..4).map(|j| matrix[4 * j + i]).sum();
            assert!((row - 1.0).abs() < 1e-3 && (column - 1.0).abs() < 1e-5, "{matrix:?}");
        }
    }
}
