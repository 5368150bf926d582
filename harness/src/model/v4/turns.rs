//! Rotary embedding in the interleaved form: coordinates 2i and 2i + 1 turn together, in the last dims of a row.

use crate::model::rope::{Scaling, speeds_of};

pub struct Turns {
    /// dims that turn
    dims: usize,
    /// [token, dims / 2] of (cos, sin)
    table: Vec<(f32, f32)>,
}

impl Turns {
    /// Lengths stay what they are under every scaling.
    pub fn new(theta: f32, scaling: Scaling, dims: usize, tokens: usize) -> Turns {
        let speeds = speeds_of(theta, scaling, dims);
        let angles = (0..tokens).flat_map(|p| speeds.iter().map(move |s| p as f32 * s));
        Turns { dims, table: angles.map(|angle| (angle.cos(), angle.sin())).collect() }
    }

    pub fn turn(&self, row: &mut [f32], position: usize) {
        self.by(row, position, 1.0);
    }

    pub fn turn_back(&self, row: &mut [f32], position: usize) {
        self.by(row, position, -1.0);
    }

    fn by(&self, row: &mut [f32], position: usize, sense: f32) {
        let (half, first) = (self.dims / 2, row.len() - self.dims);
        let turns = &self.table[position * half..][..half];
        for (pair, (cos, sin)) in row[first..].as_chunks_mut::<2>().0.iter_mut().zip(turns) {
            let ([a, b], sin) = (*pair, sense * sin);
            *pair = [a * cos - b * sin, b * cos + a * sin];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_dims_turn_and_turn_back() {
        let turns = Turns::new(1e4, Scaling::None, 4, 8);
        let row = [1.0, 2.0, 1.0, 0.0, 1.0, 0.0];
        let mut turned = row;
        turns.turn(&mut turned, 1);
        let (near, far) = (1.0_f32, 0.01_f32);
        let wanted = [1.0, 2.0, near.cos(), near.sin(), far.cos(), far.sin()];
        let close = |a: &[f32], b: &[f32]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-6);
        assert!(close(&turned, &wanted), "{turned:?}");
        turns.turn_back(&mut turned, 1);
        assert!(close(&turned, &row), "{turned:?}");
    }
}
