//! What tests of an attention over a growing cache share: one layer's rows, coming in chunks.

use super::Geometry;
use crate::model::{Attention, Rows};

fn numbers(n: usize, seed: usize) -> Vec<f32> {
    (0..n).map(|i| ((i * 7919 + seed * 104_729) % 2003) as f32 / 1000.0 - 1.0).collect()
}

/// The outputs of all tokens, coming in chunks of these sizes.
pub fn run(attention: &mut dyn Attention, of: &Geometry, chunks: &[usize]) -> Vec<f32> {
    let (width, own, tokens) = (of.heads * of.d, of.kv_heads * of.d, chunks.iter().sum::<usize>());
    let (q, k, v) = (numbers(tokens * width, 1), numbers(tokens * own, 2), numbers(tokens * own, 3));
    let (mut start, mut out) = (0, Vec::new());
    for &tokens in chunks {
        let part = |x: &[f32], width: usize| x[start * width..(start + tokens) * width].to_vec();
        let (q, k, v) = (part(&q, width), part(&k, own), part(&v, own));
        out.extend(attention.attend(&Rows { layer: 0, start, tokens, q: &q, k: &k, v: &v }).unwrap());
        start += tokens;
    }
    out
}
