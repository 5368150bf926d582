//! Made-up rows of three kinds, the same on every machine.

use crate::stats::Random;

/// How the coordinates of a row are distributed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Family {
    Gaussian,
    /// Student t with three degrees of freedom: rare coordinates far out
    HeavyTailed,
    /// channel scales from 1/4 to 4, and two outlier channels at 20
    Anisotropic,
}

pub const FAMILIES: [Family; 3] = [Family::Gaussian, Family::HeavyTailed, Family::Anisotropic];

impl Family {
    pub fn name(self) -> &'static str {
        match self {
            Family::Gaussian => "gaussian",
            Family::HeavyTailed => "heavy-tailed",
            Family::Anisotropic => "anisotropic",
        }
    }

    /// [rows, d]
    pub fn rows(self, rows: usize, d: usize, seed: u64) -> Vec<f32> {
        let mut source = Random::new(seed);
        let scales: Vec<f64> = (0..d).map(|_| 4_f64.powf(2.0 * source.uniform() - 1.0)).collect();
        let outlier = |i: usize| i == d / 5 || i == d / 2 + 3;
        (0..rows * d)
            .map(|at| (at, source.gaussian()))
            .collect::<Vec<_>>()
            .into_iter()
            .map(|(at, g)| match self {
                Family::Gaussian => g as f32,
                Family::HeavyTailed => {
                    let chi: f64 = (0..3).map(|_| source.gaussian().powi(2)).sum();
                    (g / (chi / 3.0).sqrt()) as f32
                }
                Family::Anisotropic => (g * if outlier(at % d) { 20.0 } else { scales[at % d] }) as f32,
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_have_the_moments_they_claim() {
        let x = Family::Gaussian.rows(500, 128, 1);
        let (n, sum): (f64, f64) = (x.len() as f64, x.iter().map(|v| f64::from(*v)).sum());
        let square: f64 = x.iter().map(|v| f64::from(*v).powi(2)).sum();
        assert!((sum / n).abs() < 0.02 && (square / n - 1.0).abs() < 0.02);
        assert!(Family::HeavyTailed.rows(500, 128, 1).iter().any(|v| v.abs() > 20.0));
        assert_eq!(Family::Anisotropic.rows(3, 64, 9), Family::Anisotropic.rows(3, 64, 9));
    }
}
