//! Rotary embedding in the half-split form: coordinate i turns with coordinate i + d/2.

pub struct Rope {
    half: usize,
    /// [token, d/2] of (cos, sin)
    turns: Vec<(f32, f32)>,
}

impl Rope {
    pub fn new(theta: f32, d: usize, tokens: usize) -> Rope {
        let half = d / 2;
        let speeds: Vec<f32> = (0..half).map(|i| 1.0 / theta.powf((2 * i) as f32 / d as f32)).collect();
        let turns = (0..tokens)
            .flat_map(|p| speeds.iter().map(move |s| p as f32 * s))
            .map(|angle| (angle.cos(), angle.sin()))
            .collect();
        Rope { half, turns }
    }

    /// Turns one head vector of the token at `position`.
    pub fn turn(&self, row: &mut [f32], position: usize) {
        let (low, high) = row.split_at_mut(self.half);
        let turns = &self.turns[position * self.half..][..self.half];
        for ((a, b), (cos, sin)) in low.iter_mut().zip(high).zip(turns) {
            (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
        }
    }
}
