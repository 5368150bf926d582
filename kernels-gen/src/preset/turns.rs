//! The frame of a segment. RoPE is a group: with p0 the first position of a key's segment, `R(-p0) k` is the key turned
//! by its offset in the segment alone. Coded in that frame a key looks the same at every depth of a context, so one
//! basis serves all of them; queries are turned back by the same angle, once a segment, and dot products stay.

use crate::kernels::SEGMENT;

/// Cosines and sines of whole segments. Angles are products in f64, rounded to f32 as the last step; kernels
/// take this table, so that all sides turn by the same numbers.
#[derive(Clone, PartialEq, Debug)]
pub struct Turns {
    /// `[segments, d / 2]` of (cos, sin) of `segment * SEGMENT * speed`
    pub pairs: Vec<(f32, f32)>,
    half: usize,
}

impl Turns {
    /// For positions below `positions`; `speeds` `[d / 2]` in radians a token.
    pub fn new(speeds: &[f32], positions: usize) -> Turns {
        let starts = (0..positions.div_ceil(SEGMENT)).map(|segment| (segment * SEGMENT) as f64);
        let angles = starts.flat_map(|p0| speeds.iter().map(move |speed| p0 * f64::from(*speed)));
        Turns { pairs: angles.map(|a| (a.cos() as f32, a.sin() as f32)).collect(), half: speeds.len() }
    }

    /// As kernels take them, `[segments, 2, d / 2]`: cosines, sines.
    pub fn packed(&self) -> Vec<f32> {
        let segment = |pairs: &[(f32, f32)]| pairs.iter().map(|p| p.0).chain(pairs.iter().map(|p| p.1)).collect::<Vec<f32>>();
        self.pairs.chunks_exact(self.half).flat_map(segment).collect()
    }

    /// `R(-p0) x` for the start p0 of a segment: `a cos + b sin`, `b cos - a sin`, the second product of each rounded
    /// first and the first one fused.
    pub fn back(&self, x: &mut [f32], segment: usize) {
        let (low, high) = x.split_at_mut(self.half);
        let pairs = &self.pairs[segment * self.half..][..self.half];
        for ((a, b), (cos, sin)) in low.iter_mut().zip(high).zip(pairs) {
            (*a, *b) = (a.mul_add(*cos, *b * sin), b.mul_add(*cos, -(*a * sin)));
        }
    }

    /// `R(p0) x`, undoes `back` up to rounding.
    pub fn forth(&self, x: &mut [f32], segment: usize) {
        let (low, high) = x.split_at_mut(self.half);
        let pairs = &self.pairs[segment * self.half..][..self.half];
        for ((a, b), (cos, sin)) in low.iter_mut().zip(high).zip(pairs) {
            (*a, *b) = (a.mul_add(*cos, -(*b * sin)), b.mul_add(*cos, *a * sin));
        }
    }
}
