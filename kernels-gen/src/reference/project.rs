//! The projection kernel: `out = (x - before) M + after`, dims added in order, each product fused.

use kernel_dsl::math::sanitise;
use multiversion::multiversion;

/// One affine map a kv head.
#[derive(Clone, Copy, Debug)]
pub struct Map<'a> {
    /// `[maps, d (in), d (out)]`
    pub matrix: &'a [f32],
    /// `[maps, d]`, subtracted first.
    pub before: &'a [f32],
    /// `[maps, d]`, added last.
    pub after: &'a [f32],
}

/// Maps rows `[rows, maps * group, d]`; head h takes map h / group. NaN counts as 0, and what is beyond f16 is clamped.
///
/// Compiled again for wide vectors, where a fused multiply-add is one instruction.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
pub fn project(m: &Map, d: usize, group: usize, x: &[f32]) -> Vec<f32> {
    let heads = m.before.len() / d * group;
    let mut out = vec![0.0_f32; x.len()];
    for (i, (x, out)) in x.chunks_exact(d).zip(out.chunks_exact_mut(d)).enumerate() {
        let own = i % heads / group;
        // Loops instead of closures: they use the vectors.
        for (j, x) in x.iter().enumerate() {
            let centred = sanitise(*x, 65504.0) - m.before[own * d + j];
            for (o, w) in out.iter_mut().zip(&m.matrix[(own * d + j) * d..][..d]) {
                *o = w.mul_add(centred, *o);
            }
        }
        for (o, b) in out.iter_mut().zip(&m.after[own * d..]) {
            *o += b;
        }
    }
    out
}
