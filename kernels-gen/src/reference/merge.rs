//! Two attention states become one.

use kernel_dsl::math::fmax;

use crate::kernels::merge::{both, worth};

/// Joins the states `(out [rows, d], lse [rows])` of the same query rows over different tokens.
pub fn merge(a: (&[f32], &[f32]), b: (&[f32], &[f32]), d: usize) -> (Vec<f32>, Vec<f32>) {
    let (mut out, mut lse) = (Vec::new(), Vec::new());
    for (row, (&x, &y)) in a.1.iter().zip(b.1).enumerate() {
        let top = fmax(x, y);
        let (own, its) = (worth(x, top), worth(y, top));
        let of = |state: &[f32], i: usize, weight: f32| if weight > 0.0 { state[row * d + i] } else { 0.0 };
        let joined = |i: usize| of(b.0, i, its).mul_add(its, of(a.0, i, own) * own) / (own + its);
        out.extend((0..d).map(|i| if top > f32::NEG_INFINITY { joined(i) } else { 0.0 }));
        lse.push(both(top, own + its));
    }
    (out, lse)
}
